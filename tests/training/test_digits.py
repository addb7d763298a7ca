"""IDX files: from a folder, from a mirror on a real port, and what is said when they are not whole."""

import functools
import gzip
import hashlib
import http.server
import struct
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner

from tests.conftest import SHARED
from training import digits
from training.cli import main
from training.digits import TEST_IMAGES, TEST_LABELS, TRAIN_IMAGES, TRAIN_LABELS
from training.errors import DataError


def idx(values: npt.NDArray[np.uint8]) -> bytes:
    head = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
    return gzip.compress(head + values.tobytes())


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a small MNIST, whose checksums are what is expected."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "published" / "mnist"
    folder.mkdir(parents=True)
    for images, labels, count in ((TRAIN_IMAGES, TRAIN_LABELS, 50), (TEST_IMAGES, TEST_LABELS, 20)):
        (folder / images).write_bytes(idx(rng.integers(0, 256, (count, 28, 28), np.uint8)))
        (folder / labels).write_bytes(idx(rng.integers(0, 10, count, np.uint8)))
    sums = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()}
    monkeypatch.setitem(digits.SOURCES, "mnist", replace(digits.SOURCES["mnist"], sha256=sums))
    monkeypatch.delenv(digits.DATA_DIR, raising=False)
    return folder.parent


@pytest.fixture
def mirror(published: Path) -> Iterator[str]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None: ...

    handler = functools.partial(Quiet, directory=str(published / "mnist"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def test_images_and_labels_are_read_and_padded(published: Path) -> None:
    plain, padded = (digits.load("mnist", "train", side, published) for side in (28, 32))
    assert plain.images.shape == (50, 28, 28, 1)
    assert padded.images.shape == (50, 32, 32, 1)
    assert np.array_equal(padded.images[:, 2:-2, 2:-2], plain.images)
    assert padded.images.sum(dtype=int) == plain.images.sum(dtype=int)
    assert plain.labels.shape == (50,)
    assert digits.load("mnist", "test", 28, published).images.shape == (20, 28, 28, 1)


@pytest.mark.parametrize("damage", ["cut", "flipped", "missing"])
def test_a_file_that_is_not_whole_is_named_with_its_checksum(published: Path, damage: str) -> None:
    file = published / "mnist" / TRAIN_LABELS
    content = file.read_bytes()
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(content[:-5] if damage == "cut" else content[:-5] + b"?" + content[-4:])
    expected = digits.SOURCES["mnist"].sha256[TRAIN_LABELS]
    with pytest.raises(DataError, match=f"{TRAIN_LABELS} is (corrupt|missing).*{expected}.*data fetch"):
        digits.load("mnist", "train", 28, published)
    shown = CliRunner().invoke(main, ["data", "show", "--data-dir", str(published)])
    state = "missing" if damage == "missing" else "corrupt"
    assert any(f"  {state}" in line and str(file) in line for line in shown.output.splitlines())


def test_what_is_no_idx_file_is_named(tmp_path: Path) -> None:
    for content in (b"", b"text", gzip.compress(b"text"), idx(np.zeros((3, 3), np.uint8))[:-12]):
        (tmp_path / "a.gz").write_bytes(content)
        with pytest.raises(DataError, match=r"a\.gz is no"):
            digits.read_idx(tmp_path / "a.gz")


def test_files_are_fetched_once_and_checked(
    published: Path, mirror: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = "http://127.0.0.1:9/"
    source = replace(digits.SOURCES["mnist"], mirrors=(absent, mirror))
    monkeypatch.setitem(digits.SOURCES, "mnist", source)
    fetch = ["data", "fetch", "mnist", "--data-dir", str(tmp_path)]
    done = CliRunner().invoke(main, fetch)
    assert done.exit_code == 0, done.output
    assert digits.load("mnist", "test", 28, tmp_path).images.shape == (20, 28, 28, 1)
    (published / "mnist" / TEST_LABELS).unlink()
    assert CliRunner().invoke(main, fetch).exit_code == 0, "what is there is not asked for again"
    (tmp_path / "mnist" / TEST_LABELS).write_bytes(b"broken")
    failed = CliRunner().invoke(main, fetch)
    assert failed.exit_code == 1
    assert f"mnist/{TEST_LABELS} (sha256 {source.sha256[TEST_LABELS]}) cannot be downloaded" in failed.output
    assert "--data-dir" in failed.output
    unknown = CliRunner().invoke(main, ["data", "fetch", "cifar"])
    assert "there are: mnist, fashion-mnist" in unknown.output


def test_the_checksums_are_those_of_the_real_files() -> None:
    if not (SHARED / "mnist").is_dir():
        pytest.skip("the real files are not here")
    for name, source in digits.SOURCES.items():
        for file, expected in source.sha256.items():
            assert digits.state(SHARED / name / file, expected) == "ok"
