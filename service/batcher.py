"""One queue in front of the engines: oldest first, one shape at a time, an outcome for each item."""

import asyncio
import contextlib
import math
import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from service import metrics
from service.engine import Engine, Samples

_SMOOTHING = 0.1
_BEHIND_THE_LOOP = 5  # of 19
_TELLING_PIXELS = 65_536  # smaller batches say more about the cost of a run than about that of a pixel


@dataclass(frozen=True)
class Ran:
    """The outcome of one item and when it ran, by time.perf_counter()."""

    pixels: Samples
    started: float
    ended: float


@dataclass(eq=False)
class _Item:
    engine: Engine
    sample: Samples
    strength: float
    arrived: float = field(default_factory=time.perf_counter)
    future: asyncio.Future[Ran] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    @property
    def bucket(self) -> tuple[Engine, tuple[int, ...]]:
        """What may run together: one model version, one shape."""
        return self.engine, self.sample.shape

    @property
    def pixels(self) -> int:
        return math.prod(self.sample.shape[:2])


class Batcher:
    """Runs images on engines, in `lanes` threads; an idle lane never waits for a fuller batch.

    A batch that finds the house empty runs on all cores, for the sake of latency; beside others
    each has the cores of its lane, for the sake of throughput. Measured on two cores, frames-balanced,
    ms an image: 1280x720 all cores 325 and in two lanes 306 (one of them alone 583; split into two
    strips for the lanes 351, so frames are not split); 640x360 75 and 72; 64x64 one by one 1.68 and
    1.27, in batches of 16 1.32 and 1.21.

    The bucket of the oldest item runs first, up to `max_batch_pixels`: on a CPU that pays for
    thumbnails, whose runs cost more to start than to compute, and not for frames. Only a
    `max_delay_s` above 0 lets a bucket that is not full wait for more, as a GPU likes it.
    What waits is bounded by who calls: see `Admission`.
    """

    def __init__(self, max_batch_pixels: int, lanes: int = 1, max_delay_s: float = 0.0) -> None:
        self._max_batch_pixels = max_batch_pixels
        self._max_delay_s = max_delay_s
        self._waiting: dict[_Item, None] = {}  # in order of arrival, and quick to leave
        self._idle = set(range(lanes))
        self._lanes = lanes
        self._closed = False
        self.pixels_per_s = 0.0  # smoothed; 0 until something large enough has run
        self._alarm: asyncio.TimerHandle | None = None
        self._threads = ThreadPoolExecutor(lanes, thread_name_prefix="lane", initializer=step_back)

    async def run(self, engine: Engine, sample: Samples, strength: float) -> Ran:
        """Run one uint8 `[H, W, C]` or float32 `[k]`; cancelled before its turn, it never runs.

        Raises:
            Exception: whatever the engine raised for this very image.
        """
        item = _Item(engine, sample, strength)
        self._waiting[item] = None
        asyncio.get_running_loop().call_soon(self._feed)  # after all that come at the same time
        try:
            return await item.future
        finally:
            self._waiting.pop(item, None)  # cancelled: let go of the image now, not when its turn comes

    async def close(self) -> None:
        """Cancel what waits, finish what runs."""
        self._closed = True
        if self._alarm:
            self._alarm.cancel()
        for item in self._waiting:
            item.future.cancel()
        await asyncio.to_thread(self._threads.shutdown)

    def _feed(self) -> None:
        while self._idle and not self._closed and (batch := self._next_batch()):
            lane = self._idle.pop()
            alone = len(self._idle) == self._lanes - 1 and not self._waiting
            metrics.BATCH_SIZE.labels(batch[0].engine.card.label).observe(len(batch))
            running = self._threads.submit(_run_each, batch, None if alone else lane)
            running.add_done_callback(partial(self._hand_back, batch, lane))

    def _next_batch(self) -> list[_Item]:
        """The oldest bucket that is full or has waited long enough; it leaves the queue."""
        buckets: dict[tuple[Engine, tuple[int, ...]], list[_Item]] = {}
        for item in self._waiting:
            if not item.future.done():
                buckets.setdefault(item.bucket, []).append(item)
        now = time.perf_counter()
        for bucket in buckets.values():
            fitting = max(1, self._max_batch_pixels // bucket[0].pixels)
            if len(bucket) >= fitting or now - bucket[0].arrived >= self._max_delay_s:
                batch = bucket[:fitting]
                for item in batch:
                    del self._waiting[item]
                return batch
        if buckets:
            oldest = next(iter(buckets.values()))[0]
            self._wake_in(oldest.arrived + self._max_delay_s - now)
        return []

    def _wake_in(self, seconds: float) -> None:
        if self._alarm:
            self._alarm.cancel()
        self._alarm = asyncio.get_running_loop().call_later(seconds, self._feed)

    def _hand_back(self, batch: list[_Item], lane: int, done: Future[list[Ran | Exception]]) -> None:
        """In the lane's thread, so that a loop that ends while it computes does not take the lane with it.

        Videos have a loop each, one after the other: where the one that asked is closed, images of the
        next may be waiting for the lane.
        """
        busy = self._lanes - len(self._idle)
        self._idle.add(lane)
        try:
            batch[0].future.get_loop().call_soon_threadsafe(self._finish, batch, busy, done.result())
        except RuntimeError:  # closed: nobody waits for these outcomes any more
            for item in list(self._waiting)[:1]:
                item.future.get_loop().call_soon_threadsafe(self._feed)

    def _finish(self, batch: list[_Item], busy: int, outcomes: list[Ran | Exception]) -> None:
        self._learn_speed(batch, outcomes, busy)
        for item, outcome in zip(batch, outcomes, strict=True):
            if item.future.done():
                continue
            if isinstance(outcome, Exception):
                item.future.set_exception(outcome)
            else:
                item.future.set_result(outcome)
        self._feed()

    def _learn_speed(self, batch: list[_Item], outcomes: list[Ran | Exception], busy: int) -> None:
        """As if the lanes that were busy had all run like this batch did.

        In pixels that come out, as admission counts them, where a model enlarges.
        """
        first, last = outcomes[0], outcomes[-1]
        pixels = batch[0].engine.card.scale ** 2 * sum(item.pixels for item in batch)
        if pixels >= _TELLING_PIXELS and isinstance(first, Ran) and isinstance(last, Ran):
            seen = busy * pixels / (last.ended - first.started)
            self.pixels_per_s += (seen - self.pixels_per_s) * (_SMOOTHING if self.pixels_per_s else 1)


def step_back() -> None:
    """Let the event loop go before this thread, so that refusals and health do not wait for computing."""
    with contextlib.suppress(AttributeError, OSError):  # threads have priorities of their own on Linux only
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _BEHIND_THE_LOOP)


def _run_each(batch: Sequence[_Item], lane: int | None) -> list[Ran | Exception]:
    """Run a batch; when it fails, every item alone, so that one image cannot fail another."""
    started = time.perf_counter()
    try:
        samples = np.stack([item.sample for item in batch])
        strengths = np.array([item.strength for item in batch], np.float32)
        results = batch[0].engine.run(samples, strengths, lane)
    except Exception as error:
        if len(batch) == 1:
            return [error]
        return [outcome for item in batch for outcome in _run_each([item], lane)]
    ended = time.perf_counter()
    return [Ran(result, started, ended) for result in results]
