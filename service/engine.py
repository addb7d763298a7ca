"""ONNX Runtime sessions: which provider, how many threads, warmed before the first request."""

import logging
import threading

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from model_store import ModelCard, ModelStore, StoredModel
from service.errors import StartError

Pixels = npt.NDArray[np.uint8]

log = logging.getLogger(__name__)


class Engine:
    """One loaded model version; `run` may be called from any thread and releases the GIL.

    Args:
        stored: the version; its hash is checked before anything is loaded.
        device: `cpu` or `cuda`.
        threads: cores one run may use on the CPU.

    Raises:
        CorruptModelError: the file is not the one its card describes.
        StartError: ONNX Runtime cannot load it, or not on this device.
    """

    def __init__(self, stored: StoredModel, device: str, threads: int) -> None:
        self.card: ModelCard = stored.card
        content = stored.read_verified()
        try:
            self._session = ort.InferenceSession(content, session_options(threads), _providers(device))
        except Exception as error:  # ONNX Runtime raises a class of its own for each status code
            raise StartError(f"{self.card.label} cannot be loaded on {device}: {error}") from None
        self.device = device
        if device == "cuda" and self._session.get_providers()[0] != "CUDAExecutionProvider":
            # ONNX Runtime goes on silently on the CPU when the CUDA libraries do not load.
            raise StartError("CUDA does not load; install quietframe[gpu] and a driver, or set device=cpu")

    def run(self, images: Pixels, strength: npt.NDArray[np.float32]) -> Pixels:
        """Denoise a batch of one shape.

        Args:
            images: uint8 `[N, H, W, C]`, C as the card's colour says.
            strength: float32 `[N]`, 0..1; ignored by models without that input.

        Returns:
            uint8 `[N, H * scale, W * scale, C]`.
        """
        feeds: dict[str, npt.NDArray[np.generic]] = {"image": images}
        if self.card.takes_strength:
            feeds["strength"] = strength
        result: Pixels = self._session.run(None, feeds)[0]
        return result

    def warm_up(self) -> None:
        """Run once, so that the first request does not pay for kernel and memory set-up."""
        channels = 3 if self.card.colour == "rgb" else 1
        self.run(np.zeros((1, 64, 64, channels), np.uint8), np.ones(1, np.float32))


class Engines:
    """The models of a store on one device, each loaded when it is first asked for.

    Args:
        device: `auto` takes CUDA where it is installed and works with `default`, else the CPU.
        default: reference of the model that is loaded at once.

    Raises:
        StoreError, StartError: the default model cannot be loaded.
    """

    def __init__(self, store: ModelStore, default: str, device: str, threads: int) -> None:
        self.store = store
        self.threads = threads
        self._loaded: dict[str, Engine] = {}
        self._loading = threading.Lock()
        self.device = _choose_device(device, store.resolve(default), threads)
        self.load(default)

    def get(self, reference: str) -> Engine | None:
        """The engine of `name` or `name:version` if it is loaded already."""
        return self._loaded.get(reference)

    def load(self, reference: str) -> Engine:
        """The engine of `name` or `name:version`; blocks while it is verified, loaded and warmed."""
        stored = self.store.resolve(reference)
        pinned = f"{stored.card.name}:{stored.card.version}"
        with self._loading:
            engine = self._loaded.get(pinned)
            if engine is None:
                engine = Engine(stored, self.device, self.threads)
                engine.warm_up()
                log.info("loaded %s on %s", stored.card.label, self.device)
            self._loaded[pinned] = self._loaded[reference] = engine
            return engine


def _choose_device(device: str, probe: StoredModel, threads: int) -> str:
    installed = "CUDAExecutionProvider" in ort.get_available_providers()
    if device == "cuda" and not installed:
        raise StartError("device=cuda, but this ONNX Runtime has no CUDA; install quietframe[gpu]")
    if device != "auto":
        return device
    if not installed:
        return "cpu"
    try:
        Engine(probe, "cuda", threads)
    except StartError as error:
        log.warning("%s; going on with the CPU", error)
        return "cpu"
    return "cuda"


def _providers(device: str) -> list[str | tuple[str, dict[str, str]]]:
    if device == "cpu":
        return ["CPUExecutionProvider"]
    ort.preload_dlls()
    # EXHAUSTIVE, the default, searches 0.6 s for each new shape.
    return [("CUDAExecutionProvider", {"cudnn_conv_algo_search": "HEURISTIC"}), "CPUExecutionProvider"]


def session_options(threads: int) -> ort.SessionOptions:
    """How every session of the service is configured."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.enable_mem_pattern = False  # a pattern is kept for each shape, and shapes are the users'
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options
