"""The peers as targets: the same model file behind other servers, each in its own virtual environment."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from deploy.loadtest.target import MODEL, Target, free_ports, started
from model_store import ModelStore, default_root

PLACE = Path(__file__).parent
ENVIRONMENTS = Path(sys.prefix) / "peers"


@contextmanager
def starlette(folder: Path) -> Iterator[Target]:
    """app.py under uvicorn with uvloop and httptools; one process, a thread for each core."""
    (port,) = free_ports(1)
    command = [_program("starlette", "uvicorn"), "app:app", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--no-access-log", "--log-level", "warning"]
    base = f"http://127.0.0.1:{port}"
    environment = {**_clean(), "MODEL": _model()}
    place = PLACE / "starlette"
    with started("starlette", command, environment, place, folder, f"{base}/readyz") as pid:
        yield Target("starlette", f"{base}/v1/denoise", "", None, pid)


@contextmanager
def mlserver(folder: Path) -> Iterator[Target]:
    """runtime.py in MLServer's parallel inference: a process for each core, one thread each."""
    http_port, grpc_port, metrics_port = free_ports(3)
    own = folder / "mlserver"
    own.mkdir()
    environment = {
        **_clean(),
        "MODEL": _model(),
        "MLSERVER_DEBUG": "false",
        "MLSERVER_HOST": "127.0.0.1",
        "MLSERVER_HTTP_PORT": str(http_port),
        "MLSERVER_GRPC_PORT": str(grpc_port),
        "MLSERVER_METRICS_PORT": str(metrics_port),
        "MLSERVER_METRICS_DIR": str(own),
        "MLSERVER_ENVIRONMENTS_DIR": str(own),
        "MLSERVER_GRPC_MAX_MESSAGE_LENGTH": str(64 * 2**20),
        "MLSERVER_PARALLEL_WORKERS": str(len(os.sched_getaffinity(0))),
    }
    command = [_program("mlserver", "mlserver"), "start", "."]
    ready = f"http://127.0.0.1:{http_port}/v2/models/{MODEL}/ready"
    with started("mlserver", command, environment, PLACE / "mlserver", folder, ready) as pid:
        yield Target("mlserver", "", f"127.0.0.1:{grpc_port}", None, pid)


def versions() -> list[tuple[str, str]]:
    """What each peer's environment is locked to, the packages that matter."""
    wanted = ("mlserver", "starlette", "uvicorn", "onnxruntime", "pillow", "numpy", "grpcio")
    rows = []
    for name in ("starlette", "mlserver"):
        locked = (PLACE / name / "requirements.txt").read_text("utf-8").splitlines()
        rows.append((name, ", ".join(line for line in locked if line.split("==")[0].lower() in wanted)))
    return rows


def _program(peer: str, name: str) -> str:
    program = ENVIRONMENTS / peer / "bin" / name
    if not program.exists():
        raise click.ClickException(f"{program} is missing; `make loadtest-peers` installs the peers")
    return str(program)


def _model() -> str:
    return str(ModelStore(default_root()).resolve(MODEL).model_file)


def _clean() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
