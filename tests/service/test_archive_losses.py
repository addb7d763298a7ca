"""Archives whose machine, engine or user goes away midway: nothing lost, nothing doubled."""

import os
import signal
from pathlib import Path

import pytest
from PIL import Image

pytest.importorskip("ray")

from service.throughput import synthetic_frame
from tests.service.ray_runs import (
    TOKEN,
    any_engine,
    archiving,
    files_below,
    strange_lines,
    two_machines,
    wait_for,
)


def test_a_machine_that_is_killed_takes_nothing_with_it(soak: bool, tmp_path: Path) -> None:
    if not soak:
        pytest.skip("a cluster of two machines takes a minute; --soak runs it")
    source, dest = tmp_path / "source", tmp_path / "dest"
    source.mkdir()
    for number in range(60):
        (source / f"{number:03}.jpg").write_bytes(synthetic_frame(640, 360))
    with (
        two_machines() as (address, kill_one),
        archiving(source, dest, "--address", address, **TOKEN) as process,
    ):
        wait_for(lambda: len(files_below(dest)) >= 8, process)
        kill_one()
        done_by_then = len(files_below(dest))
        said = process.communicate(timeout=300)[0]
    print(f"killed after {done_by_then} of 60; {said}")
    assert process.returncode == 0, said
    assert done_by_then < 60
    assert "60 of 60 cleaned" in said
    assert not strange_lines(said)
    assert files_below(dest) == files_below(source)
    for name in files_below(dest):
        with Image.open(dest / name) as image:
            image.load()
            assert image.size == (640, 360)
    assert {path.name for path in (dest / "_quietframe").iterdir()} == {"terms.json"}


def test_an_engine_that_dies_and_a_user_who_interrupts_lose_nothing(soak: bool, tmp_path: Path) -> None:
    if not soak:
        pytest.skip("starts Ray twice; --soak runs it")
    source, dest = tmp_path / "source", tmp_path / "dest"
    source.mkdir()
    for number in range(40):
        (source / f"{number:03}.jpg").write_bytes(synthetic_frame(640, 360))
    with archiving(source, dest, MARK=str(tmp_path)) as process:
        wait_for(lambda: len(files_below(dest)) >= 4, process)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=120)[0]
    assert process.returncode == 130
    assert "the same command goes on from here" in said
    first = files_below(dest)
    assert 4 <= len(first) < 40
    with archiving(source, dest, MARK=str(tmp_path)) as process:
        wait_for(lambda: len(files_below(dest)) >= len(first) + 4, process)
        engine = any_engine(tmp_path)
        assert engine
        os.kill(engine, signal.SIGKILL)
        said = process.communicate(timeout=300)[0]
    assert process.returncode == 0, said
    assert f"{40 - len(first)} of {40 - len(first)} cleaned, {len(first)} before" in said
    assert files_below(dest) == files_below(source)
