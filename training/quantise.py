"""A published U-Net in int8 beside float32, for CPUs that multiply bytes: quantised, measured, published.

Post-training static quantisation (Jacob et al. 2018; Nagel et al. 2021, section 3): weights in int8 by
channel, activations in uint8 by tensor, their ranges calibrated on photographs with every corruption that
`evaluate` knows. What works at the finest level of the network, or reads it, stays in float32: it carries
the image itself, so rounding there costs several times as much PSNR as everywhere else.
"""

import hashlib
import platform
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.quant_utils import add_pre_process_metadata

from model_store import ModelStore, StoredModel, Variant, model_file
from training.cases import STANDARD, Folder
from training.corruption import Photo
from training.data import image_files, read_rgb
from training.errors import DataError, NotBetterError
from training.evaluate import evaluate
from training.export import ATTRIBUTION, publish
from training.graph import weight_name
from training.peers import OnnxDenoiser

FINEST = ("head.", "tail.", "encoder.0.", "decoder.0.", "down.0.")
_TURNS, _SIDE = 3, 192  # patches of each corruption, pixels
_FRAME = (360, 640)
_ROUNDS = 7


@dataclass(frozen=True)
class Bounds:
    """What a variant must keep: dB of mean PSNR on each corruption, and how many times as fast it is."""

    most_loss: float = 0.05
    least_speed: float = 1.15


BOUNDS = Bounds()


def publish_int8(
    stored: StoredModel,
    into: ModelStore,
    photos: Path,
    folders: Sequence[Path],
    every: int = 1,
    bounds: Bounds = BOUNDS,
) -> StoredModel:
    """Publish the next version of a model: the graph of `stored`, and the same in int8.

    Args:
        photos: photographs to calibrate on, such as those it was trained on.
        folders, every: what to measure on, as `evaluate` takes them.

    Raises:
        DataError: it is no U-Net, or has an int8 variant already, or the store cannot be written.
        NotBetterError: it loses too much, or is not faster on this machine; nothing is published.
    """
    card = stored.card
    if card.hyperparameters.get("kind") != "unet" or card.variants:
        raise DataError(f"{card.label} cannot be quantised; name a U-Net that has float32 only")
    graph = stored.read_verified()
    quantised = quantise(graph, calibration(photos))
    variant = measure(graph, quantised, folders, every)
    check_worth(variant, bounds)
    number = into.next_version(card.name)
    created = datetime.now(UTC).replace(microsecond=0)
    new = card.model_copy(update={"version": number, "variants": (variant,), "created": created})
    attribution = stored.folder / ATTRIBUTION
    attachments = {ATTRIBUTION: attribution.read_bytes()} if attribution.exists() else {}
    return publish(into, new, graph, {**attachments, model_file("int8"): quantised})


def calibration(photos: Path) -> Iterator[dict[str, Any]]:
    """Feeds of the graph: every corruption on patches of photographs that are spread over the folder.

    Each corruption has its own extremes: calibrated without impulses, impulses cost several dB.
    """
    files = image_files(photos)
    cases = [*STANDARD.values()] * _TURNS
    for seed, case in enumerate(cases):
        path = files[seed * len(files) // len(cases)]
        noisy = case.pair(path.name, _middle(read_rgb(path)), seed).noisy
        image = np.repeat(noisy, 3, axis=2) if noisy.shape[2] == 1 else noisy
        yield {"image": image[None], "strength": np.ones(1, np.float32)}


def quantise(graph: bytes, feeds: Iterator[dict[str, Any]]) -> bytes:
    """The graph with quantised convolutions: QuantizeLinear and DequantizeLinear around each (QDQ)."""
    model = onnx.load_model_from_string(graph)
    for number, node in enumerate(model.graph.node):
        node.name = node.name or f"shell/{number}"  # what has no name cannot be left out
    add_pre_process_metadata(model)  # its warnings ask for folding, which the exporter has done
    chosen = [
        node.name
        for node in model.graph.node
        if node.op_type == "Conv" and not weight_name(node.input[1]).startswith(FINEST)
    ]
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "quantised.onnx"
        quantize_static(
            model,
            result,
            _Feeds(feeds),
            quant_format=QuantFormat.QDQ,
            nodes_to_quantize=chosen,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,  # percentiles clip what impulses need
        )
        return result.read_bytes()


def measure(graph: bytes, quantised: bytes, folders: Sequence[Path], every: int) -> Variant:
    """PSNR and speed of a quantised graph beside float32, in one run on this machine."""
    both = [OnnxDenoiser.load(name, each, 0) for name, each in (("fp32", graph), ("int8", quantised))]
    rows = [row for folder in folders for row in evaluate(Folder.read(folder, every), both, [*STANDARD])]
    loss = {
        f"{row.dataset}, {row.corruption}": round(row.mean("fp32", "psnr") - row.mean("int8", "psnr"), 3)
        for row in rows
    }
    return Variant(
        precision="int8",
        sha256=hashlib.sha256(quantised).hexdigest(),
        psnr_loss=loss,
        speed_ratio=round(_speed_ratio(*both), 2),
        measured_on=f"{_cpu()}, all cores, {_FRAME[1]}x{_FRAME[0]}, onnxruntime {ort.__version__}",
    )


def check_worth(variant: Variant, bounds: Bounds) -> None:
    """Raises NotBetterError where a variant is not within the bounds."""
    worst = max(variant.psnr_loss, key=lambda name: variant.psnr_loss[name])
    loss, speed = variant.psnr_loss[worst], variant.speed_ratio
    if loss > bounds.most_loss or speed < bounds.least_speed:
        raise NotBetterError(
            f"in {variant.precision} it loses {loss:.3f} dB ({worst}) and is {speed:.2f} times as fast;"
            f" at most {bounds.most_loss:g} dB and at least {bounds.least_speed:g} times are wanted;"
            " nothing is published"
        )


@dataclass
class _Feeds:
    """What onnxruntime calls a CalibrationDataReader."""

    feeds: Iterator[dict[str, Any]]

    def get_next(self) -> dict[str, Any] | None:
        return next(self.feeds, None)


def _middle(photo: Photo) -> Photo:
    top, left = (max(0, side - _SIDE) // 2 for side in photo.shape[:2])
    return photo[top : top + _SIDE, left : left + _SIDE]


def _speed_ratio(plain: OnnxDenoiser, other: OnnxDenoiser) -> float:
    """Median over rounds, each of which runs both: what else this machine does slows both."""
    frame = np.random.default_rng(0).integers(0, 256, (*_FRAME, 3), np.uint8)
    ratios = [_seconds(plain, frame) / _seconds(other, frame) for _ in range(_ROUNDS)]
    return statistics.median(ratios[1:])


def _seconds(denoiser: OnnxDenoiser, frame: Photo) -> float:
    begun = time.perf_counter()
    denoiser(frame, None)
    return time.perf_counter() - begun


def _cpu() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text("utf-8").splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
