"""Of EXIF only how an image is turned is used, and none of it is worth seconds."""

import contextlib

from PIL import ExifTags, Image, ImageOps
from PIL.TiffImagePlugin import TiffImageFile

_NAMES = ("exif", "Raw profile type exif")  # the other is ImageMagick's, in PNG, in hexadecimal
_MOST = 2**18  # a JPEG segment has 2**16 bytes; Pillow unpacks megabytes of numbers for seconds


def set_upright(image: Image.Image) -> None:
    """Turn a loaded image, in place, as its EXIF says; not where that is over a quarter of a megabyte."""
    if any(len(image.info.get(name, "")) > _MOST for name in _NAMES):
        return
    # Whatever broken metadata makes the parser raise: the pixels are good.
    with contextlib.suppress(Exception):
        ImageOps.exif_transpose(image, in_place=True)


def pass_over_what_is_slow(image: Image.Image) -> None:
    """Before a TIFF is loaded: or Pillow would read directories that may hold megabytes of numbers."""
    if isinstance(image, TiffImageFile):
        tags = image.getexif()
        for directory in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
            tags.pop(directory, None)
