"""Bytes to pixels and back: allow-list by magic bytes, sizes checked before pixels are decoded.

What happens to each kind of image:
orientation (EXIF) is applied, then all metadata is dropped; colours and grays with an ICC profile and CMYK
become sRGB; 16-bit gray becomes 8-bit; palettes become colours; alpha is kept where the output
format can hold it and else flattened on white; of a multi-page TIFF or MPO the first picture is
taken; an animation is an error, as a still would not be what its sender expects.
"""

import io
import struct
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms, ImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import (
    BITSPERSAMPLE,
    PHOTOMETRIC_INTERPRETATION,
    TILELENGTH,
    TILEWIDTH,
    TiffImageFile,
)

from service import exif
from service.errors import BadImageError, BadParameterError, FormatNotAllowedError, ImageTooLargeError
from service.settings import ImageFormat
from service.slow_files import refuse_slow_files

Pixels = npt.NDArray[np.uint8]

# The limits of `Limits` replace Pillow's own, which would only warn for some sizes.
Image.MAX_IMAGE_PIXELS = None
# A broken file is answered to its sender; strangers must not be able to fill our log.
warnings.filterwarnings("ignore", module=r"PIL\.")

MEDIA_TYPES: dict[ImageFormat, str] = {
    "jpeg": "image/jpeg",
    "png": "image/png",
    "webp": "image/webp",
    "bmp": "image/bmp",
    "tiff": "image/tiff",
}
_HOLDS_ALPHA: frozenset[ImageFormat] = frozenset({"png", "webp", "tiff"})
_LONGEST_SIDE: dict[ImageFormat, int] = {"jpeg": 65500, "webp": 16383}
_LARGEST_SPARE_TILE = 2**20
_SRGB = ImageCms.createProfile("sRGB")
_WHITE = 255
_WHITE_IS_ZERO = 0


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


@dataclass(frozen=True)
class Picture:
    """A decoded image: uint8 `[H, W, C]`, C = 3 (sRGB) or 1 (gray), and uint8 alpha `[H, W]`."""

    pixels: Pixels
    alpha: Pixels | None = None


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


def decode(data: bytes, header: Header) -> Picture:
    """Decode a file that `inspect` has let through.

    Raises:
        BadImageError: corrupt, truncated, animated, or of a kind that has no 8-bit meaning.
    """
    with _BlamingTheFile(header.format), Image.open(io.BytesIO(data), formats=[header.format]) as image:
        if getattr(image, "is_animated", False) and header.format in ("png", "webp"):
            raise BadImageError("The image is animated; send its frames one by one")
        if image.size != (header.width, header.height):
            raise BadImageError(f"The {header.format} file contradicts itself about its size")
        exif.pass_over_what_is_slow(image)
        _load(image)
        exif.set_upright(image)
        return _to_picture(image)


def _load(image: ImageFile.ImageFile) -> None:
    """Read pixels, and the transparent colour of a PNG with them.

    Pillow reduces or expands the levels of pixels to eight bits and leaves that colour as the file has it.
    """
    layout = image.tile[0].args if isinstance(image, PngImageFile) else None
    image.load()
    key = image.info.get("transparency")
    if key is None:
        return
    match layout:
        case "RGB;16B":
            image.info["transparency"] = tuple(level >> 8 for level in key)
        case "L;2":
            image.info["transparency"] = (key & 3) * 85
        case "L;4":
            image.info["transparency"] = (key & 15) * 17


def encode(picture: Picture, format: ImageFormat, quality: int) -> bytes:
    """Encode; `quality` 1..100 applies to JPEG and WebP.

    Raises:
        BadParameterError: the format cannot hold an image of this size.
    """
    longest = max(picture.pixels.shape[:2])
    if longest > _LONGEST_SIDE.get(format, longest):
        raise BadParameterError(f"{format} holds at most {_LONGEST_SIDE[format]} pixels a side; ask for png")
    file = io.BytesIO()
    _to_image(picture, format in _HOLDS_ALPHA).save(file, format, **_save_options(format, quality))
    return file.getvalue()


