"""Archives: planned without Ray, and cleaned with it."""

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

pytest.importorskip("ray")

from model_store import ModelStore, default_root
from service.archive.cleaner import Cleaner, Work
from service.archive.cluster import Pool, choose_pool
from service.archive.folders import Folder
from service.archive.plan import Terms, is_video, plan_archive, shares
from service.archive.run import run_archive
from service.cli import main
from service.errors import StartError
from service.settings import Settings
from tests.conftest import ROOT
from tests.service.ray_runs import (
    archiving,
    files_below,
    listening_addresses,
    processes_of,
    strange_lines,
    wait_for,
)
from tests.service.test_video import noisy_video

__all__ = ["noisy_video"]  # a fixture
Pixels = npt.NDArray[np.uint8]
TERMS = Terms("frames-balanced:1", "0" * 64, 1.0, None, 90)


def archive(*arguments: object, **environment: str) -> Result:
    """In this process: for what is said before Ray starts."""
    return CliRunner().invoke(main, ["archive", *map(str, arguments)], env=environment)


@pytest.fixture
def source(tmp_path: Path, photo: Pixels) -> Path:
    folder = tmp_path / "source"
    (folder / "night").mkdir(parents=True)
    for name in ("a.png", "night/a.png", "b.jpg"):
        Image.fromarray(photo[:64, :96]).save(folder / name, quality=95)
    return folder


