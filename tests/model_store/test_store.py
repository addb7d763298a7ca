import hashlib
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_store import (
    CorruptModelError,
    InvalidNameError,
    ModelCard,
    ModelNotFoundError,
    ModelStore,
    ModelUnavailableError,
    Tensor,
    TrainingData,
    VersionExistsError,
    default_root,
)
from model_store.store import parse_reference
from tests.model_store.closed import closed


def card(content: bytes, name: str = "little", version: int = 1) -> ModelCard:
    image = Tensor(name="image", dtype="uint8", shape=("N", "H", "W", 3))
    return ModelCard(
        name=name,
        version=version,
        summary="for tests",
        task="denoise",
        sha256=hashlib.sha256(content).hexdigest(),
        architecture="none",
        hyperparameters={},
        parameters=1,
        macs_per_pixel=0,
        inputs=(image,),
        outputs=(image.model_copy(update={"name": "denoised"}),),
        colour="rgb",
        alignment=8,
        tile_overlap=0,
        corruption=(),
        training_data=(TrainingData(name="none", licence="CC0-1.0", images=1),),
        training={},
        seed=0,
        git_commit="none",
        libraries={},
        metrics=(),
        limits=(),
        created=datetime(2026, 1, 1, tzinfo=UTC),
    )


def test_newest_version_unless_one_is_named(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    for version in (1, 2, 10):
        store.publish(card(b"onnx", version=version), b"onnx", {})
    assert store.resolve("little").card.version == 10
    assert store.resolve("little:2").card.version == 2
    assert store.next_version("little") == 11
    assert [each.card.version for each in store] == [1, 2, 10]


def test_a_published_version_never_changes(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    store.publish(card(b"first"), b"first", {})
    with pytest.raises(VersionExistsError):
        store.publish(card(b"second"), b"second", {})
    assert store.resolve("little").read_verified() == b"first"


def test_a_publish_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    with pytest.raises(OSError, match="No such file"):
        store.publish(card(b"onnx"), b"onnx", {"no-such-folder/file": b""})
    assert store.names() == []
    assert list((tmp_path / "little").iterdir()) == []


def test_a_draft_is_no_version(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    store.publish(card(b"onnx"), b"onnx", {})
    (tmp_path / "little" / ".draft-2").mkdir()
    assert store.versions("little") == [1]


def test_bytes_that_do_not_match_the_card_are_refused(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    with pytest.raises(CorruptModelError, match="another sha256"):
        store.publish(card(b"onnx"), b"other", {})
    stored = store.publish(card(b"onnx"), b"onnx", {})
    stored.model_file.write_bytes(b"onny")
    with pytest.raises(CorruptModelError, match="sha256"):
        store.resolve("little").read_verified()


@pytest.mark.parametrize("missing", ["card.json", "model.onnx"])
def test_half_a_version_is_none(tmp_path: Path, missing: str) -> None:
    store = ModelStore(tmp_path)
    store.publish(card(b"onnx"), b"onnx", {})
    half = store.publish(card(b"onnx", version=2), b"onnx", {})
    (half.folder / missing).unlink()
    assert store.resolve("little").card.version == 1
    assert store.publish(card(b"onnx", version=store.next_version("little")), b"onnx", {}).card.version == 3


def test_a_broken_card_is_named(tmp_path: Path) -> None:
    stored = ModelStore(tmp_path).publish(card(b"onnx"), b"onnx", {})
    (stored.folder / "card.json").write_text('{"name": "little"}')
    with pytest.raises(CorruptModelError, match=r"card\.json"):
        ModelStore(tmp_path).resolve("little")


def test_a_broken_version_does_not_hide_the_others(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    for version in (1, 2):
        store.publish(card(b"onnx", version=version), b"onnx", {})
    (tmp_path / "little" / "1" / "card.json").write_text("{}")
    assert [each.version for each in store.readable_cards()] == [2]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelStore:
    """Two versions of `little` and one of `other`, in the working folder."""
    monkeypatch.chdir(tmp_path)
    tmp_path.chmod(0o755)
    store = ModelStore(Path())
    for name, version in (("little", 1), ("little", 2), ("other", 1)):
        store.publish(card(b"onnx", name, version), b"onnx", {})
    return store


@pytest.mark.parametrize("path", ["little/2", "little/2/card.json"])
def test_a_version_that_may_not_be_read_does_not_hide_the_others(
    here: ModelStore, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    with closed(Path(path)):
        assert here.names() == ["little", "other"]
        assert [each.label for each in here.readable_cards()] == ["little/1", "other/1"]
        here.readable_cards()
    assert caplog.text.count("Permission denied") == 1
    assert [each.label for each in here.readable_cards()] == ["little/1", "little/2", "other/1"]


def test_a_model_that_may_not_be_read_does_not_hide_the_others(here: ModelStore) -> None:
    with closed(Path("little")):
        assert [each.label for each in here.readable_cards()] == ["other/1"]
        with pytest.raises(ModelUnavailableError, match="little cannot be read: Permission denied"):
            here.resolve("little")


@pytest.mark.parametrize("file", ["card.json", "model.onnx"])
def test_what_may_not_be_read_is_not_called_corrupt(here: ModelStore, file: str) -> None:
    path = Path("little/2") / file
    with closed(path), pytest.raises(ModelUnavailableError, match="Permission denied"):
        here.resolve("little").read_verified()
    path.unlink()
    with pytest.raises(CorruptModelError, match="No such file"):
        here._read("little", 2).read_verified()


def test_a_version_moved_to_another_name_is_refused(tmp_path: Path) -> None:
    ModelStore(tmp_path).publish(card(b"onnx"), b"onnx", {})
    (tmp_path / "little").rename(tmp_path / "other")
    with pytest.raises(CorruptModelError, match="little/1, not other/1"):
        ModelStore(tmp_path).resolve("other")


def test_what_is_missing_is_said_with_what_there_is(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    store.publish(card(b"onnx"), b"onnx", {})
    with pytest.raises(ModelNotFoundError, match="there is: little"):
        store.resolve("big")
    with pytest.raises(ModelNotFoundError, match="there is: 1"):
        store.resolve("little:2")
    with pytest.raises(ModelNotFoundError, match="none"):
        ModelStore(tmp_path / "absent").resolve("little")


@given(st.text() | st.from_regex(r"[./\\a-z0-9:_-]*", fullmatch=True))
def test_no_reference_leaves_the_store(reference: str) -> None:
    try:
        name, version = parse_reference(reference)
    except InvalidNameError:
        return
    assert Path(name).name == name
    assert name not in (".", "..")
    assert version is None or version > 0


@pytest.mark.parametrize(
    "reference", ["", "..", "../x", "a/b", "A", ".a", "a:", "a:0", "a:-1", "a:1:2", "a:٣"]
)
def test_these_are_no_references(reference: str) -> None:
    with pytest.raises(InvalidNameError):
        ModelStore(default_root()).resolve(reference)


def test_everything_that_ships_is_whole() -> None:
    shipped = list(ModelStore(default_root()))
    budgets = {"frames-fast": 10_000, "frames-high": 125_000}
    assert "frames-balanced" in {stored.card.name for stored in shipped}
    for stored in shipped:
        stored.read_verified()
        assert stored.card.metrics or stored.card.figures
        assert stored.card.training_data[0].licence
        assert stored.card.macs_per_pixel <= budgets.get(stored.card.name, 32_000)
        if "photographs" in stored.card.training_data[0].name:
            assert (stored.folder / "ATTRIBUTION.csv").is_file()
