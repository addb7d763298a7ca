"""New versions while running: the good ones are taken, the broken ones are passed over."""

import shutil
from pathlib import Path

import pytest

from model_store import (
    CorruptModelError,
    ModelNotFoundError,
    ModelStore,
    StoredModel,
    StoreError,
    default_root,
)
from service.engine import Engine
from service.engines import Engines
from service.errors import StartError
from tests.model_store.closed import closed

NAME = "frames-balanced"


@pytest.fixture
def store(tmp_path: Path, shipped: StoredModel) -> ModelStore:
    store = ModelStore(tmp_path)
    publish(store, shipped)
    return store


def publish(store: ModelStore, shipped: StoredModel) -> int:
    version = store.next_version(NAME)
    card = shipped.card.model_copy(update={"version": version, "variants": ()})
    store.publish(card, shipped.read_verified(), {})
    return version


def flip_a_byte(store: ModelStore, version: int) -> None:
    file = store.root / NAME / str(version) / "model.onnx"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def serving(engines: Engines) -> int:
    engine = engines.get(NAME)
    assert engine
    return engine.card.version


def test_a_new_version_is_taken_and_a_broken_one_is_not(store: ModelStore, shipped: StoredModel) -> None:
    engines = Engines(store, NAME, "cpu", 1)
    assert serving(engines) == 1
    publish(store, shipped)
    engines.refresh()
    assert serving(engines) == 2
    assert [engine.card.version for engine in engines.loaded()] == [2]
    flip_a_byte(store, publish(store, shipped))
    engines.refresh()
    engines.refresh()
    assert serving(engines) == 2
    half = store.root / NAME / "4"
    half.mkdir()
    (half / "card.json").write_text("{}")
    (half / "model.onnx").write_bytes(b"")
    engines.refresh()
    assert serving(engines) == 2
    with pytest.raises(CorruptModelError):
        engines.reload(NAME)
    assert serving(engines) == 2


def test_a_broken_file_that_is_mended_is_taken(store: ModelStore, shipped: StoredModel) -> None:
    broken = publish(store, shipped)
    flip_a_byte(store, broken)
    engines = Engines(store, NAME, "cpu", 1)
    assert serving(engines) == 1
    shutil.copy(shipped.model_file, store.root / NAME / str(broken) / "model.onnx")
    engines.refresh()
    assert serving(engines) == broken


@pytest.mark.parametrize("path", ["3", "3/card.json", "3/model.onnx"])
def test_what_may_not_be_read_is_taken_once_it_may(
    shipped: StoredModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """Permissions change neither size nor time of a file, so it looks as it did when it failed."""
    monkeypatch.chdir(tmp_path)
    tmp_path.chmod(0o755)
    store = ModelStore(Path())
    publish(store, shipped)
    engines = Engines(store, NAME, "cpu", 1)
    publish(store, shipped)
    broken = publish(store, shipped)
    with closed(store.root / NAME / path):
        engines.refresh()
        assert serving(engines) == 2
        for _ in range(2):
            with pytest.raises(StoreError):
                engines.load(f"{NAME}:{broken}")
    engines.refresh()
    assert serving(engines) == broken


def test_a_lack_of_memory_passes(
    store: ModelStore, shipped: StoredModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    engines = Engines(store, NAME, "cpu", 1)
    version = publish(store, shipped)

    def fail(_: object) -> None:
        raise MemoryError("std::bad_alloc")  # as ONNX Runtime says it

    for owner, method in ((Path, "read_bytes"), (Engine, "warm_up")):
        with monkeypatch.context() as patch:
            patch.setattr(owner, method, fail)
            engines.refresh()
            assert serving(engines) == 1
    engines.refresh()
    assert serving(engines) == version


def test_nothing_sound_to_begin_with(store: ModelStore) -> None:
    flip_a_byte(store, 1)
    with pytest.raises(CorruptModelError):
        Engines(store, NAME, "cpu", 1)


def test_a_pinned_version_stays(store: ModelStore, shipped: StoredModel) -> None:
    engines = Engines(store, NAME, "cpu", 1)
    pinned = engines.load(f"{NAME}:1")
    publish(store, shipped)
    engines.refresh()
    assert engines.get(f"{NAME}:1") is pinned
    assert sorted(engine.card.version for engine in engines.loaded()) == [1, 2]


def test_models_come_and_go_by_their_use_but_the_default_stays() -> None:
    shipped = ModelStore(default_root())
    default, first, second, third = "mnist-linear", "mnist-dense", "fashion-sr2", "mnist-conv:1"
    engines = Engines(shipped, default, "cpu", 1, most=3)
    begun = engines.get(default)
    for reference in (first, second, "mnist-dense:1"):  # the last is the first under another name
        engines.load(reference)
    assert len(engines.loaded()) == 3
    assert engines.use(second)
    assert engines.get(first), "asked about, and not used"
    for other in (third, second, third):
        engines.load(other)
        assert len(engines.loaded()) == 3
    assert engines.get(default) is begun
    assert engines.get(second)
    assert engines.get(first) is None
    assert engines.load(first).card.name == first


def test_newer_versions_stay_within_the_bound(store: ModelStore, shipped: StoredModel) -> None:
    engines = Engines(store, f"{NAME}:1", "cpu", 1, most=2)
    engines.load(NAME)
    for _ in range(3):
        publish(store, shipped)
        engines.load(f"{NAME}:{store.versions(NAME)[-2]}")
        engines.refresh()
        assert len(engines.loaded()) <= 2


def test_unloaded_is_gone_until_loaded_again(store: ModelStore) -> None:
    engines = Engines(store, NAME, "cpu", 1)
    engines.unload(NAME)
    with pytest.raises(ModelNotFoundError, match="unloaded"):
        engines.load(NAME)
    engines.reload(NAME)
    assert serving(engines) == 1


def test_a_store_that_vanishes_changes_nothing(store: ModelStore) -> None:
    engines = Engines(store, NAME, "cpu", 1)
    shutil.rmtree(store.root)
    engines.refresh()
    assert serving(engines) == 1
    with pytest.raises((ModelNotFoundError, StartError)):
        engines.load(f"{NAME}:7")
