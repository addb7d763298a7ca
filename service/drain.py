"""SIGTERM: readiness goes first, then new work, then this process, when what it accepted is done."""

import asyncio
import logging
import signal
from types import FrameType

import grpc

from service.pipeline import Pipeline

log = logging.getLogger(__name__)
_LINGER_S = 0.2  # who got the last answer may come again, and should hear no rather than nothing


class Drain:
    """Stands before the SIGTERM handler of the HTTP server, which would close the doors at once.

    From the signal on readiness says no and new work is refused, over connections that still work; those of
    gRPC are told to go (GOAWAY) when their calls are done, so that clients take the next replica.
    The server gets the signal when the house is empty, or when `grace_s` is over.
    """

    def __init__(self, pipeline: Pipeline, grpc_server: grpc.aio.Server | None) -> None:
        self._pipeline = pipeline
        self._grpc = grpc_server
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None
        self._server_handler = signal.signal(signal.SIGTERM, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._pipeline.admission.open = False
        self._loop.call_soon_threadsafe(self._start)

    def _start(self) -> None:
        if not self._task:
            self._task = self._loop.create_task(self._drain())
            if self._grpc:
                self._going = self._loop.create_task(self._grpc.stop(self._pipeline.settings.grace_s))

    async def _drain(self) -> None:
        admission, settings = self._pipeline.admission, self._pipeline.settings
        try:
            async with asyncio.timeout(settings.grace_s):
                await asyncio.sleep(settings.drain_delay_s)
                await admission.wait_until_empty(_LINGER_S)
        except TimeoutError:
            log.warning("the grace of %g s is over; accepted work is lost", settings.grace_s)
        if callable(self._server_handler):
            self._server_handler(signal.SIGTERM, None)
