"""Open Inference Protocol v2: what it says about the server and its models, as protobuf messages."""

from collections.abc import Iterable, Sequence
from importlib.metadata import version as version_of
from typing import Any

from tritonclient.grpc import model_config_pb2 as config_pb
from tritonclient.grpc import service_pb2 as pb

from model_store import InvalidNameError, ModelCard, parse_reference
from service import metrics
from service.errors import UnknownModelError
from service.pipeline import Pipeline

FILE, PIXELS, STRENGTH = "IMAGE", "image", "strength"
CLEAN_FILE, CLEAN_PIXELS = "DENOISED", "denoised"
LATENT, POINTS, RESTORED = "latent", "points", "restored"
DATATYPES = {
    FILE: "BYTES",
    PIXELS: "UINT8",
    STRENGTH: "FP32",
    CLEAN_FILE: "BYTES",
    CLEAN_PIXELS: "UINT8",
    LATENT: "FP32",
    POINTS: "FP32",
    RESTORED: "FP32",
}
EXTENSIONS = ("binary_tensor_data", "model_configuration", "model_repository", "statistics")
_CONFIG_TYPES = {"BYTES": "TYPE_STRING", "UINT8": "TYPE_UINT8", "FP32": "TYPE_FP32"}
_MOST_ECHOED = 60


def server_metadata() -> Any:
    return pb.ServerMetadataResponse(
        name="quietframe", version=version_of("quietframe"), extensions=EXTENSIONS
    )


def model_metadata(card: ModelCard, versions: Iterable[int]) -> Any:
    return pb.ModelMetadataResponse(
        name=card.name,
        versions=map(str, versions),
        platform="onnxruntime_onnx",
        inputs=[_described(name, card) for name in inputs_of(card)],
        outputs=[_described(name, card) for name in outputs_of(card)],
    )


def model_config(card: ModelCard) -> Any:
    """What Triton's clients ask for: batches are made by the server, of up to any size."""
    inputs = [
        config_pb.ModelInput(
            name=name,
            data_type=_CONFIG_TYPES[DATATYPES[name]],
            dims=_shape(name, card),
            optional=name in (PIXELS, STRENGTH),  # a load generator that knows no more should send the file
        )
        for name in inputs_of(card)
    ]
    outputs = [
        config_pb.ModelOutput(name=name, data_type=_CONFIG_TYPES[DATATYPES[name]], dims=_shape(name, card))
        for name in outputs_of(card)
    ]
    return config_pb.ModelConfig(
        name=card.name,
        platform="onnxruntime_onnx",
        backend="onnxruntime",
        input=inputs,
        output=outputs,
        max_batch_size=0,
    )


def model_statistics(cards: Sequence[ModelCard]) -> Any:
    """Triton's statistics out of the same series as /metrics, so that the two never disagree.

    Reads the files of all workers: call it in a thread.
    """
    totals = metrics.model_totals([card.label for card in cards])
    return pb.ModelStatisticsResponse(model_stats=map(_statistics, cards, totals))


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
                    reason="" if ready else _reason(pipeline, card),
                )
            )
    return pb.RepositoryIndexResponse(models=models)


def _reason(pipeline: Pipeline, card: ModelCard) -> str:
    if pipeline.engines.is_unloaded(card.name):
        return "unloaded"
    if pipeline.engines.is_refused(card.name, card.version):
        return "refused when it was to be loaded; see the service's log"
    return "not asked for yet"


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
        raise UnknownModelError(f"{quoted(reference)!r}: {quoted(error)}") from None
    return reference


def quoted(value: Any) -> str:
    """What a client has sent, or a list of it, short enough to be told back."""
    listed = sorted(value) if isinstance(value, Iterable) and not isinstance(value, str) else value
    return str(listed)[:_MOST_ECHOED]


def inputs_of(card: ModelCard) -> list[str]:
    """What a model can be sent: an image as a file or as pixels, or the numbers its card names."""
    if not card.takes_image:
        return [card.inputs[0].name]
    return [FILE, PIXELS, STRENGTH] if card.takes_strength else [FILE, PIXELS]


def outputs_of(card: ModelCard) -> list[str]:
    """What a model can be asked for."""
    return [CLEAN_FILE, CLEAN_PIXELS] if card.gives_image else [card.outputs[0].name]


def _shape(name: str, card: ModelCard) -> list[int]:
    tensors = {tensor.name: tensor for tensor in (*card.inputs, *card.outputs)}
    sides = tensors[name].shape if name in tensors else ("N",)
    return [side if isinstance(side, int) else -1 for side in sides]


def _described(name: str, card: ModelCard) -> Any:
    return pb.ModelMetadataResponse.TensorMetadata(
        name=name, datatype=DATATYPES[name], shape=_shape(name, card)
    )


def _statistics(card: ModelCard, seen: metrics.ModelTotals) -> Any:
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
