"""What several rooms need: the shipped model, real photographs, a real server on a real port."""

import http.client
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import skimage.data

from model_store import ModelStore, StoredModel, default_root

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared" / "data"


@pytest.fixture(scope="session")
def shipped() -> StoredModel:
    return ModelStore(default_root()).resolve("frames-balanced")


@pytest.fixture(scope="session")
def photo() -> npt.NDArray[np.uint8]:
    """A real photograph (scikit-image's cat, CC0), uint8 `[300, 451, 3]`."""
    pixels: npt.NDArray[np.uint8] = skimage.data.chelsea()
    return pixels


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def running_server(folder: Path = ROOT, **settings: str) -> Iterator[int]:
    """`quietframe serve` in a process of its own on a free port, stopped by SIGTERM."""
    port = free_port()
    environment = {**os.environ, **{f"QUIETFRAME_{name}": value for name, value in settings.items()}}
    command = [sys.executable, "-m", "service.cli", "serve", "--port", str(port)]
    with subprocess.Popen(command, env=environment, cwd=folder) as process:
        try:
            wait_until_ready(port, process)
            yield port
        finally:
            process.terminate()


def wait_until_ready(port: int, process: "subprocess.Popen[bytes]") -> None:
    for _ in range(600):
        assert process.poll() is None, "the server ended while starting"
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/readyz")
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass
        finally:
            connection.close()
        time.sleep(0.1)
    raise AssertionError("the server is not ready after a minute")


@pytest.fixture(scope="session")
def server() -> Iterator[int]:
    """The port of a server with the default settings."""
    with running_server() as port:
        yield port
