"""Files of a few bytes that cost a decoder minutes."""

import re
import struct
from collections.abc import Iterator
from typing import Literal

from service.errors import BadImageError
from service.settings import ImageFormat

# Where a decoder leaves entropy-coded data: not at a stuffed 0, a reserved code, a restart or a fill byte.
_MARKER = re.compile(rb"\xff[^\0-\xbf\xd0-\xd7\xff]")
_END_OF_IMAGE, _START_OF_SCAN, _APP1 = 0xD9, 0xDA, 0xE1
# Without a length behind them: start and end of an image, and what Pillow passes over and libjpeg refuses.
_BARE = frozenset({0xC8, 0xD8, _END_OF_IMAGE, *range(0xF0, 0xFE)})
_FRAMES_AND_TABLES = frozenset({0xDB, 0xDE, *range(0xC0, 0xD0)})
_MOST_WALKED = 2**16  # bytes; a file has about a thousand, Pillow goes over each in Python
_MOST_SCANS = 100  # a progressive file has about ten; each scan goes over all pixels
_MOST_SEGMENTS = 10_000  # of up to 64 kB; Pillow reads them one by one in Python
_MOST_EXIF_SEGMENTS = 4  # of 64 kB; there is one as a rule, and Pillow joins them and reads numbers
_CHUNK = struct.Struct(">I4s")
_IS_KIND = re.compile(rb"\w{4}").match
_SMALL_CHUNK = 2**10  # bytes; encoders cut pixels into 8 kB or more
_MOST_SMALL_CHUNKS = 10_000  # Pillow reads them one by one in Python
_INFLATED = (b"iCCP", b"zTXt", b"iTXt")
_MOST_INFLATED = 100  # of a kilobyte each, from which Pillow makes a megabyte, in 2 ms
_OS2_HEADER = b"\x0c\0\0\0"  # the size of the BMP header that has no field for the compression
_RUN_LENGTH_CODED = (1, 2)  # decoded in Python, byte by byte, with the interpreter locked
_BIGTIFF = 43
_STRIP_OFFSETS, _TILE_OFFSETS = 273, 324
_MOST_TILES = 100_000  # strips of one row, 16384 rows and 4 planes make 65 536; each is a Python object
_MOST_TAGS = 10_000  # a directory has some dozens; Pillow reads them one by one in Python
_MOST_NUMBERS = 500_000  # 0.1 s; a curve of 16 bits for each colour has 196 608
# How many a value counts as, by its kind: fractions, 5 and 10, are objects; bytes and texts are one piece.
_WEIGHTS = {3: 1, 4: 1, 5: 50, 6: 1, 8: 1, 9: 1, 10: 50, 11: 1, 12: 1, 13: 1, 16: 1}


def refuse_slow_files(data: bytes, format: ImageFormat) -> None:
    """Raises BadImageError for what no camera writes."""
    if format == "jpeg":
        _refuse_slow_jpeg(data)
    if format == "png":
        _refuse_slow_png(data)
    if format == "bmp":
        _refuse_slow_bmp(data)
    if format == "tiff":
        _refuse_slow_tiff(data)


def _refuse_slow_jpeg(data: bytes) -> None:
    """Counts what libjpeg would decode, up to the end of the picture: phones append a film to theirs.

    An end before any scan is that of a file of tables only, after which Pillow looks for the next picture.
    Pillow walks to the first scan, past whatever is in between, and takes frames and tables apart.
    """
    scans = exifs = walked = 0
    for segments, (marker, skipped, place) in enumerate(_markers(data)):
        if marker == _END_OF_IMAGE and scans:
            return
        if not scans:
            walked += skipped + (_length(data, place) if marker in _FRAMES_AND_TABLES else 0)
        if walked > _MOST_WALKED:
            raise BadImageError("The jpeg has over 64 kB of fill and tables before its pixels; save it again")
        scans += marker == _START_OF_SCAN
        if scans > _MOST_SCANS:
            raise BadImageError(f"The jpeg has over {_MOST_SCANS} scans; save it again")
        if segments > _MOST_SEGMENTS:
            raise BadImageError(f"The jpeg has over {_MOST_SEGMENTS} segments; save it again")
        exifs += marker == _APP1 and data.startswith(b"Exif\0\0", place + 2)
        if exifs > _MOST_EXIF_SEGMENTS:
            raise BadImageError("The jpeg has over 256 kB of EXIF; save it without")


