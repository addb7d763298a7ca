"""What the service says and costs while it is under load: /metrics, CPU, memory."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import click
import psutil
from prometheus_client.parser import text_string_to_metric_families

from deploy.loadtest.target import Target, get

T = TypeVar("T")
_EVERY_S = 1.0
_PATIENCE_S = 30

Series = dict[tuple[str, tuple[tuple[str, str], ...]], float]


@dataclass(frozen=True)
class Sample:
    """One look at the service: seconds since 1970, what waits in it, memory in bytes."""

    time: float
    pending_requests: float
    pending_pixels: float
    pss: float


@dataclass
class Watched:
    """One stretch of time: counters before and after, samples between, CPU seconds of all processes."""

    before: Series = field(default_factory=dict)
    after: Series = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)
    missed: int = 0  # times the service did not answer /metrics
    cpu_s: float | None = None
    wall_s: float = 0.0
    machine_s: float = 0.0  # CPU seconds of all processes of the machine
    peak_rss: int | None = None


class Watch:
    """Around a run: `with Watch(target) as watched`; `watched` is complete after the block.

    Raises:
        click.ClickException: the service does not answer /metrics before or after the run.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._watched = Watched()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> Watched:
        self._watched.before = self._counters()
        self._begun, self._cpu, self._machine = time.perf_counter(), cpu_s(self._target.pid), _machine_s()
        self._thread.start()
        return self._watched

    def __exit__(self, kind: type[BaseException] | None, _error: object, _at: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()
        now = cpu_s(self._target.pid)
        self._watched.wall_s = time.perf_counter() - self._begun
        self._watched.machine_s = _machine_s() - self._machine
        self._watched.cpu_s = None if now is None or self._cpu is None else now - self._cpu
        self._watched.peak_rss = _peak_rss(self._target.pid)
        if kind is None:
            self._watched.after = self._counters()

    def _counters(self) -> Series:
        try:
            return scrape(self._target.metrics_url)
        except OSError as error:
            raise click.ClickException(f"{self._target.label} does not answer any more: {error}") from None

    def _sample(self) -> None:
        while not self._stop.wait(_EVERY_S):
            try:
                series = scrape(self._target.metrics_url)
            except OSError:
                self._watched.missed += 1
                continue
            requests, pixels = (
                series.get((f"quietframe_pending_{what}", ()), 0.0) for what in ("requests", "pixels")
            )
            self._watched.samples.append(Sample(time.time(), requests, pixels, _pss(self._target.pid)))


def scrape(url: str | None) -> Series:
    """Every sample of Prometheus text by name and labels; nothing without an address."""
    if url is None:
        return {}
    _, text = get(url, _PATIENCE_S)
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def cpu_s(pid: int | None) -> float | None:
    """CPU seconds of a process and all below it, since they began."""
    if pid is None:
        return None
    return sum(_of_tree(pid, lambda process: sum(process.cpu_times()[:2])))


def _machine_s() -> float:
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - times.iowait - times.guest - times.guest_nice)


def _pss(pid: int | None) -> float:
    """Bytes of memory, shared pages by their share."""
    return sum(_of_tree(pid, lambda process: process.memory_full_info().pss)) if pid else 0.0


def _peak_rss(pid: int | None) -> int | None:
    """Sum of the most memory each process has ever had (VmHWM), bytes."""
    if pid is None:
        return None
    return sum(_of_tree(pid, lambda process: _high_water_mark(process.pid)))


def _high_water_mark(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text("utf-8").splitlines():
        name, _, value = line.partition(":")
        if name == "VmHWM":
            return 1024 * int(value.split()[0])
    return 0


def _of_tree(pid: int, ask: Callable[[psutil.Process], T]) -> Iterator[T]:
    """Ask a process and all below it; those that end meanwhile are left out."""
    process = psutil.Process(pid)
    for each in [process, *process.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess, FileNotFoundError):
            yield ask(each)
