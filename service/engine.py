"""One model version in ONNX Runtime: which provider, how many threads, warm before its first request."""

from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from model_store import (
    CUDA,
    CUDA_PROVIDERS,
    OPENVINO,
    ModelCard,
    Precision,
    Provider,
    StoredModel,
    cpu_providers,
)
from service.errors import StartError
from service.precision import PrecisionChoice, choose_precision

Samples = npt.NDArray[Any]  # uint8 pixels, or float32 numbers of a code or of points


class Engine:
    """One loaded model version; `run` may be called from any thread and releases the GIL.

    Args:
        stored: the version; its hash is checked before anything is loaded.
        device: `cpu` or `cuda`.
        threads: cores of the CPU for all runs together.
        lanes: how many runs there may be at once, each with its share of the cores.
        precision: which of the version's files; see `choose_precision`.

    Raises:
        CorruptModelError: the file is not the one its card describes.
        StartError: ONNX Runtime cannot load it, or not on this device.
    """

    def __init__(
        self,
        stored: StoredModel,
        device: str,
        threads: int,
        lanes: int = 1,
        precision: PrecisionChoice = "auto",
    ) -> None:
        self.card: ModelCard = stored.card
        self.device = device
        self.precision = choose_precision(stored.card, device, precision)
        content = stored.read_verified(self.precision)
        self._wide = self._session(content, threads)
        # On a GPU the cores hardly matter, and a second session would be a second copy of the weights.
        several = lanes > 1 and device == "cpu"
        share = max(1, threads // lanes)
        self._narrow = [self._session(content, share) if several else self._wide for _ in range(lanes)]

    def _session(self, content: bytes, threads: int) -> ort.InferenceSession:
        try:
            providers = _providers(self.device, self.precision, threads)
            session = ort.InferenceSession(content, session_options(threads), providers)
        except Exception as error:  # ONNX Runtime raises a class of its own for each status code
            raise StartError(f"{self.card.label} cannot be loaded on {self.device}: {error}") from None
        if self.device == "cuda" and session.get_providers()[0] != CUDA:
            # ONNX Runtime goes on silently on the CPU when the CUDA libraries do not load.
            raise StartError("CUDA does not load; install quietframe[gpu] and a driver, or set device=cpu")
        if self.precision == "bf16" and session.get_providers()[0] != OPENVINO:
            raise StartError("OpenVINO does not load, which bf16 needs; set precision=int8 or fp32")
        return session

    def run(self, samples: Samples, strength: npt.NDArray[np.float32], lane: int | None = None) -> Samples:
        """Denoise, encode or decode a batch of one shape.

        Args:
            samples: as the card's first input says: uint8 `[N, H, W, C]` or float32 `[N, k]`.
            strength: float32 `[N]`, 0..1; ignored by models without that input.
            lane: run with the cores of that lane, beside the other lanes; None takes all cores.

        Returns:
            As the card's output says: uint8 `[N, H * scale, W * scale, C]` or float32 `[N, k]`.
        """
        feeds: dict[str, npt.NDArray[np.generic]] = {self.card.inputs[0].name: samples}
        if self.card.takes_strength:
            feeds["strength"] = strength
        session = self._wide if lane is None else self._narrow[lane]
        result: Samples = session.run(None, feeds)[0]
        return result

    def warm_up(self) -> None:
        """Run once, so that the first request does not pay for kernel and memory set-up."""
        first = self.card.inputs[0]
        sample = np.zeros(
            [1, *(side if isinstance(side, int) else 64 for side in first.shape[1:])], first.dtype
        )
        for lane in (None, *range(len(self._narrow))):
            self.run(sample, np.ones(1, np.float32), lane)


def _providers(device: str, precision: Precision, threads: int) -> list[Provider]:
    if device == "cpu":
        return cpu_providers(precision, threads)
    ort.preload_dlls()
    return CUDA_PROVIDERS


def session_options(threads: int) -> ort.SessionOptions:
    """How every session of the service is configured."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.enable_mem_pattern = False  # a pattern is kept for each shape, and shapes are the users'
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options
