"""Reads the body of an HTTP request within bounds of bytes and time, and watches its sender."""

import asyncio
import math
import sys
from collections.abc import AsyncGenerator, Coroutine
from typing import Any, TypeVar

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from service.admission import Buffer
from service.errors import (
    BadParameterError,
    BodyTooLargeError,
    ClientGoneError,
    DeadlineError,
    FormatNotAllowedError,
)
from service.settings import Settings

T = TypeVar("T")

FIELD = "image"
TIMEOUT_HEADER = "x-request-timeout"
_PATIENCE_S = 10  # between two pieces of a body: who stops sending does not hold its bytes for longer


async def read_image(request: Request, settings: Settings, buffer: Buffer) -> bytes:
    """The bytes of the raw body, or of the multipart file field `image`.

    Raises:
        BadParameterError: multipart without that one field, or broken.
        ServiceError: as `read_body`.
    """
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        return await read_body(request, settings, buffer)
    return await _in_time(_read_field(request, _bounded(request, settings, buffer)), settings)


async def read_body(request: Request, settings: Settings, buffer: Buffer) -> bytes:
    """The bytes of the body.

    Raises:
        FormatNotAllowedError: it is compressed as a whole.
        BodyTooLargeError: as soon as the declared or received size is over `max_body_bytes`.
        QueueFullError: the bodies that others send leave no room for this one.
        DeadlineError: it did not arrive within `timeout_s`.
        ClientGoneError: the client hung up while sending.
    """
    return await _in_time(_read_all(_bounded(request, settings, buffer)), settings)


def client_timeout(request: Request) -> float | None:
    """Seconds the client gives us by the header X-Request-Timeout, if it does.

    Raises:
        BadParameterError: not a number above 0.
    """
    text = request.headers.get(TIMEOUT_HEADER)
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise BadParameterError(f"{TIMEOUT_HEADER} is in seconds, above 0, not {text[:50]!r}")
    return seconds


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Await `work`; cancel it when the client hangs up, as nobody will read the result."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGoneError
        return task.result()
    finally:
        task.cancel()
        gone.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _in_time(reading: Coroutine[Any, Any, bytes], settings: Settings) -> bytes:
    try:
        async with asyncio.timeout(settings.timeout_s):
            return await reading
    except TimeoutError:
        limit = f"{settings.timeout_s:g} s, and without a pause of {_PATIENCE_S} s"
        raise DeadlineError(f"The body did not arrive within {limit}") from None
    except ClientDisconnect:
        raise ClientGoneError from None


async def _read_all(stream: AsyncGenerator[bytes, None]) -> bytes:
    return b"".join([chunk async for chunk in stream])


async def _bounded(request: Request, settings: Settings, buffer: Buffer) -> AsyncGenerator[bytes, None]:
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise FormatNotAllowedError("Compressed bodies are not read; images are compressed already")
    limit = settings.max_body_bytes
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise _too_large(limit)
    received = 0
    stream = request.stream()
    while True:
        async with asyncio.timeout(_PATIENCE_S):
            chunk = await anext(stream, None)
        if chunk is None:
            return
        received += len(chunk)
        if received > limit:
            raise _too_large(limit)
        buffer.grow(len(chunk))
        yield chunk


def _too_large(limit: int) -> BodyTooLargeError:
    return BodyTooLargeError(f"The body is over {limit} bytes; send a smaller file")


class _InMemory(MultiPartParser):
    """The body is bounded already, so nothing needs to be spooled to a disk that may be read-only."""

    spool_max_size = sys.maxsize


async def _read_field(request: Request, stream: AsyncGenerator[bytes, None]) -> bytes:
    try:
        form = await _InMemory(request.headers, stream, max_files=1, max_fields=8).parse()
    except (MultiPartException, KeyError, LookupError, ValueError) as error:  # ValueError: a charset's
        raise BadParameterError(f"The multipart body cannot be read: {error}") from None
    strangers = [name for name, _ in form.multi_items() if name != FIELD]
    if strangers:
        raise BadParameterError(f"Form field {strangers[0]!r} is unknown; parameters go into the query")
    file = form.get(FIELD)
    if not isinstance(file, UploadFile):
        raise BadParameterError(f"Send the image as the file field {FIELD!r}: curl -F {FIELD}=@photo.jpg")
    return await file.read()
