"""Reads the image out of an HTTP request, raw or multipart, within a bound on its bytes."""

import sys
from collections.abc import AsyncGenerator

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from service.errors import BadParameterError, BodyTooLargeError, ClientGoneError

FIELD = "image"


async def read_image(request: Request, max_bytes: int) -> bytes:
    """The bytes of the raw body, or of the multipart file field `image`.

    Raises:
        BodyTooLargeError: as soon as the declared or received size is over `max_bytes`.
        BadParameterError: multipart without that one field, or broken.
        ClientGoneError: the client hung up while sending.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > max_bytes:
        raise _too_large(max_bytes)
    stream = _bounded(request, max_bytes)
    try:
        if request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
            return await _read_field(request, stream)
        return b"".join([chunk async for chunk in stream])
    except ClientDisconnect:
        raise ClientGoneError from None


async def _bounded(request: Request, max_bytes: int) -> AsyncGenerator[bytes, None]:
    received = 0
    async for chunk in request.stream():
        received += len(chunk)
        if received > max_bytes:
            raise _too_large(max_bytes)
        yield chunk


def _too_large(max_bytes: int) -> BodyTooLargeError:
    return BodyTooLargeError(f"The body is over {max_bytes} bytes; send a smaller file")


class _InMemory(MultiPartParser):
    """The body is bounded already, so nothing needs to be spooled to a disk that may be read-only."""

    spool_max_size = sys.maxsize


async def _read_field(request: Request, stream: AsyncGenerator[bytes, None]) -> bytes:
    try:
        form = await _InMemory(request.headers, stream, max_files=1, max_fields=8).parse()
    except (MultiPartException, KeyError) as error:
        raise BadParameterError(f"The multipart body cannot be read: {error}") from None
    strangers = [name for name, _ in form.multi_items() if name != FIELD]
    if strangers:
        raise BadParameterError(f"Form field {strangers[0]!r} is unknown; parameters go into the query")
    file = form.get(FIELD)
    if not isinstance(file, UploadFile):
        raise BadParameterError(f"Send the image as the file field {FIELD!r}: curl -F {FIELD}=@photo.jpg")
    return await file.read()
