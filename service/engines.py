"""The models a worker has loaded, and how it comes to newer ones while it runs."""

import itertools
import logging
import re
import threading
from contextlib import suppress

import onnxruntime as ort

from model_store import (
    CUDA,
    CorruptModelError,
    ModelNotFoundError,
    ModelStore,
    StoredModel,
    StoreError,
    parse_reference,
)
from service import metrics
from service.engine import Engine
from service.errors import StartError
from service.precision import PrecisionChoice

log = logging.getLogger(__name__)
# ONNX Runtime tells a lack of memory in words alone: of C++, of its arena, of cuBLAS, of CUDA.
_LACK_OF_MEMORY = re.compile(r"bad_alloc|to allocate|alloc_failed|out of memory", re.IGNORECASE)


class Engines:
    """The models of a store on one device, each loaded when it is first asked for.

    `name` means the newest version that loads: one that does not is refused, logged and counted,
    and the version before it goes on. It is tried again when its files change, or at the next load
    where they cannot be blamed. `name:version` means that version. All methods may be called
    from any thread; `load` and `refresh` block while models are verified, loaded and warmed.

    Args:
        device: `auto` takes CUDA where it is installed and works with `default`, else the CPU.
        threads, lanes, precision: see `Engine`.
        default: reference of the model that is loaded at once, and stays.
        most: models in memory at once, versions of one included; the least recently used make room.

    Raises:
        StoreError, StartError: no version of the default model can be loaded.
    """

    def __init__(
        self,
        store: ModelStore,
        default: str,
        device: str,
        threads: int,
        lanes: int = 1,
        precision: PrecisionChoice = "auto",
        most: int = 4,
    ) -> None:
        self.store = store
        self.precision = precision
        self.threads = threads
        self.lanes = lanes
        self._default = default
        self._most = most
        self._uses = itertools.count()
        self._used: dict[str, int] = {}
        self._serving: dict[str, Engine] = {}  # by `name` and by `name:version`, as asked for
        self._refused: dict[str, tuple[int, ...]] = {}
        self._unloaded: set[str] = set()
        self._told: set[tuple[str, int, str, str]] = set()
        self._changing = threading.RLock()
        self.device = _choose_device(device, store, default, threads)
        self.load(default)

    def get(self, reference: str) -> Engine | None:
        """The engine of `name` or `name:version` if it is loaded already."""
        return self._serving.get(reference)

    def use(self, reference: str) -> Engine | None:
        """The same for an inference; what is merely asked about does not stay in memory for it."""
        engine = self.get(reference)
        if engine:
            self._used[reference] = next(self._uses)
        return engine

    def find(self, reference: str) -> StoredModel:
        """The version that `load` would take first, without loading it; the newest if it would take none.

        Raises:
            InvalidNameError, ModelNotFoundError: there is no such model, or it has been unloaded.
            CorruptModelError, ModelUnavailableError: its card is broken, or cannot be read just now.
        """
        name, version = parse_reference(reference)
        self._check_not_unloaded(name)
        if version is None:
            for each in reversed(self.store.versions(name)):
                if not self.is_refused(name, each):
                    return self.store.resolve(f"{name}:{each}")
        return self.store.resolve(reference)

    def is_unloaded(self, name: str) -> bool:
        """Whether `unload` has let go of it and it is refused since."""
        return name in self._unloaded

    def is_refused(self, name: str, version: int) -> bool:
        """Whether it did not load, and would not again as its files are the same; reads their dates."""
        refused = self._refused.get(f"{name}/{version}")
        with suppress(ModelNotFoundError):
            return refused is not None and refused == self._stamp(name, version)
        return False

    def loaded(self) -> list[Engine]:
        """Every engine in memory, each once."""
        return list(dict.fromkeys(list(self._serving.values())))

    def load(self, reference: str) -> Engine:
        """The engine of `name` or `name:version`.

        Raises:
            InvalidNameError, ModelNotFoundError: there is no such model, or it has been unloaded.
            CorruptModelError, ModelUnavailableError, StartError: it is there and cannot be loaded.
        """
        name, version = parse_reference(reference)
        with self._changing:
            self._check_not_unloaded(name)
            if engine := self.use(reference):
                return engine
            engine = self._newest(name) if version is None else self._pinned(name, version)
            self._serving[reference] = engine
            self.use(reference)
            self._make_room()
            self._tell()
            return engine

    def reload(self, name: str) -> None:
        """Load `name` if it is not, and its newest version if there is a newer one.

        Raises:
            StoreError, StartError: as `load`, and also when the newest version is refused while an
                older one goes on.
        """
        with self._changing:
            self._unloaded.discard(name)
            self._refused.clear()
            self.load(name)
            self._switch(name, self._made(name, self.store.resolve(name).card.version))

    def unload(self, name: str) -> None:
        """Let go of every version of `name` and refuse it until `reload`; what runs is finished.

        Raises:
            ModelNotFoundError: there is no such model.
            ModelUnavailableError: whether there is cannot be told just now.
        """
        with self._changing:
            if name not in self._serving and not self.store.versions(name):
                raise ModelNotFoundError(f"no model {name!r} in the store")
            self._unloaded.add(name)
            for reference in [each for each in self._serving if parse_reference(each)[0] == name]:
                del self._serving[reference]
            self._tell()

    def refresh(self) -> None:
        """Look for newer versions of the models asked for by bare name, and switch to those that load."""
        with self._changing:
            for reference in [each for each in self._serving if ":" not in each]:
                try:
                    self._switch(reference, self._newest(reference))
                except (StoreError, StartError) as error:  # as when the folder has gone
                    log.warning("%s goes on unchanged: %s", reference, error)

    def _check_not_unloaded(self, name: str) -> None:
        if self.is_unloaded(name):
            raise ModelNotFoundError(f"model {name!r} has been unloaded")

    def _make_room(self) -> None:
        """Clients choose models, so they must not choose how many are in memory."""
        others = [reference for reference in self._serving if reference != self._default]
        for reference in sorted(others, key=self._used.__getitem__):
            if len(self.loaded()) <= self._most:
                return
            log.info("%s makes room for what is asked for now", reference)
            del self._serving[reference]

    def _switch(self, name: str, engine: Engine) -> None:
        if engine is not self._serving.get(name):
            self._serving[name] = engine
            log.info("%s is now version %d", name, engine.card.version)
            self._make_room()
            self._tell()

    def _pinned(self, name: str, version: int) -> Engine:
        if version not in self.store.versions(name):
            self.store.resolve(f"{name}:{version}")  # says what there is
        return self._made(name, version)

    def _newest(self, name: str) -> Engine:
        """The newest version that loads."""
        trouble: StoreError | StartError | None = None
        for version in reversed(self.store.versions(name)):
            try:
                return self._made(name, version)
            except (StoreError, StartError) as error:
                trouble = trouble or error
        if trouble:
            raise trouble
        self.store.resolve(name)  # says that there is none
        raise ModelNotFoundError(f"model {name!r} has gone")

    def _made(self, name: str, version: int) -> Engine:
        """Load and warm one version, unless it is loaded; one refused is not tried again unchanged."""
        label = f"{name}/{version}"
        for engine in self._serving.values():
            if engine.card.label == label:
                return engine
        stamp = self._stamp(name, version)
        if self._refused.get(label) == stamp:
            raise StartError(f"{label} was refused before and has not changed; see the log")
        try:
            engine = self._warm(self.store.resolve(f"{name}:{version}"))
        except (StoreError, StartError) as error:
            if _is_lasting(error):
                self._refused[label] = stamp
            metrics.MODEL_REFUSALS.labels(name).inc()
            log.error("%s is refused: %s", label, error)
            raise
        log.info("loaded %s on %s, %s", label, self.device, engine.precision)
        return engine

    def _warm(self, stored: StoredModel) -> Engine:
        engine = Engine(stored, self.device, self.threads, self.lanes, self.precision)
        try:
            engine.warm_up()
        except Exception as error:  # ONNX Runtime raises a class of its own for each status code
            raise StartError(f"{stored.card.label} does not run: {error}") from None
        return engine

    def _stamp(self, name: str, version: int) -> tuple[int, ...]:
        """Changes when a file of the version does; empty where that cannot be told just now."""
        folder = self.store.root / name / str(version)
        try:
            states = [file.stat() for file in [folder, *sorted(folder.rglob("*"))]]
        except FileNotFoundError:
            raise ModelNotFoundError(f"{name}/{version} has gone") from None
        except OSError:
            return ()
        return tuple(
            number for state in states for number in (state.st_ino, state.st_size, state.st_mtime_ns)
        )

    def _tell(self) -> None:
        now = {
            (engine.card.name, engine.card.version, engine.device, engine.precision)
            for engine in self.loaded()
        }
        for labels in self._told - now:
            metrics.MODEL_LOADED.labels(*labels).set(0)
        for labels in now:
            metrics.MODEL_LOADED.labels(*labels).set(1)
        self._told |= now


def _is_lasting(error: StoreError | StartError) -> bool:
    """Whether it lies in the files, so that the same ones would fail again."""
    if isinstance(error, StartError):
        return not _LACK_OF_MEMORY.search(str(error))
    return isinstance(error, CorruptModelError)


def _choose_device(device: str, store: ModelStore, default: str, threads: int) -> str:
    installed = CUDA in ort.get_available_providers()
    if device == "cuda" and not installed:
        raise StartError("device=cuda, but this ONNX Runtime has no CUDA; install quietframe[gpu]")
    if device != "auto":
        return device
    if not installed:
        return "cpu"
    name, version = parse_reference(default)
    for each in [version] if version else reversed(store.versions(name)):
        try:
            Engine(store.resolve(f"{name}:{each}"), "cuda", threads)
        except (StoreError, StartError) as error:  # of the model or of CUDA: the next version tells
            log.warning("%s", error)
        else:
            return "cuda"
    log.warning("CUDA cannot be used; going on with the CPU")
    return "cpu"
