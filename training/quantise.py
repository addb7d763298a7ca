"""A published U-Net in int8, for CPUs that multiply bytes.

Post-training static quantisation (Jacob et al. 2018; Nagel et al. 2021, section 3): weights in int8 by
channel, activations in uint8 by tensor, their ranges calibrated on photographs with every corruption that
`evaluate` knows. What works at the finest level of the network, or reads it, stays in float32: it carries
the image itself, so rounding there costs several times as much PSNR as everywhere else.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.quant_utils import add_pre_process_metadata

from training.cases import STANDARD
from training.corruption import Photo
from training.data import image_files, read_rgb
from training.errors import DataError
from training.graph import weight_name

FINEST = ("head.", "tail.", "encoder.0.", "decoder.0.", "down.0.")
NEXT = ("encoder.1.", "decoder.1.")  # what loses most of the rest
_TURNS, _SIDE = 3, 192  # patches of each corruption, pixels


def calibration(photos: Path) -> Iterator[dict[str, Any]]:
    """Feeds of the graph: every corruption on patches of photographs that are spread over the folder.

    Each corruption has its own extremes: calibrated without impulses, impulses cost several dB.
    """
    files = image_files(photos)
    cases = [*STANDARD.values()] * _TURNS
    for seed, case in enumerate(cases):
        first = seed * len(files) // len(cases)
        name, clean = _first_readable([*files[first:], *files[:first]])
        noisy = case.pair(name, _middle(clean), seed).noisy
        image = np.repeat(noisy, 3, axis=2) if noisy.shape[2] == 1 else noisy
        yield {"image": image[None], "strength": np.ones(1, np.float32)}


def _first_readable(files: list[Path]) -> tuple[str, Photo]:
    """As in training, where what cannot be read is skipped."""
    trouble: DataError | None = None
    for path in files:
        try:
            return path.name, read_rgb(path)
        except DataError as error:
            trouble = error
    assert trouble is not None
    raise trouble


def quantise(graph: bytes, feeds: Iterator[dict[str, Any]], kept: tuple[str, ...] = FINEST) -> bytes:
    """The graph with quantised convolutions: QuantizeLinear and DequantizeLinear around each (QDQ).

    Args:
        kept: how the names of weights begin whose convolutions stay in float32.

    Raises:
        DataError: there are no others.
    """
    model = onnx.load_model_from_string(graph)
    for number, node in enumerate(model.graph.node):
        node.name = node.name or f"shell/{number}"  # what has no name cannot be left out
    add_pre_process_metadata(model)  # its warnings ask for folding, which the exporter has done
    chosen = [
        node.name
        for node in model.graph.node
        if node.op_type == "Conv"
        and (name := weight_name(node.input[1]))  # of the network, not those of `blocked`
        and not name.startswith(kept)
    ]
    if not chosen:  # which to ONNX Runtime means all of them
        raise DataError("all of its convolutions work at the finest level, which stays in float32")
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


@dataclass
class _Feeds:
    """What onnxruntime calls a CalibrationDataReader."""

    feeds: Iterator[dict[str, Any]]

    def get_next(self) -> dict[str, Any] | None:
        return next(self.feeds, None)


def _middle(photo: Photo) -> Photo:
    top, left = (max(0, side - _SIDE) // 2 for side in photo.shape[:2])
    return photo[top : top + _SIDE, left : left + _SIDE]
