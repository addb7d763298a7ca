"""What serving costs on top of computing: both measured in one run, reported as ratios."""

import http.client
import io
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import numpy as np
import onnxruntime as ort
from PIL import Image

from model_store import ModelStore
from service import codec
from service.codec import Limits
from service.engine import Engine, session_options
from service.settings import Settings

_CONVOLUTIONS = frozenset({"Conv", "FusedConv", "ConvTranspose"})
_START_TIMEOUT_S = 60


def run_bench(settings: Settings, image: Path | None, requests: int) -> None:
    """Print the table; `image` defaults to a synthetic noisy 1280x720 JPEG."""
    data = image.read_bytes() if image else _synthetic_frame()
    stored = ModelStore(settings.model_store).resolve(settings.default_model)
    limits = Limits(settings.formats, settings.max_pixels, settings.max_side)
    header = codec.inspect(data, limits)
    click.echo(
        f"{stored.card.label}, {header.width}x{header.height} {header.format},"
        f" {settings.threads_per_worker} threads, onnxruntime {ort.__version__}, {requests} requests"
    )
    convolutions, everything = _profile(stored.read_verified(), settings.threads_per_worker, header)
    click.echo(f"graph / its convolutions   {everything / convolutions:.3f}   ({everything:.0f} ms a run)")
    engine = Engine(stored, "cpu", settings.threads_per_worker)
    alone, together = _thumbnails(engine)
    click.echo(
        f"64x64, alone / in a batch   {alone / together:.2f}   ({alone:.2f} and {together:.2f} ms each)"
    )
    direct: list[float] = []
    served: list[float] = []
    with _server() as (port, ready_s):
        click.echo(f"start to ready             {ready_s:.2f} s")
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        for _ in range(requests + 3):  # the first three warm both sides up
            direct.append(_timed(lambda: _direct(engine, data, limits, settings.jpeg_quality)))
            served.append(_timed(lambda: _post(connection, data)))
    direct_ms, served_ms = (1000 * statistics.median(times[3:]) for times in (direct, served))
    click.echo(f"direct, median             {direct_ms:.1f} ms   {1e6 * direct_ms / header.pixels:.0f} ms/MP")
    click.echo(f"HTTP, median               {served_ms:.1f} ms")
    click.echo(f"HTTP / direct              {served_ms / direct_ms:.3f}")


def _direct(engine: Engine, data: bytes, limits: Limits, quality: int) -> None:
    header = codec.inspect(data, limits)
    picture = codec.decode(data, header)
    pixels = engine.run(picture.pixels[None], np.ones(1, np.float32))[0]
    codec.encode(codec.Picture(pixels), header.format, quality)


def _thumbnails(engine: Engine) -> tuple[float, float]:
    """Milliseconds an image, one by one and 32 together, median of interleaved runs."""
    images = np.random.default_rng(0).integers(0, 256, (32, 64, 64, 3), np.uint8)
    ones = np.ones(len(images), np.float32)
    alone, together = [], []
    for _ in range(12):
        alone.append(_timed(lambda: [engine.run(images[i : i + 1], ones[:1]) for i in range(len(images))]))
        together.append(_timed(lambda: engine.run(images, ones)))
    each = 1000 / len(images)
    return each * statistics.median(alone[2:]), each * statistics.median(together[2:])


def _post(connection: http.client.HTTPConnection, data: bytes) -> None:
    connection.request("POST", "/v1/denoise", data)
    response = connection.getresponse()
    body = response.read()
    if response.status != 200:
        raise click.ClickException(f"the service answered {response.status}: {body[:300]!r}")


def _timed(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def _profile(model: bytes, threads: int, header: codec.Header) -> tuple[float, float]:
    """Milliseconds a run in convolution nodes and in all nodes, by ONNX Runtime's own profiler."""
    options = session_options(threads)
    options.enable_profiling = True
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = f"{folder}/profile"
        session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        rng = np.random.default_rng(0)
        image = rng.integers(0, 256, (1, header.height, header.width, 3), np.uint8)
        runs = 6
        for _ in range(runs):
            session.run(None, {"image": image, "strength": np.ones(1, np.float32)})
        events = json.loads(Path(session.end_profiling()).read_text("utf-8"))
    spent: Counter[str] = Counter()
    for event in events:
        if event["cat"] == "Node" and event["name"].endswith("_kernel_time"):
            spent[event["args"]["op_name"]] += event["dur"]
    convolutions = sum(spent[name] for name in _CONVOLUTIONS)
    return convolutions / runs / 1000, spent.total() / runs / 1000


@contextmanager
def _server() -> Iterator[tuple[int, float]]:
    """A service of our own on a free loopback port: (port, seconds from start to ready)."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    command = [sys.executable, "-m", "service.cli", "serve", "--port", str(port)]
    begun = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            while not _is_ready(port):
                if process.poll() is not None or time.perf_counter() - begun > _START_TIMEOUT_S:
                    raise click.ClickException("the service did not start; try `quietframe serve`")
                time.sleep(0.02)
            yield port, time.perf_counter() - begun
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


def _synthetic_frame() -> bytes:
    """Soft shapes under sensor-like noise, so that JPEG has as much to do as with a real frame."""
    rng = np.random.default_rng(0)
    shapes = rng.uniform(40, 215, (9, 16, 3)).astype(np.uint8)
    soft = np.asarray(Image.fromarray(shapes).resize((1280, 720), Image.Resampling.BICUBIC))
    noisy = np.clip(soft + rng.normal(0, 12, soft.shape), 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(noisy).save(file, "jpeg", quality=90)
    return file.getvalue()
