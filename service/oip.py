"""Open Inference Protocol v2 (KServe): messages to orders for the pipeline, and answers back.

One data plane under REST and gRPC: both speak the protocol's protobuf messages, whose stubs come
with NVIDIA's tritonclient; REST translates its JSON in `http_v2`. A model takes either of
`IMAGE` (BYTES `[N]`, encoded files) and `image` (UINT8 `[N, H, W, C]`, raw pixels), and gives
either of `DENOISED` (BYTES) and `denoised` (UINT8), by default of the kind that came in.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version as version_of
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
from tritonclient.grpc import model_config_pb2 as config_pb
from tritonclient.grpc import service_pb2 as pb

from model_store import InvalidNameError, ModelCard, parse_reference
from service import metrics
from service.codec import Pixels
from service.errors import BadParameterError, NotSupportedError, UnknownModelError
from service.pipeline import Denoised, Order, Pipeline, together
from service.settings import ImageFormat

FILE, PIXELS, STRENGTH = "IMAGE", "image", "strength"
CLEAN_FILE, CLEAN_PIXELS = "DENOISED", "denoised"
DATATYPES = {FILE: "BYTES", PIXELS: "UINT8", STRENGTH: "FP32", CLEAN_FILE: "BYTES", CLEAN_PIXELS: "UINT8"}
EXTENSIONS = ("binary_tensor_data", "model_configuration", "model_repository", "statistics")
_MOST_IMAGES = 64
_MOST_SIDES = 8
_MOST_ECHOED = 60  # characters of what a client has sent, in what it is told
_OURS = ("strength", "format", "quality", "drop_oldest")
_TRITONS = ("timeout", "priority", "sequence_id", "sequence_start", "sequence_end", "binary_data_output")
_CONFIG_TYPES = {"BYTES": "TYPE_STRING", "UINT8": "TYPE_UINT8", "FP32": "TYPE_FP32"}


@dataclass(frozen=True)
class _Job:
    """What one infer request asks for."""

    images: Sequence[bytes | Pixels]
    orders: Sequence[Order]
    wanted: Sequence[str]
    timeout_s: float | None


def server_metadata() -> Any:
    return pb.ServerMetadataResponse(
        name="quietframe", version=version_of("quietframe"), extensions=EXTENSIONS
    )


def model_metadata(card: ModelCard, versions: Iterable[int]) -> Any:
    return pb.ModelMetadataResponse(
        name=card.name,
        versions=map(str, versions),
        platform="onnxruntime_onnx",
        inputs=[_described(name, card) for name in _inputs(card)],
        outputs=[_described(name, card) for name in (CLEAN_FILE, CLEAN_PIXELS)],
    )


def model_config(card: ModelCard) -> Any:
    """What Triton's clients ask for: batches are made by the server, of up to any size."""
    inputs = [
        config_pb.ModelInput(
            name=name,
            data_type=_CONFIG_TYPES[DATATYPES[name]],
            dims=_shape(name, card),
            optional=name != FILE,  # what a load generator that knows no more should send
        )
        for name in _inputs(card)
    ]
    outputs = [
        config_pb.ModelOutput(name=name, data_type=_CONFIG_TYPES[DATATYPES[name]], dims=_shape(name, card))
        for name in (CLEAN_FILE, CLEAN_PIXELS)
    ]
    return config_pb.ModelConfig(
        name=card.name,
        platform="onnxruntime_onnx",
        backend="onnxruntime",
        input=inputs,
        output=outputs,
        max_batch_size=0,
    )


def model_statistics(cards: Iterable[ModelCard]) -> Any:
    """Triton's statistics out of the same series as /metrics, so that the two never disagree."""
    return pb.ModelStatisticsResponse(model_stats=map(_statistics, cards))


def repository_index(pipeline: Pipeline, ready_only: bool) -> Any:
    """Every version in the store; those in memory are READY. Reads files: call it in a thread."""
    loaded = {engine.card.label for engine in pipeline.engines.loaded()}
    models = []
    for card in pipeline.store.readable_cards():
        ready = card.label in loaded
        if ready or not ready_only:
            state = "READY" if ready else "UNAVAILABLE"
            models.append(
                pb.RepositoryIndexResponse.ModelIndex(
                    name=card.name,
                    version=str(card.version),
                    state=state,
                    reason="" if ready else "not asked for yet",
                )
            )
    return pb.RepositoryIndexResponse(models=models)


