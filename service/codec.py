"""Bytes to pixels and back, of files that `inspect` has let through.

What happens to each kind of image:
orientation (EXIF) is applied, then all metadata is dropped; colours and grays with an ICC profile and CMYK
become sRGB; 16-bit gray becomes 8-bit; palettes become colours; alpha is kept where the output
format can hold it and else flattened on white; of a multi-page TIFF or MPO the first picture is
taken; an animation is an error, as a still would not be what its sender expects.
"""

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import BITSPERSAMPLE, PHOTOMETRIC_INTERPRETATION, TiffImageFile

from service import exif
from service.errors import BadImageError, BadParameterError
from service.header import BlamingTheFile, Header
from service.settings import ImageFormat

Pixels = npt.NDArray[np.uint8]

MEDIA_TYPES: dict[ImageFormat, str] = {
    "jpeg": "image/jpeg",
    "png": "image/png",
    "webp": "image/webp",
    "bmp": "image/bmp",
    "tiff": "image/tiff",
}
_HOLDS_ALPHA: frozenset[ImageFormat] = frozenset({"png", "webp", "tiff"})
_LONGEST_SIDE: dict[ImageFormat, int] = {"jpeg": 65500, "webp": 16383}
_GRAY_MODES = ("1", "L", "LA", "La")
_PNG_GRAY_ALPHA_16 = "LA;16B"  # which Pillow opens as RGBA
_SRGB = ImageCms.createProfile("sRGB")
_WHITE = 255
_WHITE_IS_ZERO = 0


@dataclass(frozen=True)
class Picture:
    """A decoded image: uint8 `[H, W, C]`, C = 3 (sRGB) or 1 (gray), and uint8 alpha `[H, W]`."""

    pixels: Pixels
    alpha: Pixels | None = None


def decode(data: bytes, header: Header) -> Picture:
    """Decode a file that `inspect` has let through.

    Raises:
        BadImageError: corrupt, truncated, animated, or of a kind that has no 8-bit meaning.
    """
    with BlamingTheFile(header.format), Image.open(io.BytesIO(data), formats=[header.format]) as image:
        if getattr(image, "is_animated", False) and header.format in ("png", "webp"):
            raise BadImageError("The image is animated; send its frames one by one")
        if image.size != (header.width, header.height):
            raise BadImageError(f"The {header.format} file contradicts itself about its size")
        exif.pass_over_what_is_slow(image)
        layout = image.tile[0].args if isinstance(image, PngImageFile) else None
        image.load()
        _fit_transparent_colour(image, layout)
        exif.set_upright(image)
        return _to_picture(image, gray=image.mode in _GRAY_MODES or layout == _PNG_GRAY_ALPHA_16)


def _fit_transparent_colour(image: Image.Image, layout: object) -> None:
    """Pillow makes eight bits of the levels of a PNG's pixels, but leaves that colour as the file has it."""
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


def _to_picture(image: Image.Image, *, gray: bool) -> Picture:
    profile = image.info.get("icc_profile")
    if image.mode.startswith("I;16"):
        return Picture(_in_srgb(Image.fromarray(_eight_bits(image)), "L", profile), _alpha_of_deep(image))
    if image.mode in ("I", "F", "LAB"):
        raise BadImageError(f"Pixels of kind {image.mode} have no 8-bit meaning; convert to 8 or 16 bits")
    mode = "L" if gray else "RGB"
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
