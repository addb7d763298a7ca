"""The names of image files by their format."""

from pathlib import PurePath
from typing import TypeVar

from service.settings import ImageFormat

FORMATS: dict[str, ImageFormat] = {
    ".jpg": "jpeg",
    ".jpeg": "jpeg",
    ".png": "png",
    ".webp": "webp",
    ".bmp": "bmp",
    ".tif": "tiff",
    ".tiff": "tiff",
}
_Path = TypeVar("_Path", bound=PurePath)


def format_of(name: PurePath) -> ImageFormat | None:
    """The image format that a name promises."""
    return FORMATS.get(name.suffix.lower())


def renamed(name: _Path, format: ImageFormat | None) -> _Path:
    """The name for another format, or the same where there is none, or the suffix is one of its own."""
    if format is None or format_of(name) == format:
        return name
    return name.with_suffix(next(suffix for suffix, its in FORMATS.items() if its == format))
