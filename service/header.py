"""What a file is and how large, by its first bytes: formats are allow-listed, sizes checked before pixels."""

import io
import struct
import warnings
from dataclasses import dataclass

from PIL import Image
from PIL.TiffImagePlugin import (
    BITSPERSAMPLE,
    COMPRESSION,
    PLANAR_CONFIGURATION,
    TILELENGTH,
    TILEWIDTH,
    TiffImageFile,
)

from service.errors import BadImageError, FormatNotAllowedError, ImageTooLargeError
from service.settings import ImageFormat
from service.slow_files import refuse_slow_files

# The limits of `Limits` replace Pillow's own, which would only warn for some sizes.
Image.MAX_IMAGE_PIXELS = None
# A broken file is answered to its sender; strangers must not be able to fill our log.
warnings.filterwarnings("ignore", module=r"PIL\.")

_LARGEST_SPARE_TILE = 2**20
_NEW_SUBFILE_TYPE, _REDUCED, _DNG_VERSION = 254, 1, 50706


@dataclass(frozen=True)
class Limits:
    """What `inspect` lets through."""

    formats: frozenset[ImageFormat]
    max_pixels: int
    max_side: int

    def check(self, width: int, height: int) -> None:
        """Raises ImageTooLargeError where there are too many pixels or a side is too long."""
        if max(width, height) > self.max_side or width * height > self.max_pixels:
            raise ImageTooLargeError(
                f"{width}x{height} is over the limit of {self.max_side} pixels a side"
                f" and {self.max_pixels} in all; make it smaller or cut it"
            )


@dataclass(frozen=True)
class Header:
    """What the first bytes of a file say."""

    format: ImageFormat
    width: int
    height: int

    @property
    def pixels(self) -> int:
        return self.width * self.height


def sniff(data: bytes) -> ImageFormat | None:
    """The format by magic bytes, or None; a file's name or media type is never trusted."""
    if data.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "webp"
    if data.startswith(b"BM"):
        return "bmp"
    if data.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return "tiff"
    return None


def _is_other_format(data: bytes) -> bool:
    """Images that we know by sight and do not take: GIF, HEIF and AVIF, JPEG 2000, JPEG XL, PSD, ICO, SVG."""
    return data.startswith(
        (
            b"GIF8",
            b"\0\0\0\x0cjP  ",
            b"\xff\x4f\xff\x51",
            b"\0\0\0\x0cJXL ",
            b"\xff\x0a",
            b"8BPS",
            b"\0\0\1\0",
        )
    ) or (data[4:8] == b"ftyp" or b"<svg" in data[:256])


def inspect(data: bytes, limits: Limits) -> Header:
    """Check format and size by the file's header, before any pixel is decoded.

    Raises:
        BadImageError: empty, no header can be read, or built to be slow to decode.
        FormatNotAllowedError: another format, or one that is switched off.
        ImageTooLargeError: too many pixels or too long a side.
    """
    if not data:
        raise BadImageError("The body is empty; send the bytes of an image file")
    found = sniff(data)
    allowed = ", ".join(sorted(limits.formats))
    if found is None and not _is_other_format(data):
        raise BadImageError(f"Not an image by its first bytes; send one of {allowed}")
    if found is None or found not in limits.formats:
        raise FormatNotAllowedError(f"Not one of {allowed} by its first bytes; convert it")
    refuse_slow_files(data, found)
    width, height = _webp_size(data) if found == "webp" else _pillow_size(data, found)
    header = Header(found, width, height)
    if width < 1 or height < 1:
        raise BadImageError(f"The {found} header says {width}x{height} pixels; the file is corrupt")
    limits.check(width, height)
    return header


class BlamingTheFile:
    """Decoders raise whatever they like on a broken file; all of it is the file's fault."""

    def __init__(self, format: ImageFormat) -> None:
        self.format = format

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, BadImageError):
            raise BadImageError(f"The {self.format} file is corrupt, truncated or unsupported") from error


def _pillow_size(data: bytes, format: ImageFormat) -> tuple[int, int]:
    with BlamingTheFile(format), Image.open(io.BytesIO(data), formats=[format]) as image:
        if isinstance(image, TiffImageFile):
            if _DNG_VERSION in image.tag_v2 or image.tag_v2.get(_NEW_SUBFILE_TYPE, 0) & _REDUCED:
                raise BadImageError(
                    "The tiff begins with a preview, as a camera's raw files do; develop it, or save the"
                    " whole picture first"
                )
            in_planes = image.tag_v2.get(PLANAR_CONFIGURATION) == 2
            if in_planes and 16 in image.tag_v2.get(BITSPERSAMPLE, ()) and image.tag_v2.get(COMPRESSION) == 1:
                raise BadImageError(  # Pillow would read them as if they had 8
                    "The tiff has colours in separate planes of 16 bits; save them together, or compressed"
                )
            tile = image.tag_v2.get(TILEWIDTH, 0) * image.tag_v2.get(TILELENGTH, 0)
            if tile > max(_LARGEST_SPARE_TILE, image.width * image.height):
                raise BadImageError("The tiff's tiles are larger than its picture; save it again")
        return image.size


def _webp_size(data: bytes) -> tuple[int, int]:
    """Canvas size (RFC 9649, section 2); Pillow would allocate the whole canvas to tell."""
    with BlamingTheFile("webp"):
        chunk = data[12:16]
        if chunk == b"VP8X":
            low_w, high_w, low_h, high_h = struct.unpack("<HBHB", data[24:30])
            return low_w + (high_w << 16) + 1, low_h + (high_h << 16) + 1
        if chunk == b"VP8L":
            (bits,) = struct.unpack("<I", data[21:25])
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        if chunk == b"VP8 ":
            width, height = struct.unpack("<HH", data[26:30])
            return width & 0x3FFF, height & 0x3FFF
        raise BadImageError("The webp file has no picture in it")
