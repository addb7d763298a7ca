"""How much work a worker accepts: a bound on requests and on pixels, never an endless queue."""

from collections.abc import Iterator
from contextlib import contextmanager

from service import metrics
from service.errors import DrainingError, QueueFullError


class Admission:
    """Counts what is in the house. A single image is always admitted to an empty house."""

    def __init__(self, max_requests: int, max_pixels: int) -> None:
        self._max_requests = max_requests
        self._max_pixels = max_pixels
        self._requests = 0
        self._pixels = 0
        self.open = True

    @contextmanager
    def request(self) -> Iterator[None]:
        """Hold a place for one request.

        Raises:
            QueueFullError: all places are taken.
            DrainingError: the service is shutting down.
        """
        if not self.open:
            raise DrainingError
        if self._requests >= self._max_requests:
            raise QueueFullError
        self._count(1, 0)
        try:
            yield
        finally:
            self._count(-1, 0)

    @contextmanager
    def pixels(self, count: int) -> Iterator[None]:
        """Hold memory for one image of `count` pixels.

        Raises:
            QueueFullError: the pixels of earlier requests leave no room.
        """
        if self._pixels and self._pixels + count > self._max_pixels:
            raise QueueFullError
        self._count(0, count)
        try:
            yield
        finally:
            self._count(0, -count)

    def _count(self, requests: int, pixels: int) -> None:
        self._requests += requests
        self._pixels += pixels
        metrics.PENDING_REQUESTS.set(self._requests)
        metrics.PENDING_PIXELS.set(self._pixels)
