"""What several rooms need: the shipped model, real photographs, a real server on a real port."""

import contextlib
import http.client
import os
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import skimage.data

from model_store import ModelStore, StoredModel, default_root

ROOT = Path(__file__).parent.parent
UNVERIFIED = ssl.create_default_context()
UNVERIFIED.check_hostname = False
UNVERIFIED.verify_mode = ssl.CERT_NONE
SHARED = ROOT.parent / "shared" / "data"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--soak", action="store_true", help="promises under load at full length")


@pytest.fixture(scope="session")
def soak(request: pytest.FixtureRequest) -> bool:
    """Whether to run at full length, as `make soak` does."""
    return bool(request.config.getoption("--soak"))


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


@dataclass(frozen=True)
class Server:
    """A running service: its ports, and the process that supervises it."""

    port: int
    grpc_port: int
    process: "subprocess.Popen[bytes]"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def grpc(self) -> str:
        return f"127.0.0.1:{self.grpc_port}"


@contextmanager
def running_server(
    folder: Path | None = None, output: Path | None = None, **settings: str
) -> Iterator[Server]:
    """`quietframe serve` in a process of its own on free ports, stopped by SIGTERM.

    `settings` are QUIETFRAME_* variables; standard output goes to the file `output`, if given.
    """
    port, grpc_port = free_port(), free_port()
    settings = {"ACCESS_LOG": "true" if output else "false", **settings}
    environment = {**os.environ, **{f"QUIETFRAME_{name}": value for name, value in settings.items()}}
    ports = ["--port", str(port), "--grpc-port", str(grpc_port)]
    command = [sys.executable, "-m", "service.cli", "serve", *ports]
    with (
        output.open("wb") if output else contextlib.nullcontext() as log,
        subprocess.Popen(command, env=environment, cwd=folder or ROOT, stdout=log) as process,
    ):
        try:
            wait_until_ready(port, process, tls="TLS_CERT" in settings)
            yield Server(port, grpc_port, process)
        finally:
            process.terminate()


def wait_until_ready(port: int, process: "subprocess.Popen[bytes]", tls: bool = False) -> None:
    for _ in range(600):
        assert process.poll() is None, "the server ended while starting"
        connection = (
            http.client.HTTPSConnection("127.0.0.1", port, timeout=5, context=UNVERIFIED)
            if tls
            else http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        )
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
def server() -> Iterator[Server]:
    """A server with the default settings."""
    with running_server() as server:
        yield server
