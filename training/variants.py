"""A published U-Net in another precision beside float32: measured, and published if it is worth it."""

import hashlib
import platform
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import numpy as np
import onnxruntime as ort
import torch

from model_store import CUDA, OPENVINO, ModelStore, Precision, StoredModel, Variant, model_file
from training.begin import published_network
from training.cases import STANDARD, Folder
from training.corruption import Photo
from training.errors import DataError, NotBetterError
from training.evaluate import evaluate
from training.export import publish
from training.half import to_half
from training.peers import Device, OnnxDenoiser
from training.provenance import ATTRIBUTION
from training.quantise import FINEST, NEXT, calibration, quantise

_Lower = Literal["int8", "bf16", "fp16"]
_FRAME = (360, 640)
_ROUNDS = 7


@dataclass(frozen=True)
class Bounds:
    """What a variant must keep: dB of mean PSNR on each corruption, and how many times as fast it is."""

    most_loss: float = 0.05
    least_speed: float = 1.15


@dataclass(frozen=True)
class HeldOut:
    """What to measure on, as `evaluate` takes it, and what is good enough."""

    folders: Sequence[Path]
    every: int = 1
    bounds: Bounds = Bounds()


def publish_int8(stored: StoredModel, into: ModelStore, photos: Path, held_out: HeldOut) -> StoredModel:
    """Publish the next version of a model: `stored`, and the same network in int8, but for its finest level.

    Where that loses too much, more of it stays in float32.

    Args:
        photos: photographs to calibrate on, such as those it was trained on.

    Raises:
        DataError: it is no U-Net, or has an int8 variant already, two folders have one name, or the store
            cannot be written.
        NotBetterError: it loses too much, or is not faster on this machine; nothing is published.
    """
    _refuse(stored, "int8", held_out)
    graph = stored.read_verified()
    for kept in (FINEST, FINEST + NEXT):
        quantised = quantise(graph, calibration(photos), kept)
        try:
            variant = _measure("int8", graph, quantised, held_out)
        except NotBetterError as error:
            refused = error
        else:
            return _publish(stored, into, variant, {model_file("int8"): quantised})
    raise refused


def publish_bf16(stored: StoredModel, into: ModelStore, held_out: HeldOut) -> StoredModel:
    """Publish the next version of a model: `stored`, and how it does in bf16, which OpenVINO makes of it.

    Raises:
        DataError: it is no U-Net, or has been measured already, this ONNX Runtime has no OpenVINO,
            two folders have one name, or the store cannot be written.
        NotBetterError: it loses too much, or is not faster on this machine; nothing is published.
    """
    _refuse(stored, "bf16", held_out)
    if OPENVINO not in ort.get_available_providers():
        raise DataError("bf16 runs on OpenVINO; install onnxruntime-openvino in place of onnxruntime")
    graph = stored.read_verified()
    return _publish(stored, into, _measure("bf16", graph, graph, held_out), {})


def publish_fp16(stored: StoredModel, into: ModelStore, held_out: HeldOut) -> StoredModel:
    """Publish the next version of a model: `stored`, and the same network in float16, measured with CUDA.

    Raises:
        DataError: it is no U-Net of today's kind, or has an fp16 variant already, there is no CUDA, two
            folders have one name, or the store cannot be written.
        NotBetterError: it loses too much, or is not faster on this GPU; nothing is published.
    """
    _refuse(stored, "fp16", held_out)
    if CUDA not in ort.get_available_providers():
        raise DataError("fp16 runs on CUDA; take a machine with a GPU, and onnxruntime-gpu for onnxruntime")
    _, network = published_network(stored)
    half = to_half(network)
    variant = _measure("fp16", stored.read_verified(), half, held_out)
    return _publish(stored, into, variant, {model_file("fp16"): half})


def _refuse(stored: StoredModel, precision: Precision, held_out: HeldOut) -> None:
    card = stored.card
    if card.hyperparameters.get("kind") != "unet" or precision in card.hashes:
        raise DataError(f"{card.label} is no U-Net without {precision}; name one that is")
    names = [folder.resolve().name for folder in held_out.folders]
    if twin := next((name for name in names if names.count(name) > 1), None):
        raise DataError(f"two folders are called {twin}, and losses go by names; rename one")


def _publish(stored: StoredModel, into: ModelStore, variant: Variant, files: dict[str, bytes]) -> StoredModel:
    """The next version, with all that `stored` has, and one variant more."""
    card = stored.card
    number = into.next_version(card.name)
    created = datetime.now(UTC).replace(microsecond=0)
    new = card.model_copy(
        update={"version": number, "variants": (*card.variants, variant), "created": created}
    )
    attribution = stored.folder / ATTRIBUTION
    if attribution.exists():
        files = {ATTRIBUTION: attribution.read_bytes(), **files}
    for each in card.variants:
        files = {model_file(each.precision): stored.read_verified(each.precision), **files}
    return publish(into, new, stored.read_verified(), files)


def _measure(precision: _Lower, graph: bytes, lower: bytes, held_out: HeldOut) -> Variant:
    """PSNR and speed in a precision beside float32, in one run on one device of this machine."""
    device: Device = "cuda" if precision == "fp16" else "cpu"
    plain = OnnxDenoiser.load("fp32", graph, 0, device=device)
    other = OnnxDenoiser.load(precision, lower, 0, precision, device)
    if precision == "bf16" and OPENVINO not in other.session.get_providers():
        raise DataError("OpenVINO cannot be loaded here; reinstall onnxruntime-openvino")
    if device == "cuda" and CUDA not in other.session.get_providers():
        raise DataError("CUDA does not load; it takes NVIDIA's driver, and quietframe[gpu]")
    folders = [Folder.read(folder, held_out.every) for folder in held_out.folders]
    rows = [row for folder in folders for row in evaluate(folder, [plain, other], [*STANDARD])]
    loss = {
        f"{row.dataset}, {row.corruption}": round(row.mean("fp32", "psnr") - row.mean(precision, "psnr"), 3)
        for row in rows
    }
    variant = Variant(
        precision=precision,
        sha256=hashlib.sha256(lower).hexdigest(),
        psnr_loss=loss,
        speed_ratio=round(_speed_ratio(plain, other), 2),
        measured_on=f"{_named(device)}, {_FRAME[1]}x{_FRAME[0]}, onnxruntime {ort.__version__}",
    )
    check_worth(variant, held_out.bounds)
    return variant


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


def _speed_ratio(plain: OnnxDenoiser, other: OnnxDenoiser) -> float:
    """Median over rounds, each of which runs both: what else this machine does slows both."""
    frame = np.random.default_rng(0).integers(0, 256, (*_FRAME, 3), np.uint8)
    ratios = [_seconds(plain, frame) / _seconds(other, frame) for _ in range(_ROUNDS)]
    return statistics.median(ratios[1:])


def _seconds(denoiser: OnnxDenoiser, frame: Photo) -> float:
    begun = time.perf_counter()
    denoiser(frame, None)
    return time.perf_counter() - begun


def _named(device: Device) -> str:
    if device == "cuda":
        return torch.cuda.get_device_name() if torch.cuda.is_available() else "a GPU with CUDA"
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text("utf-8").splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, all cores"