def _markers(data: bytes) -> Iterator[tuple[int, int, int]]:
    """The markers of a JPEG (ITU-T T.81, B.1.1), past whatever is between them, as libjpeg looks for them.

    Each comes with the bytes skipped before it and the place behind it; the end of the data is one of an
    image. What is inside a segment is not seen.
    """
    here = 0
    while found := _MARKER.search(data, here):
        skipped, here = found.start() - here, found.end()
        marker = data[here - 1]
        yield marker, skipped, here
        here += _length(data, here) if marker not in _BARE else 0
    yield _END_OF_IMAGE, len(data) - here, len(data)


def _length(data: bytes, place: int) -> int:
    """Of a JPEG's segment; below two, which counts itself, it is two to libjpeg."""
    return max(2, int.from_bytes(data[place : place + 2]))


def _refuse_slow_png(data: bytes) -> None:
    """Counts what Pillow reads piece by piece, before the pixels and behind them, and what it inflates."""
    small = inflated = 0
    for kind, length in _chunks(data):
        small += length < _SMALL_CHUNK
        if small > _MOST_SMALL_CHUNKS:
            raise BadImageError(f"The png has over {_MOST_SMALL_CHUNKS} small chunks; save it again")
        inflated += kind in _INFLATED
        if inflated > _MOST_INFLATED:
            raise BadImageError(f"The png has over {_MOST_INFLATED} profiles and texts; save it without")


def _chunks(data: bytes) -> Iterator[tuple[bytes, int]]:
    """Kind and length of each chunk of a PNG (RFC 2083, 3.2), up to where Pillow stops: IEND, or no kind."""
    here = 8
    while here + _CHUNK.size <= len(data):
        length, kind = _CHUNK.unpack_from(data, here)
        if kind == b"IEND" or not _IS_KIND(kind):
            return
        yield kind, length
        here += 12 + length


def _refuse_slow_bmp(data: bytes) -> None:
    if data[14:18] != _OS2_HEADER and len(data) > 34 and data[30] in _RUN_LENGTH_CODED:
        raise BadImageError("Run-length coded bmp is not read; save it uncompressed, or as png")


def _refuse_slow_tiff(data: bytes) -> None:
    """Counts what Pillow makes a tile of: each offset that the file lists, however small the picture is.

    And what it makes a number of; not in the directories of EXIF and GPS, which codec.py passes over.
    """
    numbers = 0
    for place, (tag, kind, count) in enumerate(_tags(data)):
        if tag in (_STRIP_OFFSETS, _TILE_OFFSETS) and count > _MOST_TILES:
            raise BadImageError(f"The tiff has over {_MOST_TILES} strips or tiles; save it with larger ones")
        if place >= _MOST_TAGS:
            raise BadImageError(f"The tiff has over {_MOST_TAGS} tags; save it again")
        numbers += count * _WEIGHTS.get(kind, 0)
        if numbers > _MOST_NUMBERS:
            raise BadImageError("The tiff has too many numbers in its tags; save it without metadata")


def _tags(data: bytes) -> Iterator[tuple[int, int, int]]:
    """The tags of a TIFF's first directory (TIFF 6.0, section 2; BigTIFF): tag, kind and count of the values.

    It looks where Pillow looks: to the end of a file that is cut off, and for a big-endian BigTIFF, which
    Pillow takes for a plain TIFF and so cannot read, at the place that it goes by.
    """
    order: Literal["little", "big"] = "little" if data.startswith(b"II") else "big"
    width, fields, counter = (8, "HHQ8x", 8) if data[2] == _BIGTIFF else (4, "HHL4x", 2)
    entry = struct.Struct(("<" if order == "little" else ">") + fields)
    directory = int.from_bytes(data[width : 2 * width], order)
    first = directory + counter
    length = int.from_bytes(data[directory:first], order) * entry.size
    table = data[first : first + length]
    yield from entry.iter_unpack(table[: len(table) // entry.size * entry.size])
