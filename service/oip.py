"""Open Inference Protocol v2 (KServe): an infer request to orders for the pipeline, and the answer back.

One data plane under REST and gRPC: both speak the protocol's protobuf messages, whose stubs come
with NVIDIA's tritonclient; REST translates its JSON in `oip_json`. A model takes either of
`IMAGE` (BYTES `[N]`, encoded files) and `image` (UINT8 `[N, H, W, C]`, raw pixels), and gives
either of `DENOISED` (BYTES) and `denoised` (UINT8), by default of the kind that came in. Encoders
give `latent` (FP32 `[N, k]`) instead, decoders take it; a model of points has `points` and `restored`.
`DENOISED` has the parameter `media_type` where all its files are of one type. The answer has the `id` of
the request, of at most `MOST_ID` characters.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
from tritonclient.grpc import service_pb2 as pb

from model_store import ModelCard
from service.codec import Pixels
from service.engine import Samples
from service.errors import BadParameterError, NotSupportedError
from service.oip_models import (
    CLEAN_FILE,
    DATATYPES,
    FILE,
    LATENT,
    PIXELS,
    POINTS,
    STRENGTH,
    inputs_of,
    outputs_of,
    quoted,
    reference_of,
)
from service.order import Denoised, Noise, Order
from service.pipeline import Pipeline, together
from service.settings import ImageFormat

MOST_FIELDS = 4000  # of a request over gRPC
EXCESS = f"more than {MOST_FIELDS} fields"  # the parameter of one that had them, and was not parsed
MOST_ID = 256  # characters of a request's `id`, which every answer repeats, also where a frame was dropped
_GIVEN = (FILE, PIXELS, LATENT, POINTS)
_MOST_IMAGES = 64
_MOST_SIDES = 8
_OURS = ("strength", "format", "quality", "noise", "drop_oldest")
NOISE_SIGMA = "noise_sigma"  # in the answer: a number for each image, with commas between them
_TRITONS = ("timeout", "priority", "sequence_id", "sequence_start", "sequence_end", "binary_data_output")


@dataclass(frozen=True)
class _Job:
    """What one infer request asks for; `wanted` is empty where it leaves the outputs to the model."""

    model: str
    given: str
    samples: Sequence[bytes | Samples]
    strengths: Sequence[float]
    wanted: Sequence[str]
    format: ImageFormat | None
    quality: int | None
    noise: Noise | None
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
        card = (await pipeline.engine(job.model)).card
        wanted = _outputs(job, card)
        work = pipeline.denoise if card.takes_image and card.gives_image else pipeline.convert
        orders = _orders(job, wanted)
        done = await together(
            work(sample, order, place) for sample, order in zip(job.samples, orders, strict=True)
        )
        return await pipeline.in_thread(lambda: _response(request.id, wanted, done))


def _read(request: Any) -> _Job:
    if EXCESS in request.parameters:
        raise BadParameterError(f"A request of {EXCESS} is not read; send fewer parameters")
    if len(request.id) > MOST_ID:
        raise BadParameterError(
            f"id has at most {MOST_ID} characters, not {len(request.id)}; send a shorter one"
        )
    if not 0 < len(request.inputs) <= len(DATATYPES):
        raise BadParameterError(f"Send one input, {FILE} or {PIXELS}, and {STRENGTH} where wanted")
    parameters = _parameters(request)
    tensors = dict(_tensors(request))
    if len(tensors) < len(request.inputs):
        raise BadParameterError("Two inputs have the same name; send each input once")
    given = [name for name in _GIVEN if name in tensors]
    if len(given) != 1:
        raise BadParameterError(f"Send either {FILE} (BYTES) or {PIXELS} (UINT8), not {quoted(tensors)}")
    samples = tensors[given[0]]
    if not 0 < len(samples) <= _MOST_IMAGES:
        raise BadParameterError(f"Send 1 to {_MOST_IMAGES} images in one request, not {len(samples)}")
    strengths = tensors.get(STRENGTH, [parameters.pop("strength", 1.0)] * len(samples))
    if len(strengths) != len(samples):
        raise BadParameterError(f"{STRENGTH} has {len(strengths)} values for {len(samples)} images")
    return _Job(
        reference_of(request.model_name, request.model_version),
        given[0],
        samples,
        [_number("strength", each) for each in strengths],
        list(dict.fromkeys(output.name for output in request.outputs)),
        _format(parameters),
        _quality(parameters),
        _noise(parameters),
        _number("timeout", parameters.get("timeout", 0)) / 1e6 or None,
    )


def _outputs(job: _Job, card: ModelCard) -> Sequence[str]:
    """What the answer holds; by default of the kind that came in."""
    if job.given not in inputs_of(card):
        raise BadParameterError(f"Model {card.label} takes {', '.join(inputs_of(card))}, not {job.given}")
    known = outputs_of(card)
    if unknown := set(job.wanted) - set(known):
        raise BadParameterError(f"No such output {quoted(unknown)}; there are {', '.join(known)}")
    return job.wanted or [CLEAN_FILE if job.given == FILE and card.gives_image else known[-1]]


def _orders(job: _Job, wanted: Sequence[str]) -> list[Order]:
    format: Any = "raw"
    if CLEAN_FILE in wanted:
        format = job.format or (None if job.given == FILE else "png")
    return [Order(job.model, strength, format, job.quality, job.noise) for strength in job.strengths]


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


def _format(parameters: dict[str, Any]) -> Any:
    asked = parameters.get("format")
    if asked is not None and asked not in get_args(ImageFormat):
        raise BadParameterError(f"format is one of {', '.join(get_args(ImageFormat))}, not {quoted(asked)!r}")
    return asked


def _noise(parameters: dict[str, Any]) -> Noise | None:
    asked = parameters.get("noise")
    if asked is not None and asked not in get_args(Noise):
        raise BadParameterError(f"noise is {' or '.join(get_args(Noise))}, not {quoted(asked)!r}")
    return asked


def _tensors(request: Any) -> Iterator[tuple[str, Any]]:
    """Name and elements of each input: files, frames or numbers."""
    raw: Sequence[bytes] = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise BadParameterError(f"{len(request.inputs)} inputs, but {len(raw)} raw contents")
    for index, tensor in enumerate(request.inputs):
        if tensor.name not in (*_GIVEN, STRENGTH):
            raise BadParameterError(
                f"No such input {quoted(tensor.name)!r}; there are {', '.join(_GIVEN)}, {STRENGTH}"
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
        numbers = tensor.contents.fp32_contents if raw is None else _floats(tensor.name, raw)
        elements, found = list(numbers), len(numbers)
        if tensor.name != STRENGTH and found == count:
            elements = _rows(tensor, numbers)
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


def _rows(tensor: Any, numbers: Any) -> npt.NDArray[np.float32]:
    if len(tensor.shape) != 2:
        raise BadParameterError(f"{tensor.name} has the shape [N, k], not {list(tensor.shape)}")
    return np.array(numbers, np.float32).reshape(tensor.shape)


def _floats(name: str, raw: bytes) -> npt.NDArray[np.float32]:
    if len(raw) % 4:
        raise BadParameterError(f"{name} has {len(raw)} bytes, no multiple of 4")
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
    if sigmas := [f"{each.noise_sigma:.1f}" for each in done if each.noise_sigma is not None]:
        response.parameters[NOISE_SIGMA].string_param = ", ".join(sigmas)
    for name in wanted:
        shape, raw = _files(done) if name == CLEAN_FILE else _frames(done)
        output = response.outputs.add(name=name, datatype=DATATYPES[name], shape=shape)
        if name == CLEAN_FILE and len({each.media_type for each in done}) == 1:
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