def reference_of(name: str, version: str) -> str:
    """`name` or `name:version`, as the store reads it.

    Raises:
        UnknownModelError: no model can have that name or version.
    """
    reference = f"{name}:{version}" if version else name
    try:
        if parse_reference(reference)[0] != name:
            raise InvalidNameError("the version is given apart from the name")
    except InvalidNameError as error:
        raise UnknownModelError(f"{_cut(reference)!r}: {_cut(error)}") from None
    return reference


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
        raise BadParameterError(f"Send either {FILE} (BYTES) or {PIXELS} (UINT8), not {_cut(tensors)}")
    images = tensors[given[0]]
    if not 0 < len(images) <= _MOST_IMAGES:
        raise BadParameterError(f"Send 1 to {_MOST_IMAGES} images in one request, not {len(images)}")
    default = CLEAN_FILE if given == [FILE] else CLEAN_PIXELS
    wanted = list(dict.fromkeys(output.name for output in request.outputs)) or [default]
    if unknown := set(wanted) - {CLEAN_FILE, CLEAN_PIXELS}:
        raise BadParameterError(f"No such output {_cut(unknown)}; there are {CLEAN_FILE} and {CLEAN_PIXELS}")
    strengths = tensors.get(STRENGTH, [parameters.pop("strength", 1.0)] * len(images))
    if len(strengths) != len(images):
        raise BadParameterError(f"{STRENGTH} has {len(strengths)} values for {len(images)} images")
    format = _format(parameters, given[0], wanted)
    quality = _quality(parameters)
    model = reference_of(request.model_name, request.model_version)
    orders = [Order(model, _number("strength", each), format, quality) for each in strengths]
    timeout = _number("timeout", parameters.get("timeout", 0)) / 1e6
    return _Job(images, orders, wanted, timeout or None)


def _cut(value: Any) -> str:
    listed = sorted(value) if isinstance(value, Iterable) and not isinstance(value, str) else value
    return str(listed)[:_MOST_ECHOED]


def parameter(value: Any) -> Any:
    """The value of an InferParameter, whichever kind it is."""
    kind = value.WhichOneof("parameter_choice")
    return getattr(value, kind) if kind else None


def _parameters(request: Any) -> dict[str, Any]:
    found = {name: parameter(value) for name, value in request.parameters.items()}
    for name in found:
        if name not in _OURS + _TRITONS and not name.startswith("triton_"):
            raise BadParameterError(f"{_cut(name)}: no such parameter; there are {', '.join(_OURS)}")
    return found


def _number(name: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number) or number < 0:
        raise BadParameterError(f"{name} is a number of 0 or more, not {_cut(value)!r}")
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
        raise BadParameterError(f"format is one of {', '.join(get_args(ImageFormat))}, not {_cut(asked)!r}")
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
                f"No such input {_cut(tensor.name)!r}; there are {FILE}, {PIXELS}, {STRENGTH}"
            )
        if tensor.datatype != DATATYPES[tensor.name]:
            raise BadParameterError(f"{tensor.name} is {DATATYPES[tensor.name]}, not {_cut(tensor.datatype)}")
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


def _inputs(card: ModelCard) -> list[str]:
    return [FILE, PIXELS, STRENGTH] if card.takes_strength else [FILE, PIXELS]


def _shape(name: str, card: ModelCard) -> list[int]:
    channels = 3 if card.colour == "rgb" else 1
    return [-1, -1, -1, channels] if DATATYPES[name] == "UINT8" else [-1]


def _described(name: str, card: ModelCard) -> Any:
    return pb.ModelMetadataResponse.TensorMetadata(
        name=name, datatype=DATATYPES[name], shape=_shape(name, card)
    )


def _statistics(card: ModelCard) -> Any:
    seen = metrics.model_totals(card.label)

    def duration(stage: str) -> Any:
        total = seen.stages[stage]
        return pb.StatisticDuration(count=int(total.count), ns=int(total.sum * 1e9))

    whole = sum(total.sum for total in seen.stages.values())
    return pb.ModelStatistics(
        name=card.name,
        version=str(card.version),
        inference_count=int(seen.stages["infer"].count),
        execution_count=int(seen.batches.count),
        inference_stats=pb.InferStatistics(
            success=pb.StatisticDuration(count=int(seen.answered), ns=int(whole * 1e9)),
            queue=duration("queue"),
            compute_input=duration("decode"),
            compute_infer=duration("infer"),
            compute_output=duration("encode"),
        ),
    )