def _save_options(format: ImageFormat, quality: int) -> dict[str, Any]:
    match format:
        case "jpeg":
            return {"quality": quality}
        case "webp":
            return {"quality": quality, "method": 2}
        case "png":
            return {"compress_level": 1}  # a third of the time of Pillow's default, files 10 % larger
        case "tiff":
            return {"compression": "tiff_lzw"}
        case "bmp":
            return {}


class _BlamingTheFile:
    """Decoders raise whatever they like on a broken file; all of it is the file's fault."""

    def __init__(self, format: ImageFormat) -> None:
        self.format = format

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, BadImageError):
            raise BadImageError(f"The {self.format} file is corrupt, truncated or unsupported") from error


def _pillow_size(data: bytes, format: ImageFormat) -> tuple[int, int]:
    with _BlamingTheFile(format), Image.open(io.BytesIO(data), formats=[format]) as image:
        if isinstance(image, TiffImageFile):
            tile = image.tag_v2.get(TILEWIDTH, 0) * image.tag_v2.get(TILELENGTH, 0)
            if tile > max(_LARGEST_SPARE_TILE, image.width * image.height):
                raise BadImageError("The tiff's tiles are larger than its picture; save it again")
        return image.size


def _webp_size(data: bytes) -> tuple[int, int]:
    """Canvas size (RFC 9649, section 2); Pillow would allocate the whole canvas to tell."""
    with _BlamingTheFile("webp"):
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


def _to_picture(image: Image.Image) -> Picture:
    profile = image.info.get("icc_profile")
    if image.mode.startswith("I;16"):
        return Picture(_in_srgb(Image.fromarray(_eight_bits(image)), "L", profile), _alpha_of_deep(image))
    if image.mode in ("I", "F", "LAB"):
        raise BadImageError(f"Pixels of kind {image.mode} have no 8-bit meaning; convert to 8 or 16 bits")
    mode = "L" if image.mode in ("1", "L", "LA", "La") else "RGB"
    if not image.has_transparency_data:
        return Picture(_in_srgb(image, mode, profile))
    layers = _in_mode(image, mode + "A")
    return Picture(_in_srgb(layers, mode, profile), np.asarray(layers.getchannel("A")))


def _eight_bits(image: Image.Image) -> Pixels:
    bits, inverted = 16, False
    if isinstance(image, TiffImageFile):
        bits = image.tag_v2.get(BITSPERSAMPLE, (16,))[0]
        inverted = image.tag_v2.get(PHOTOMETRIC_INTERPRETATION) == _WHITE_IS_ZERO
    white = 2**bits - 1
    levels: Any = np.minimum(np.asarray(image).astype(np.uint32), white)
    rounded: Pixels = ((levels * 255 + white // 2) // white).astype(np.uint8)
    return np.invert(rounded) if inverted else rounded


def _alpha_of_deep(image: Image.Image) -> Pixels | None:
    """A PNG of 16-bit gray may have one level that is transparent, which Pillow converts to nothing."""
    level = image.info.get("transparency")
    return None if level is None else np.where(np.asarray(image) == level, np.uint8(0), np.uint8(255))


def _in_srgb(image: Image.Image, mode: str, profile: bytes | None) -> Pixels:
    """`[H, W, C]` of mode L or RGB, whatever transparency the image has."""
    ready = image if image.mode == "CMYK" else _in_mode(image, mode)
    converted = _by_profile(ready, profile) if profile else None
    pixels = np.asarray(_in_mode(converted or ready, mode))
    return pixels[..., None] if mode == "L" else pixels


def _in_mode(image: Image.Image, mode: str) -> Image.Image:
    """`convert` alone would copy an image that has the mode."""
    return image if image.mode == mode else image.convert(mode)


def _by_profile(image: Image.Image, profile: bytes) -> Image.Image | None:
    """The image in sRGB, or None when its profile is broken or for another kind of image."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        return ImageCms.profileToProfile(image, source, _SRGB, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None


def _to_image(picture: Picture, keeps_alpha: bool) -> Image.Image:
    gray = picture.pixels.shape[2] == 1
    image = Image.fromarray(picture.pixels[..., 0] if gray else picture.pixels)
    if picture.alpha is None:
        return image
    alpha = Image.fromarray(picture.alpha)
    if keeps_alpha:
        image.putalpha(alpha)
        return image
    return Image.composite(image, Image.new(image.mode, image.size, (_WHITE,) * len(image.getbands())), alpha)
