"""One queue in front of the engines: oldest first, one shape at a time, an outcome for each item."""

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from service import metrics
from service.engine import Engine, Pixels


@dataclass(frozen=True)
class Ran:
    """The outcome of one item and when it ran, by time.perf_counter()."""

    pixels: Pixels
    started: float
    ended: float


@dataclass(eq=False)
class _Item:
    engine: Engine
    image: Pixels
    strength: float
    future: asyncio.Future[Ran] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def joins(self, other: "_Item") -> bool:
        return self.engine is other.engine and self.image.shape == other.image.shape

    @property
    def pixels(self) -> int:
        height, width = self.image.shape[:2]
        return int(height * width)


class Batcher:
    """Runs images on engines, in `lanes` threads; an idle lane never waits for a fuller batch.

    Items of the oldest item's model and shape run with it, up to `max_batch_pixels`: on a CPU that
    pays for thumbnails, whose runs cost more to start than to compute, and not for frames.
    """

    def __init__(self, max_batch_pixels: int, lanes: int = 1) -> None:
        self._max_batch_pixels = max_batch_pixels
        self._waiting: deque[_Item] = deque()
        self._idle = lanes
        self._closed = False
        self._threads = ThreadPoolExecutor(lanes, thread_name_prefix="lane")

    async def run(self, engine: Engine, image: Pixels, strength: float) -> Ran:
        """Run one uint8 `[H, W, C]`; cancelled before its turn, it never runs.

        Raises:
            Exception: whatever the engine raised for this very image.
        """
        item = _Item(engine, image, strength)
        self._waiting.append(item)
        self._feed()
        try:
            return await item.future
        finally:
            if item in self._waiting:  # cancelled: let go of the image now, not when its turn comes
                self._waiting.remove(item)

    async def close(self) -> None:
        """Cancel what waits, finish what runs."""
        self._closed = True
        for item in self._waiting:
            item.future.cancel()
        await asyncio.to_thread(self._threads.shutdown)

    def _feed(self) -> None:
        while self._idle and not self._closed and (batch := self._next_batch()):
            self._idle -= 1
            metrics.BATCH_SIZE.observe(len(batch))
            done = asyncio.get_running_loop().run_in_executor(self._threads, _run_each, batch)
            done.add_done_callback(partial(self._finish, batch))

    def _next_batch(self) -> list[_Item]:
        wanted = [item for item in self._waiting if not item.future.done()]
        if not wanted:
            return []
        first = wanted[0]
        fitting = max(1, self._max_batch_pixels // first.pixels)
        batch = [item for item in wanted if item.joins(first)][:fitting]
        for item in batch:
            self._waiting.remove(item)
        return batch

    def _finish(self, batch: list[_Item], done: asyncio.Future[list[Ran | Exception]]) -> None:
        self._idle += 1
        for item, outcome in zip(batch, done.result(), strict=True):
            if item.future.done():
                continue
            if isinstance(outcome, Exception):
                item.future.set_exception(outcome)
            else:
                item.future.set_result(outcome)
        self._feed()


def _run_each(batch: Sequence[_Item]) -> list[Ran | Exception]:
    """Run a batch; when it fails, every item alone, so that one image cannot fail another."""
    started = time.perf_counter()
    try:
        images = np.stack([item.image for item in batch])
        strengths = np.array([item.strength for item in batch], np.float32)
        results = batch[0].engine.run(images, strengths)
    except Exception as error:
        if len(batch) == 1:
            return [error]
        return [outcome for item in batch for outcome in _run_each([item])]
    ended = time.perf_counter()
    return [Ran(result, started, ended) for result in results]
