"""A picture as a model takes it: its channels, its size; and whether it is gray."""

import numpy as np

from model_store import ModelCard
from service.codec import Pixels
from service.errors import BadImageError

_STRIP = 2**16  # pixels
_ROWS = 16


def fitted(pixels: Pixels, card: ModelCard) -> Pixels:
    """uint8 `[H, W, 3 or 1]` with the channels of the model.

    Raises:
        BadImageError: the model takes images of another size only.
    """
    height, width, channels = card.inputs[0].shape[1:]
    sides = zip((height, width), pixels.shape, strict=False)
    if any(isinstance(wanted, int) and wanted != side for wanted, side in sides):
        raise BadImageError(
            f"Model {card.label} takes images of {width}x{height} pixels, not"
            f" {pixels.shape[1]}x{pixels.shape[0]}; resize it, or choose another model"
        )
    if pixels.shape[2] == channels:
        return pixels
    return np.repeat(pixels, 3, axis=2) if channels == 3 else luma(pixels)


def is_gray(pixels: Pixels) -> bool:
    """Whether the channels of `[H, W, C]` are equal; of most images in colour a few rows tell."""
    for top in range(0, len(pixels), _ROWS):
        rows = pixels[top : top + _ROWS]
        if any((rows[..., 0] != rows[..., channel]).any() for channel in range(1, pixels.shape[2])):
            return False
    return True


def luma(pixels: Pixels) -> Pixels:
    """ITU-R BT.601 luma of `[H, W, 3]` as `[H, W, 1]`; equal channels stay what they are.

    In strips of rows: the sums of a whole frame would take 20 bytes a pixel, twice what all its stages do.
    """
    height, width, _ = pixels.shape
    levels = np.empty((height, width, 1), np.uint8)
    rows = max(1, _STRIP // width)
    for top in range(0, height, rows):
        wide = pixels[top : top + rows].astype(np.uint32)
        sums = wide[..., :1] * 19595 + wide[..., 1:2] * 38470 + wide[..., 2:] * 7471
        levels[top : top + rows] = (sums + 32768) >> 16
    return levels
