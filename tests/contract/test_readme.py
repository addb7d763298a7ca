"""What the README promises: its shell blocks run."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import skimage.data
from PIL import Image

from tests.conftest import ROOT, free_port, wait_until_ready

README = (ROOT / "README.md").read_text("utf-8")
BLOCKS = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The tracked files by links, so that what the commands write stays elsewhere, and a user's images."""
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in {line.split("/")[0] for line in tracked.splitlines()}:
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / ".venv").mkdir()
    for entry in Path(sys.prefix).iterdir():
        if entry.suffix != ".done":
            (tmp_path / ".venv" / entry.name).symlink_to(entry)
    for stamp in ("serve-cpu.done", "all-cpu.done"):
        # What runs this test is installed; make must not install it again from the links.
        (tmp_path / ".venv" / stamp).touch()
    for folder in ("frames", "photos", "held-out"):
        (tmp_path / folder).mkdir()
        for name in ("chelsea", "coffee"):
            Image.fromarray(getattr(skimage.data, name)()).save(tmp_path / folder / f"{name}.png")
    return tmp_path


@contextmanager
def in_background(command: str, environment: dict[str, str], port: int, folder: Path) -> Iterator[None]:
    with subprocess.Popen(["bash", "-c", f"exec {command}"], env=environment, cwd=folder) as process:
        try:
            wait_until_ready(port, process)
            yield
        finally:
            process.terminate()


def test_every_shell_block_runs_in_order(checkout: Path) -> None:
    port = free_port()
    environment = {
        **os.environ,
        "QUIETFRAME_PORT": str(port),
        "QUIETFRAME_GRPC_PORT": str(free_port()),
    }
    serve, *others = BLOCKS
    assert serve == "make serve\n"
    assert len(others) >= 3
    with in_background(serve, environment, port, checkout):
        for block in others:
            script = block.replace("localhost:3000", f"localhost:{port}").replace(
                "--minutes 30", "--minutes 0.01"
            )
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", script],
                env=environment,
                cwd=checkout,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, f"{block}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    with Image.open(checkout / "clean.jpg") as image:
        assert image.format == "JPEG"
