"""What serving costs on top of computing: both measured in one run, reported as ratios."""

import http.client
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import psutil

from model_store import ModelStore, StoredModel
from service.engine import Engine, session_options
from service.fitting import fitted
from service.header import Header, Limits, inspect
from service.settings import Settings
from service.throughput import Target, direct, post, run_throughput, synthetic_frame

_CONVOLUTIONS = frozenset({"Conv", "FusedConv", "QLinearConv", "ConvTranspose"})
_START_TIMEOUT_S = 60


def run_bench(settings: Settings, image: Path | None, requests: int, seconds: float) -> None:
    """Print the tables; `image` defaults to a synthetic noisy 1280x720 JPEG."""
    data = image.read_bytes() if image else synthetic_frame(1280, 720)
    stored = ModelStore(settings.model_store).resolve(settings.default_model)
    if not (stored.card.takes_image and stored.card.gives_image):
        raise click.UsageError(f"{stored.card.label} is not for images; set QUIETFRAME_DEFAULT_MODEL")
    limits = Limits(settings.formats, settings.max_pixels, settings.max_side)
    header = inspect(data, limits)
    lanes = settings.lanes_per_worker
    engine = Engine(stored, "cpu", settings.threads_per_worker, lanes, settings.precision)
    click.echo(
        f"{stored.card.label} in {engine.precision}, {header.width}x{header.height} {header.format},"
        f" {settings.threads_per_worker} threads, onnxruntime {ort.__version__}, {requests} requests"
    )
    convolutions, everything = _profile(engine, stored, settings.threads_per_worker, header)
    click.echo(f"graph / its convolutions   {everything / convolutions:.3f}   ({everything:.0f} ms a run)")
    alone, together = _thumbnails(engine)
    click.echo(
        f"64x64, alone / in a batch   {alone / together:.2f}   ({alone:.2f} and {together:.2f} ms each)"
    )
    alone_ms: list[float] = []
    served_ms: list[float] = []
    click.echo(f"installed here             {_installed() / 1e6:.0f} MB")
    with _server() as (process, (port, grpc_port), ready_s):
        click.echo(f"start to ready             {ready_s:.2f} s")
        click.echo(f"idle memory                {_memory(process) / 1e6:.0f} MB")
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        for _ in range(requests + 3):  # the first three warm both sides up
            alone_ms.append(1000 * _timed(lambda: direct(engine, data, settings, None)))
            served_ms.append(1000 * _timed(lambda: post(connection, data)))
        here, there = (statistics.median(times[3:]) for times in (alone_ms, served_ms))
        click.echo(f"direct, median             {here:.1f} ms   {1e6 * here / header.pixels:.0f} ms/MP")
        click.echo(f"HTTP, median               {there:.1f} ms")
        click.echo(f"HTTP / direct              {there / here:.3f}")
        if seconds:
            run_throughput(Target(port, grpc_port, engine, lanes, settings), seconds)


def _thumbnails(engine: Engine) -> tuple[float, float]:
    """Milliseconds an image, one by one and 32 together, median of interleaved runs."""
    sides = [side if isinstance(side, int) else 64 for side in engine.card.inputs[0].shape[1:]]
    images = np.random.default_rng(0).integers(0, 256, (32, *sides), np.uint8)
    ones = np.ones(len(images), np.float32)
    alone, together = [], []
    for _ in range(12):
        alone.append(_timed(lambda: [engine.run(images[i : i + 1], ones[:1]) for i in range(len(images))]))
        together.append(_timed(lambda: engine.run(images, ones)))
    each = 1000 / len(images)
    return each * statistics.median(alone[2:]), each * statistics.median(together[2:])


def _timed(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def _profile(engine: Engine, stored: StoredModel, threads: int, header: Header) -> tuple[float, float]:
    """Milliseconds a run in convolution nodes and in all nodes, by ONNX Runtime's own profiler.

    Raises:
        BadImageError: the model takes images of another size only.
    """
    rng = np.random.default_rng(0)
    frame = fitted(rng.integers(0, 256, (header.height, header.width, 3), np.uint8), stored.card)
    feeds: dict[str, npt.NDArray[np.generic]] = {stored.card.inputs[0].name: frame[None]}
    if stored.card.takes_strength:
        feeds["strength"] = np.ones(1, np.float32)
    model = stored.read_verified(engine.precision)
    options = session_options(threads)
    options.enable_profiling = True
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = f"{folder}/profile"
        session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        runs = 6
        for _ in range(runs):
            session.run(None, feeds)
        events = json.loads(Path(session.end_profiling()).read_text("utf-8"))
    spent: Counter[str] = Counter()
    for event in events:
        if event["cat"] == "Node" and event["name"].endswith("_kernel_time"):
            spent[event["args"]["op_name"]] += event["dur"]
    convolutions = sum(spent[name] for name in _CONVOLUTIONS)
    return convolutions / runs / 1000, spent.total() / runs / 1000


def _installed() -> int:
    """Bytes of every package beside ours; an environment for training has more than serving needs."""
    packages = Path(sysconfig.get_path("purelib"))
    return sum(file.lstat().st_size for file in packages.rglob("*") if file.is_file())


def _memory(process: psutil.Process) -> int:
    """Bytes of a process and its children, of what they share each its part (PSS), where the system tells."""
    family = [process, *process.children(recursive=True)]
    return sum(getattr(told := each.memory_full_info(), "pss", told.rss) for each in family)


@contextmanager
def _server() -> Iterator[tuple[psutil.Process, tuple[int, int], float]]:
    """A service of our own on free loopback ports, HTTP and gRPC, and its seconds from start to ready.

    Plain and open to all on this machine, whatever the environment says of TLS and tokens.
    """
    with socket.socket() as first, socket.socket() as second:
        for probe in (first, second):
            probe.bind(("127.0.0.1", 0))
        port, grpc_port = (int(probe.getsockname()[1]) for probe in (first, second))
    ports = ["--port", str(port), "--grpc-port", str(grpc_port)]
    command = [sys.executable, "-m", "service.cli", "serve", *ports]
    closed = ("QUIETFRAME_TLS_CERT", "QUIETFRAME_TLS_KEY", "QUIETFRAME_TOKENS")
    environment = {name: value for name, value in os.environ.items() if name.upper() not in closed}
    begun = time.perf_counter()
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment
    ) as process:
        try:
            while not _is_ready(port):
                if process.poll() is not None or time.perf_counter() - begun > _START_TIMEOUT_S:
                    raise click.ClickException("the service did not start; try `quietframe serve`")
                time.sleep(0.02)
            yield psutil.Process(process.pid), (port, grpc_port), time.perf_counter() - begun
        finally:
            os.kill(process.pid, signal.SIGTERM)


def _is_ready(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()