def test_an_archive_is_cleaned_as_denoise_and_video_do(
    source: Path, noisy_video: Path, photo: Pixels, tmp_path: Path
) -> None:
    dest, plain = tmp_path / "dest", tmp_path / "plain"
    (source / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (source / "notes.txt").write_text("no image")
    (source / os.fsdecode(b"caf\xe9.png")).write_bytes((source / "a.png").read_bytes())
    (source / "c.mp4").write_bytes(noisy_video.read_bytes())
    with archiving(source, dest, MARK=str(tmp_path)) as process:
        listening = listening_addresses(tmp_path, process)
        said = process.communicate(timeout=300)[0]
    assert process.returncode == 1, said
    assert listening == {"0100007F"}, "Ray must not be reachable from other machines"
    assert "failed: broken.png: The png file is corrupt" in said
    assert "5 of 6 cleaned" in said
    wait_for(lambda: not processes_of(tmp_path))  # Ray's processes end with ours
    assert not strange_lines(said)

    denoise = [sys.executable, "-m", "service.cli", "denoise", str(source), "-o", str(plain)]
    subprocess.run(denoise, cwd=ROOT, check=False, capture_output=True)
    assert (
        files_below(dest)
        == {*files_below(plain), "c.mp4"}
        == files_below(source) - {"broken.png", "notes.txt"}
    )
    for name in files_below(plain):
        assert (dest / name).read_bytes() == (plain / name).read_bytes(), name
    (report,) = (path for path in (dest / "_quietframe").iterdir() if path.name != "terms.json")
    assert f"1 failed: file://{report}" in said
    (failure,) = map(json.loads, report.read_text().splitlines())
    assert failure["source"] == "broken.png"

    (source / "broken.png").unlink()
    before = {name: (dest / name).stat().st_mtime_ns for name in files_below(dest)}
    again = archive(source, dest)
    assert again.exit_code == 0, again.output
    assert "0 of 0 cleaned, 5 before" in again.output
    assert not report.exists()
    assert before == {name: (dest / name).stat().st_mtime_ns for name in files_below(dest)}
    other = archive(source, dest, "--strength", "0.5")
    assert other.exit_code == 1
    assert "was begun with strength 1.0 (now 0.5)" in other.output


def test_what_is_wrong_is_said_before_ray_starts(source: Path, tmp_path: Path) -> None:
    dest = tmp_path / "dest"
    (tmp_path / "empty").mkdir()
    (source / "a.jpg").write_bytes((source / "b.jpg").read_bytes())
    for arguments, status, said in (
        ((tmp_path / "absent", dest), 2, "absent does not exist, or holds no images or videos"),
        ((tmp_path / "empty", dest), 2, "empty does not exist, or holds no images or videos"),
        ((source, source), 2, "overlap"),
        ((source, source / "clean"), 2, "overlap"),
        ((source / "night", source), 2, "overlap"),
        ((source, dest, "--format", "webp"), 2, "a.jpg and a.png would both become a.webp"),
        ((source, "/dev/null/x"), 1, "/dev/null/x cannot be used"),
        ((source, "memory://x"), 1, "in the memory of one process"),
        ((source, "nope://x"), 1, "Protocol not known: nope"),
        ((source, dest, "--address", "127.0.0.1:1"), 1, "no Ray cluster answers at 127.0.0.1:1"),
        ((source, dest, "--address", "ray://head:10001"), 1, "--address is host:port"),
        ((source, dest, "--model", "nobody"), 1, "no model 'nobody'"),
    ):
        done = archive(*arguments)
        assert done.exit_code == status, done.output
        assert said in " ".join(done.output.split())
        assert "Traceback" not in done.output
        assert not dest.exists() or not files_below(dest)
    assert "has no CUDA" in archive(source, dest, QUIETFRAME_DEVICE="cuda").output


def test_an_engine_with_other_weights_does_nothing(source: Path, tmp_path: Path) -> None:
    engine = Cleaner(Work(f"file://{source}", f"file://{tmp_path}/dest", "run", TERMS, Settings()))
    with contextlib.closing(engine):
        (row,) = engine({"names": json.dumps(["a.png"]), "again": ""})
    assert "differs between machines" in json.loads(row["told"])["trouble"]
    assert not (tmp_path / "dest").exists()


def test_a_video_is_not_enlarged(noisy_video: Path, tmp_path: Path) -> None:
    card = ModelStore(default_root()).resolve("fashion-sr2").card
    terms = Terms("fashion-sr2:1", card.sha256, 1.0, None, 90)
    settings = Settings(default_model=terms.model, device="cpu")
    source, dest = f"file://{noisy_video.parent}", f"file://{tmp_path}/dest"
    with contextlib.closing(Cleaner(Work(source, dest, "run", terms, settings))) as engine:
        told = [json.loads(row["told"]) for row in engine({"names": '["noisy.mp4"]', "again": ""})]
    assert "choose a model that does not enlarge" in told[-1]["errors"]["noisy.mp4"]
    assert not files_below(tmp_path / "dest")


@pytest.mark.parametrize("terms", ["[1]", "null", "7", "{"])
def test_terms_that_are_none_are_named_and_kept(source: Path, tmp_path: Path, terms: str) -> None:
    ours = tmp_path / "dest" / "_quietframe"
    ours.mkdir(parents=True)
    (ours / "terms.json").write_text(terms)
    done = archive(source, tmp_path / "dest")
    assert done.exit_code == 1
    assert f"Error: file://{tmp_path}/dest cannot be used: " in done.output
    assert (ours / "terms.json").read_text() == terms


def test_runs_into_one_folder_leave_each_other_alone(source: Path, tmp_path: Path) -> None:
    dest = tmp_path / "dest"
    running = plan_archive(str(source), str(dest), TERMS)
    work, killed = (plan_archive(str(source), str(dest), TERMS).dest.scratch for _ in range(2))
    assert work
    assert killed
    for scratch in (running.dest.scratch, work, killed):
        assert scratch
        (scratch / "video").mkdir()
        (scratch / "video" / "half.mp4").write_bytes(b"hours of work")
    two_days_ago = time.time() - 2 * 24 * 3600
    for path in (work, work / "video", killed / "video" / "half.mp4", killed / "video", killed):
        os.utime(path, (two_days_ago, two_days_ago))
    with running.dest.open_text(running.report) as report:
        report.write("what failed\n")

    other = plan_archive(str(source / "night"), str(dest), TERMS)
    other.dest.write("a.png", b"clean")
    assert (
        run_archive(plan_archive(str(source / "night"), str(dest), TERMS), Settings(), None, None, None) == 0
    )
    other.dest.remove_drafts()
    assert running.dest.read(running.report, 100) == b"what failed\n"
    assert (work / "video" / "half.mp4").exists(), "its folders are old, but it is still written"
    assert {path.name for path in (dest / "_quietframe").glob("drafts-*")} == {
        f"drafts-{running.dest.run}",
        work.name,
    }


def test_a_second_run_of_a_source_is_refused_until_the_first_ends(source: Path, tmp_path: Path) -> None:
    dest = tmp_path / "dest"
    first = (
        "import sys, time; from service.archive.alone import alone; from service.archive.plan import *\n"
        "with alone(plan_archive(*sys.argv[1:], Terms('a:1', '', 1.0, None, 90))):\n"
        "    print(flush=True); time.sleep(99)"
    )
    command = [sys.executable, "-c", first, str(source), str(dest)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        (dest / "_quietframe" / "terms.json").unlink()
        second = archive(source, dest)
        assert second.exit_code == 1
        assert f"another run, process {process.pid} on " in second.output
        assert f"cleans file://{source} into file://{dest}; wait until it ends, or end it" in second.output
        Folder.at(str(dest)).write("a.png", b"clean")
        assert archive(source / "a.png", dest).exit_code == 0, "another SOURCE is another matter"
        process.kill()
    for name in files_below(source):
        Folder.at(str(dest)).write(name, b"clean")
    assert archive(source, dest).exit_code == 0
    assert {path.name for path in (dest / "_quietframe").iterdir() if path.is_file()} == {"terms.json"}


def test_without_ray_the_extra_is_named(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    done = archive(source, tmp_path / "dest")
    assert done.exit_code == 1
    assert "pip install 'quietframe[ray]'" in done.output


@given(
    st.lists(st.sampled_from(["a.jpg", "b.mp4"]), max_size=600).map(
        lambda names: [f"{number}{name}" for number, name in enumerate(names)]
    ),
    st.integers(1, 40),
    st.integers(1, 8),
)
def test_shares_hold_each_name_once(names: list[str], engines: int, smallest: int) -> None:
    cut = list(shares(names, engines, smallest))
    assert [name for share in cut for name in share] == names
    assert all(len(share) == 1 for share in cut if is_video(share[0]))
    assert all(len(share) <= 256 for share in cut)


@pytest.mark.parametrize(
    ("nodes", "gpu", "pool"),
    [
        ([(2, 0)], False, Pool(1, 2, 0)),
        ([(8, 0)], False, Pool(2, 4, 0)),
        ([(6, 0)], False, Pool(2, 3, 0)),
        ([(16, 0), (64, 0)], False, Pool(20, 4, 0)),
        ([(16, 2), (8, 0)], True, Pool(2, 8, 1)),
    ],
)
def test_engines_fill_the_machines(nodes: list[tuple[int, int]], gpu: bool, pool: Pool) -> None:
    assert choose_pool(nodes, gpu, None, None) == pool


def test_engines_that_do_not_fit_are_refused() -> None:
    for nodes, gpu, cores in (([(2, 0)], True, None), ([(2, 0)], False, 3)):
        with pytest.raises(StartError):
            choose_pool(nodes, gpu, None, cores)


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    folder = Folder.at(str(tmp_path / "[odd] *name?"))
    folder.write("a/b#1.png", b"whole")
    assert (tmp_path / "[odd] *name?" / "a" / "b#1.png").read_bytes() == b"whole"
    with pytest.raises(FileNotFoundError):
        folder.put("a/c.mp4", tmp_path / "absent")
    with pytest.raises(OSError, match="directory"):
        folder.write("a", b"is a folder")
    assert folder.names() == ["a/b#1.png"]
    assert not [path for path in (tmp_path / "[odd] *name?" / "_quietframe").rglob("*") if path.is_file()]


def test_two_colons_are_part_of_a_name(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cameras are called by their IPv6 addresses; fsspec takes what follows for another URL."""
    monkeypatch.chdir(tmp_path)
    source = source.rename(tmp_path / "fe80::1")
    first = plan_archive("fe80::1", "clean/fe80::1", TERMS)
    assert first.source.url == f"file://{source}"
    assert sorted(first.todo) == ["a.png", "b.jpg", "night/a.png"]
    Folder(first.dest.url).write("a.png", b"clean")  # by its URL, as an engine opens it
    assert (tmp_path / "clean" / "fe80::1" / "a.png").read_bytes() == b"clean"
    assert plan_archive("fe80::1", "clean/fe80::1", TERMS).done == 1
    assert plan_archive("fe80::1", f"file://{tmp_path}/clean/fe80::2", TERMS).done == 0
    for url in ("memory://fe80::1", "memory://fe80::2"):
        Folder(url).write("of.txt", url.encode())
    assert Folder("memory://fe80::1").read("of.txt", 100) == b"memory://fe80::1"
