"""How much the service gets through, beside a loop that does nothing but the work: one run, ratios."""

import concurrent.futures
import http.client
import io
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

import click
import numpy as np
import tritonclient.grpc
from PIL import Image

from service import codec, oip_models
from service.engine import Engine
from service.fitting import fitted
from service.header import Limits, inspect
from service.settings import Settings

_ROUNDS = 3
_SHARE_OF_SATURATION = 0.7

Call = Callable[[], object]
Connect = Callable[[int], AbstractContextManager[Call]]


@dataclass(frozen=True)
class Target:
    """A running service, and an engine of this process to compare it with."""

    port: int
    grpc_port: int
    engine: Engine
    lanes: int
    settings: Settings


def run_throughput(target: Target, seconds: float) -> None:
    """Print images a second of the direct loop, HTTP and gRPC for each size, and latency below saturation."""
    click.echo("\nimages/s, closed loop         direct     HTTP     gRPC   HTTP/direct  gRPC/direct")
    for width, height in ((1280, 720), (640, 360), (64, 64)):
        data = synthetic_frame(width, height)
        clients = target.lanes + 2 if width > 64 else 32
        kinds: list[tuple[int, Connect]] = [
            (target.lanes, partial(_direct, target, data)),
            (clients, partial(_http, target, data)),
            (clients, partial(_grpc, target, data)),
        ]
        rates: list[list[float]] = [[] for _ in kinds]
        for _ in range(_ROUNDS):
            for seen, (callers, connect) in zip(rates, kinds, strict=True):
                seen.append(_rate(connect, callers, seconds / _ROUNDS))
        direct, over_http, over_grpc = map(statistics.median, rates)
        click.echo(
            f"{f'{width}x{height} JPEG':24} {direct:10.2f} {over_http:8.2f} {over_grpc:8.2f}"
            f" {over_http / direct:12.3f} {over_grpc / direct:12.3f}"
        )
        if width == 64:
            alone = statistics.median(_rate(kinds[1][1], 1, seconds / _ROUNDS) for _ in range(_ROUNDS))
            click.echo(f"  64x64 over HTTP, 32 clients / one by one   {over_http / alone:.2f}")
        else:
            p50, p99 = _latency(target.port, data, _SHARE_OF_SATURATION * over_http, 2 * seconds)
            click.echo(
                f"  at 70 % of it, open loop, from the scheduled time: p50 {p50:.0f} ms, p99 {p99:.0f} ms"
            )


def synthetic_frame(width: int, height: int) -> bytes:
    """Soft shapes under sensor-like noise, so that JPEG has as much to do as with a real frame."""
    rng = np.random.default_rng(0)
    shapes = rng.uniform(40, 215, (9, 16, 3)).astype(np.uint8)
    soft = np.asarray(Image.fromarray(shapes).resize((width, height), Image.Resampling.BICUBIC))
    noisy = np.clip(soft + rng.normal(0, 12, soft.shape), 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(noisy).save(file, "jpeg", quality=90)
    return file.getvalue()


def direct(engine: Engine, data: bytes, settings: Settings, lane: int | None) -> None:
    """The work and nothing else: decode, run, encode."""
    limits = Limits(settings.formats, settings.max_pixels, settings.max_side)
    header = inspect(data, limits)
    picture = codec.decode(data, header)
    pixels = engine.run(fitted(picture.pixels, engine.card)[None], np.ones(1, np.float32), lane)[0]
    codec.encode(codec.Picture(pixels), header.format, settings.jpeg_quality)


def post(connection: http.client.HTTPConnection, data: bytes) -> None:
    connection.request("POST", "/v1/denoise", body=data)
    response = connection.getresponse()
    answer = response.read()
    if response.status != http.client.OK:
        raise click.ClickException(answer.decode(errors="replace"))


@contextmanager
def _direct(target: Target, data: bytes, lane: int) -> Iterator[Call]:
    yield lambda: direct(target.engine, data, target.settings, lane)


@contextmanager
def _http(target: Target, data: bytes, _caller: int) -> Iterator[Call]:
    connection = http.client.HTTPConnection("127.0.0.1", target.port, timeout=120)
    try:
        yield lambda: post(connection, data)
    finally:
        connection.close()


@contextmanager
def _grpc(target: Target, data: bytes, _caller: int) -> Iterator[Call]:
    tensor = tritonclient.grpc.InferInput(oip_models.FILE, [1], "BYTES")
    tensor.set_data_from_numpy(np.array([data], np.object_))
    address = f"127.0.0.1:{target.grpc_port}"
    with tritonclient.grpc.InferenceServerClient(address) as client:
        yield lambda: client.infer(target.settings.default_model, [tensor])


def _rate(connect: Connect, callers: int, seconds: float) -> float:
    """Calls a second of `callers` that each begin the next when the last is done.

    Raises:
        Exception: what the first call that failed has raised.
    """

    def caller(call: Call) -> float:
        count, started = 0, time.perf_counter()
        while time.perf_counter() - started < seconds:
            call()
            count += 1
        return count / (time.perf_counter() - started)

    with ExitStack() as stack, concurrent.futures.ThreadPoolExecutor(callers) as pool:
        calls = [stack.enter_context(connect(number)) for number in range(callers)]
        list(pool.map(lambda call: call(), calls))  # connects and warms up, which is not timed
        return sum(pool.map(caller, calls))


def _latency(port: int, data: bytes, rate: float, seconds: float) -> tuple[float, float]:
    """Median and 99th percentile in ms at `rate` a second, whether or not earlier ones are answered."""
    waits: list[float] = []
    local = threading.local()

    def one(scheduled: float) -> None:
        if not hasattr(local, "connection"):
            local.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        post(local.connection, data)
        waits.append(time.perf_counter() - scheduled)

    arrivals = np.cumsum(np.random.default_rng(0).exponential(1 / rate, max(20, int(rate * seconds))))
    with concurrent.futures.ThreadPoolExecutor(64) as pool:
        begun = time.perf_counter()
        answers = []
        for arrival in arrivals:
            time.sleep(max(0.0, begun + arrival - time.perf_counter()))
            answers.append(pool.submit(one, begun + arrival))
        for answer in answers:
            answer.result()
    return 1000 * statistics.median(waits), 1000 * float(np.percentile(waits, 99))
