"""Files of a few bytes that cost a decoder minutes."""

import re
from collections.abc import Iterator

from service.errors import BadImageError
from service.settings import ImageFormat

# Where a decoder leaves entropy-coded data: not at a stuffed 0, a reserved code, a restart or a fill byte.
_MARKER = re.compile(rb"\xff[^\0-\xbf\xd0-\xd7\xff]")
_START_OF_IMAGE, _END_OF_IMAGE, _START_OF_SCAN = 0xD8, 0xD9, 0xDA
_MOST_SCANS = 100  # a progressive file has about ten; each scan goes over all pixels
_MOST_SEGMENTS = 10_000  # of up to 64 kB; Pillow reads them one by one in Python
_RUN_LENGTH_CODED = (1, 2)  # decoded in Python, byte by byte, with the interpreter locked


def refuse_slow_files(data: bytes, format: ImageFormat) -> None:
    """Raises BadImageError for what no camera writes."""
    if format == "jpeg":
        _refuse_slow_jpeg(data)
    if format == "bmp" and len(data) > 34 and data[30] in _RUN_LENGTH_CODED:
        raise BadImageError("Run-length coded bmp is not read; save it uncompressed, or as png")


def _refuse_slow_jpeg(data: bytes) -> None:
    """Counts what libjpeg would decode, up to the end of the picture: phones append a film to theirs.

    An end before any scan is that of a file of tables only, after which Pillow looks for the next picture.
    """
    scans = 0
    for segments, marker in enumerate(_markers(data)):
        if marker == _END_OF_IMAGE and scans:
            return
        scans += marker == _START_OF_SCAN
        if scans > _MOST_SCANS:
            raise BadImageError(f"The jpeg has over {_MOST_SCANS} scans; save it again")
        if segments > _MOST_SEGMENTS:
            raise BadImageError(f"The jpeg has over {_MOST_SEGMENTS} segments; save it again")


def _markers(data: bytes) -> Iterator[int]:
    """The markers of a JPEG (ITU-T T.81, B.1.1), past whatever is between them, as libjpeg looks for them.

    What is inside a segment is not seen; a length below two, which counts itself, is two to libjpeg.
    """
    here = 0
    while found := _MARKER.search(data, here):
        here = found.end()
        marker = data[here - 1]
        yield marker
        if marker not in (_START_OF_IMAGE, _END_OF_IMAGE):
            here += max(2, int.from_bytes(data[here : here + 2]))
