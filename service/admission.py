"""How much work a worker accepts: bounds on bytes, requests and pixels, never an endless queue."""

import asyncio
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from service import metrics
from service.errors import DrainingError, ImageTooLargeError, QueueFullError


@dataclass
class Place:
    """One request in the house, and the pixels of its images."""

    pixels: int = 0


class Buffer:
    """What one client's bytes take of the bytes of an `Admission`."""

    def __init__(self, admission: "Admission") -> None:
        self._admission = admission
        self.size = 0

    def grow(self, size: int) -> None:
        """Take room for `size` more bytes, before they are kept.

        Raises:
            QueueFullError: the bytes of other clients leave no room.
        """
        self._admission.check_bytes(self.size, size)
        self.add(size)

    def add(self, size: int) -> None:
        """Count `size` bytes that are here already; a negative size lets go of them."""
        self.size += size
        self._admission.count_bytes(size)


class Admission:
    """Counts what is in the house. A single image is always admitted to an empty house.

    Bytes count from their arrival to the last byte of the answer. A place is taken only when there
    is something to compute, so a client that sends slowly holds what it has sent and no place.
    """

    def __init__(self, max_bytes: int, max_requests: int, max_pixels: int, max_wait_s: float) -> None:
        self._max_bytes = max_bytes
        self._max_requests = max_requests
        self._max_pixels = max_pixels
        self._max_wait_s = max_wait_s
        self._bytes = 0
        self._requests = 0
        self._streams = 0
        self._pixels = 0
        self._sending = 0
        self._empty, self._taken = asyncio.Event(), asyncio.Event()
        self._empty.set()
        self.open = True

    async def wait_until_empty(self, lasting_s: float) -> None:
        """Returns when for so long no request has held a place and no answer was on its way.

        A moment is not enough: an answer begins a little after its request has left.
        """
        while True:
            await self._empty.wait()
            try:
                async with asyncio.timeout(lasting_s):
                    await self._taken.wait()
            except TimeoutError:
                return

    @contextmanager
    def body(self) -> Iterator[Buffer]:
        """Account for the bytes of one body until the request is done.

        Raises:
            QueueFullError: all places are taken, so there is no use in reading it.
        """
        self._check_places()
        with self._buffer() as buffer:
            yield buffer

    @contextmanager
    def stream(self) -> Iterator[Buffer]:
        """Account for the frames and answers of a stream that wait; their number is bounded by its window.

        Raises:
            QueueFullError: as many streams are open as there are places, though open ones take none.
        """
        if self._streams >= self._max_requests:
            raise QueueFullError(f"{self._streams} streams are open already; try again")
        self._streams += 1
        try:
            with self._buffer() as buffer:
                yield buffer
        finally:
            self._streams -= 1

    @contextmanager
    def answer(self, size: int) -> Iterator[None]:
        """Account for an answer of `size` bytes until its client has taken it."""
        self._sending += 1
        self._tell()
        try:
            with self._buffer() as buffer:
                buffer.add(size)
                yield
        finally:
            self._sending -= 1
            self._tell()

    @contextmanager
    def request(self) -> Iterator[Place]:
        """Hold a place for one request.

        Raises:
            QueueFullError: all places are taken.
            DrainingError: the service is shutting down. Said only now, when the body has been read:
                a connection closed with bytes unread is reset, and the answer lost with it.
        """
        if not self.open:
            raise DrainingError
        self._check_places()
        self._requests += 1
        self._tell()
        try:
            yield Place()
        finally:
            self._requests -= 1
            self._tell()

    @contextmanager
    def pixels(self, place: Place, count: int, pixels_per_s: float) -> Iterator[None]:
        """Hold memory for one image of `count` pixels of the request at `place`.

        Args:
            pixels_per_s: what is got through at present; 0 where that is not known yet.

        Raises:
            ImageTooLargeError: with the request's other images there would never be room.
            QueueFullError: the pixels of other requests leave no room, or would take so long that
                it is better to say so now than to answer late.
        """
        if place.pixels and place.pixels + count > self._max_pixels:
            raise ImageTooLargeError(
                f"The images of a request have at most {self._max_pixels} pixels together; send fewer in each"
            )
        others = self._pixels - place.pixels
        wait_s = others / pixels_per_s if pixels_per_s else 0.0
        if others and (self._pixels + count > self._max_pixels or wait_s > self._max_wait_s):
            raise QueueFullError(retry_after_s=max(1, math.ceil(wait_s - self._max_wait_s)))
        self._pixels += count
        place.pixels += count
        self._tell()
        try:
            yield
        finally:
            self._pixels -= count
            place.pixels -= count
            self._tell()

    def check_bytes(self, own: int, size: int) -> None:
        """Raises QueueFullError where `size` more bytes do not fit beside what others than `own` hold."""
        if self._bytes > own and self._bytes + size > self._max_bytes:
            raise QueueFullError

    def count_bytes(self, size: int) -> None:
        """Add to the bytes that are held."""
        self._bytes += size

    @contextmanager
    def _buffer(self) -> Iterator[Buffer]:
        buffer = Buffer(self)
        try:
            yield buffer
        finally:
            buffer.add(-buffer.size)

    def _check_places(self) -> None:
        if self._requests >= self._max_requests:
            raise QueueFullError

    def _tell(self) -> None:
        if self._requests or self._sending:
            self._empty.clear()
            self._taken.set()
        else:
            self._empty.set()
            self._taken.clear()
        metrics.PENDING_REQUESTS.set(self._requests)
        metrics.PENDING_PIXELS.set(self._pixels)
