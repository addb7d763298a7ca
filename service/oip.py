"""Open Inference Protocol v2 (KServe): an infer request to orders for the pipeline, and the answer back.

One data plane under REST and gRPC: both speak the protocol's protobuf messages, whose stubs come
with NVIDIA's tritonclient; REST translates its JSON in `oip_json`. A model takes either of
`IMAGE` (BYTES `[N]`, encoded files) and `image` (UINT8 `[N, H, W, C]`, raw pixels), and gives
either of `DENOISED` (BYTES) and `denoised` (UINT8), by default of the kind that came in.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
from tritonclient.grpc import service_pb2 as pb

from service.codec import Pixels
from service.errors import BadParameterError, NotSupportedError
from service.oip_models import (
    CLEAN_FILE,
    CLEAN_PIXELS,
    DATATYPES,
    FILE,
    PIXELS,
    STRENGTH,
    quoted,
    reference_of,
)
from service.pipeline import Denoised, Order, Pipeline, together
from service.settings import ImageFormat

_MOST_IMAGES = 64
_MOST_SIDES = 8
_OURS = ("strength", "format", "quality", "drop_oldest")
_TRITONS = ("timeout", "priority", "sequence_id", "sequence_start", "sequence_end", "binary_data_output")


@dataclass(frozen=True)
class _Job:
    """What one infer request asks for."""

    images: Sequence[bytes | Pixels]
    orders: Sequence[Order]
    wanted: Sequence[str]
    timeout_s: float | None


async def infer(pipeline: Pipeline, request: Any, timeout_s: float | None) -> Any:
    """Answer a ModelInferRequest with a ModelInferResponse.

    Args:
        timeout_s: the client's own deadline, if it has one; its `timeout` parameter (microseconds)
            and the server's setting hold as well.

    Raises:
        ServiceError: one for the request, also where only one of its images is bad.
    """
    job = await pipeline.with_headers(lambda: _read(request))
    limits = [limit for limit in (timeout_s, job.timeout_s) if limit]
    async with pipeline.request(min(limits, default=None)) as place:
        works = [pipeline.denoise(*each, place) for each in zip(job.images, job.orders, strict=True)]
        done = await together(works)
        return await pipeline.in_thread(lambda: _response(request.id, job.wanted, done))


def _read(request: Any) -> _Job:
    if not 0 < len(request.inputs) <= len(DATATYPES):
        raise BadParameterError(f"Send one input, {FILE} or {PIXELS}, and {STRENGTH} where wanted")
    parameters = _parameters(request)
    tensors = dict(_tensors(request))
    given = [name for name in (FILE, PIXELS) if name in tensors]
    if len(given) != 1:
        raise BadParameterError(f"Send either {FILE} (BYTES) or {PIXELS} (UINT8), not {quoted(tensors)}")
    images = tensors[given[0]]
    if not 0 < len(images) <= _MOST_IMAGES:
        raise BadParameterError(f"Send 1 to {_MOST_IMAGES} images in one request, not {len(images)}")
    default = CLEAN_FILE if given == [FILE] else CLEAN_PIXELS
    wanted = list(dict.fromkeys(output.name for output in request.outputs)) or [default]
    if unknown := set(wanted) - {CLEAN_FILE, CLEAN_PIXELS}:
        raise BadParameterError(f"No such output {quoted(unknown)}; there are {CLEAN_FILE}, {CLEAN_PIXELS}")
    strengths = tensors.get(STRENGTH, [parameters.pop("strength", 1.0)] * len(images))
    if len(strengths) != len(images):
        raise BadParameterError(f"{STRENGTH} has {len(strengths)} values for {len(images)} images")
    format = _format(parameters, given[0], wanted)
    quality = _quality(parameters)
    model = reference_of(request.model_name, request.model_version)
    orders = [Order(model, _number("strength", each), format, quality) for each in strengths]
    timeout = _number("timeout", parameters.get("timeout", 0)) / 1e6
    return _Job(images, orders, wanted, timeout or None)


def parameter(value: Any) -> Any:
    """The value of an InferParameter, whichever kind it is."""
    kind = value.WhichOneof("parameter_choice")
    return getattr(value, kind) if kind else None


def _parameters(request: Any) -> dict[str, Any]:
    found = {name: parameter(value) for name, value in request.parameters.items()}
    for name in found:
        if name not in _OURS + _TRITONS and not name.startswith("triton_"):
            raise BadParameterError(f"{quoted(name)}: no such parameter; there are {', '.join(_OURS)}")
    return found


def _number(name: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number) or number < 0:
        raise BadParameterError(f"{name} is a number of 0 or more, not {quoted(value)!r}")
    return number


def _quality(parameters: dict[str, Any]) -> int | None:
    if "quality" not in parameters:
        return None
    quality = _number("quality", parameters["quality"])
    if quality not in range(1, 101):
        raise BadParameterError(f"quality is 1 to 100, not {quality:g}")
    return int(quality)


def _format(parameters: dict[str, Any], given: str, wanted: Sequence[str]) -> Any:
    asked = parameters.get("format")
    if asked is not None and asked not in get_args(ImageFormat):
        raise BadParameterError(f"format is one of {', '.join(get_args(ImageFormat))}, not {quoted(asked)!r}")
    if CLEAN_FILE not in wanted:
        return "raw"
    return asked or ("png" if given == PIXELS else None)


def _tensors(request: Any) -> Iterator[tuple[str, Any]]:
    """Name and elements of each input: files, frames or numbers."""
    raw: Sequence[bytes] = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise BadParameterError(f"{len(request.inputs)} inputs, but {len(raw)} raw contents")
    for index, tensor in enumerate(request.inputs):
        if tensor.name not in (FILE, PIXELS, STRENGTH):
            raise BadParameterError(
                f"No such input {quoted(tensor.name)!r}; there are {FILE}, {PIXELS}, {STRENGTH}"
            )
        if tensor.datatype != DATATYPES[tensor.name]:
            raise BadParameterError(
                f"{tensor.name} is {DATATYPES[tensor.name]}, not {quoted(tensor.datatype)}"
            )
        if "shared_memory_region" in tensor.parameters:
            raise NotSupportedError("Shared memory is not supported; send the bytes")
        yield tensor.name, _elements(tensor, raw[index] if raw else None)


def _elements(tensor: Any, raw: bytes | None) -> Any:
    if len(tensor.shape) > _MOST_SIDES or min(tensor.shape, default=0) < 0:
        raise BadParameterError(f"{tensor.name}: a shape has at most {_MOST_SIDES} sides, none below 0")
    count = math.prod(tensor.shape)
    elements: Any
    if tensor.datatype == "BYTES":
        elements = list(tensor.contents.bytes_contents if raw is None else split_bytes(raw))
        found = len(elements)
    elif tensor.datatype == "UINT8":
        pixels = _pixels(tensor, raw)
        found = pixels.size
        elements = pixels.reshape(tensor.shape) if found == count > 0 and len(tensor.shape) == 4 else []
        if found == count and len(tensor.shape) != 4:
            raise BadParameterError(f"{PIXELS} has the shape [N, H, W, C], not {list(tensor.shape)}")
    else:
        numbers = tensor.contents.fp32_contents if raw is None else _floats(raw)
        elements, found = list(numbers), len(numbers)
    if found != count:
        raise BadParameterError(f"{tensor.name} has the shape {list(tensor.shape)}, but {found} elements")
    return elements


def _pixels(tensor: Any, raw: bytes | None) -> Pixels:
    if raw is not None:
        return np.frombuffer(raw, np.uint8)
    levels = np.array(tensor.contents.uint_contents, np.uint32)
    if levels.size and levels.max() > 255:
        raise BadParameterError(f"{PIXELS} holds levels of 0 to 255, not {levels.max()}")
    return levels.astype(np.uint8)


def _floats(raw: bytes) -> npt.NDArray[np.float32]:
    if len(raw) % 4:
        raise BadParameterError(f"{STRENGTH} has {len(raw)} bytes, no multiple of 4")
    return np.frombuffer(raw, "<f4")


def split_bytes(raw: bytes) -> Iterator[bytes]:
    """BYTES elements: each its length, four bytes, and its content."""
    at = 0
    while at < len(raw):
        length = int.from_bytes(raw[at : at + 4], "little")
        end = at + 4 + length
        if end > len(raw):
            raise BadParameterError(f"{FILE}: an element is longer than what was sent")
        yield raw[at + 4 : end]
        at = end


def _response(request_id: str, wanted: Sequence[str], done: Sequence[Denoised]) -> Any:
    card = done[0].card
    response = pb.ModelInferResponse(model_name=card.name, model_version=str(card.version), id=request_id)
    for stage in done[0].seconds:
        milliseconds = 1000 * max(each.seconds[stage] for each in done)
        response.parameters[f"{stage}_ms"].double_param = round(milliseconds, 3)
    for name in wanted:
        shape, raw = _files(done) if name == CLEAN_FILE else _frames(done)
        output = response.outputs.add(name=name, datatype=DATATYPES[name], shape=shape)
        if name == CLEAN_FILE:
            output.parameters["media_type"].string_param = done[0].media_type
        response.raw_output_contents.append(raw)
    return response


def _files(done: Sequence[Denoised]) -> tuple[list[int], bytes]:
    return [len(done)], b"".join(len(each.data).to_bytes(4, "little") + each.data for each in done)


def _frames(done: Sequence[Denoised]) -> tuple[list[int], bytes]:
    shapes = {each.pixels.shape for each in done}
    if len(shapes) > 1:
        raise BadParameterError(f"The images differ in size; ask for {CLEAN_FILE}, or send them one by one")
    return [len(done), *shapes.pop()], b"".join(each.pixels.tobytes() for each in done)
