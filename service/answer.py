"""What both HTTP interfaces answer with: the pipeline, and bytes sent no faster than the client reads."""

import asyncio
import logging
from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service.errors import DrainingError
from service.pipeline import Pipeline

NOISE_HEADER = "X-Noise-Sigma"
log = logging.getLogger(__name__)
# Each send waits while more than about this is unsent, so this is what a client that does not read costs.
_CHUNK = 64 * 2**10


class Answer(Response):
    """The bytes of an image; a client that has not taken them within `timeout_s` is cut off."""

    def __init__(
        self, content: bytes, media_type: str, headers: Mapping[str, str], pipeline: Pipeline
    ) -> None:
        super().__init__(content, media_type=media_type, headers=headers)
        self._admission = pipeline.admission
        self._timeout_s = pipeline.settings.timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = memoryview(self.body)
        with self._admission.answer(len(body)):
            try:
                async with asyncio.timeout(self._timeout_s):
                    await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                    for start in range(0, len(body), _CHUNK):
                        chunk = bytes(body[start : start + _CHUNK])
                        await send({"type": "http.response.body", "body": chunk, "more_body": True})
                    await send({"type": "http.response.body", "body": b""})
            except TimeoutError:
                log.info("an answer was not read within %g s; the connection is closed", self._timeout_s)


def pipeline_of(request: Request) -> Pipeline:
    """Raises DrainingError while there is none yet."""
    pipeline: Pipeline | None = request.app.state.pipeline
    if pipeline is None:
        raise DrainingError
    return pipeline
