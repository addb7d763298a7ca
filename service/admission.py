"""How much work a worker accepts: bounds on bytes, requests and pixels, never an endless queue."""

import asyncio
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from service import metrics
from service.errors import DrainingError, QueueFullError


@dataclass
class Buffer:
    """What one request body takes of the bytes of its `Admission`."""

    admission: "Admission"
    size: int = 0

    def grow(self, size: int) -> None:
        """Take room for `size` more bytes, before they are kept.

        Raises:
            QueueFullError: the bodies of other requests leave no room.
        """
        self.admission.take_bytes(size)
        self.size += size


class Admission:
    """Counts what is in the house. A single image is always admitted to an empty house.

    A body takes its bytes while it arrives and no place: clients that send slowly, or stop, hold
    what they have sent and keep nobody out. A place is taken when there is something to compute.
    """

    def __init__(self, max_bytes: int, max_requests: int, max_pixels: int, max_wait_s: float) -> None:
        self._max_bytes = max_bytes
        self._max_requests = max_requests
        self._max_pixels = max_pixels
        self._max_wait_s = max_wait_s
        self._bytes = 0
        self._requests = 0
        self._pixels = 0
        self._empty = asyncio.Event()
        self._empty.set()
        self.open = True

    async def wait_until_empty(self) -> None:
        """Returns when no request holds a place."""
        await self._empty.wait()

    @contextmanager
    def body(self) -> Iterator[Buffer]:
        """Account for the bytes of one body until the request is done.

        Raises:
            QueueFullError: all places are taken, so there is no use in reading it.
        """
        self._check_places()
        buffer = Buffer(self)
        try:
            yield buffer
        finally:
            self._bytes -= buffer.size

    def take_bytes(self, size: int) -> None:
        """Raises QueueFullError where `size` more bytes do not fit."""
        if self._bytes and self._bytes + size > self._max_bytes:
            raise QueueFullError
        self._bytes += size

    @contextmanager
    def request(self) -> Iterator[None]:
        """Hold a place for one request.

        Raises:
            QueueFullError: all places are taken.
            DrainingError: the service is shutting down. Said only now, when the body has been read:
                a connection closed with bytes unread is reset, and the answer lost with it.
        """
        if not self.open:
            raise DrainingError
        self._check_places()
        self._count(1, 0)
        try:
            yield
        finally:
            self._count(-1, 0)

    @contextmanager
    def pixels(self, count: int, pixels_per_s: float) -> Iterator[None]:
        """Hold memory for one image of `count` pixels.

        Args:
            pixels_per_s: what is got through at present; 0 where that is not known yet.

        Raises:
            QueueFullError: the pixels of earlier requests leave no room, or would take so long that
                it is better to say so now than to answer late.
        """
        wait_s = self._pixels / pixels_per_s if pixels_per_s else 0.0
        if self._pixels and (self._pixels + count > self._max_pixels or wait_s > self._max_wait_s):
            raise QueueFullError(retry_after_s=max(1, math.ceil(wait_s - self._max_wait_s)))
        self._count(0, count)
        try:
            yield
        finally:
            self._count(0, -count)

    def _check_places(self) -> None:
        if self._requests >= self._max_requests:
            raise QueueFullError

    def _count(self, requests: int, pixels: int) -> None:
        self._requests += requests
        self._pixels += pixels
        if self._requests:
            self._empty.clear()
        else:
            self._empty.set()
        metrics.PENDING_REQUESTS.set(self._requests)
        metrics.PENDING_PIXELS.set(self._pixels)
