"""What reading colours through a Bayer mosaic does to noise.

Both ways of interpolation are linear, so doing it to the noise alone leaves the clean target sharp.
"""

from collections.abc import Callable
from typing import cast

import cv2
import numpy as np
import numpy.typing as npt

from training.pixels import Image

Plane = npt.NDArray[np.float32]
Demosaic = Callable[[Image], Image]

_RED, _BLUE = (slice(0, None, 2), slice(0, None, 2)), (slice(1, None, 2), slice(1, None, 2))
_GREEN_BY_RED, _GREEN_BY_BLUE = (slice(0, None, 2), slice(1, None, 2)), (slice(1, None, 2), slice(0, None, 2))

_BILINEAR_GREEN = np.array([[0, 1, 0], [1, 4, 1], [0, 1, 0]], np.float32) / np.float32(4)
_BILINEAR_RED_BLUE = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]], np.float32) / np.float32(4)

# Malvar et al. 2004, figure 2: green; red or blue in its row, in its column, and at each other.
_GREEN = np.array(
    [[0, 0, -1, 0, 0], [0, 0, 2, 0, 0], [-1, 2, 4, 2, -1], [0, 0, 2, 0, 0], [0, 0, -1, 0, 0]], np.float32
)
_ROW = np.array(
    [[0, 0, 0.5, 0, 0], [0, -1, 0, -1, 0], [-1, 4, 5, 4, -1], [0, -1, 0, -1, 0], [0, 0, 0.5, 0, 0]],
    np.float32,
)
_CROSS = np.array(
    [[0, 0, -1.5, 0, 0], [0, 2, 0, 2, 0], [-1.5, 0, 6, 0, -1.5], [0, 2, 0, 2, 0], [0, 0, -1.5, 0, 0]],
    np.float32,
)
_MALVAR = [kernel / np.float32(8) for kernel in (_GREEN, _ROW, _ROW.T, _CROSS)]


def bilinear(noise: Image) -> Image:
    """Keep the samples of an RGGB mosaic, `[H, W, 3]`, and interpolate each colour by itself."""
    red, green, blue = (np.zeros(noise.shape[:2], np.float32) for _ in range(3))
    red[_RED], blue[_BLUE] = noise[..., 0][_RED], noise[..., 2][_BLUE]
    for green_place in (_GREEN_BY_RED, _GREEN_BY_BLUE):
        green[green_place] = noise[..., 1][green_place]
    kernels = (_BILINEAR_RED_BLUE, _BILINEAR_GREEN, _BILINEAR_RED_BLUE)
    return np.stack(
        [_filtered(plane, kernel) for plane, kernel in zip((red, green, blue), kernels, strict=True)], axis=-1
    )


def malvar(noise: Image) -> Image:
    """Keep the samples of an RGGB mosaic, `[H, W, 3]`, and interpolate with the gradients of the others.

    Malvar, He & Cutler 2004, "High-quality linear interpolation for demosaicing of Bayer-patterned
    color images". As with every better demosaicing the fine detail of all channels, and so of their
    noise, is then the same.
    """
    mosaic = noise[..., 1].copy()
    mosaic[_RED], mosaic[_BLUE] = noise[..., 0][_RED], noise[..., 2][_BLUE]
    green_at, by_row, by_column, across = (_filtered(mosaic, kernel) for kernel in _MALVAR)
    red, green, blue = mosaic.copy(), mosaic.copy(), mosaic
    green[_RED], green[_BLUE] = green_at[_RED], green_at[_BLUE]
    red[_GREEN_BY_RED], red[_GREEN_BY_BLUE], red[_BLUE] = (
        by_row[_GREEN_BY_RED],
        by_column[_GREEN_BY_BLUE],
        across[_BLUE],
    )
    blue[_GREEN_BY_BLUE], blue[_GREEN_BY_RED], blue[_RED] = (
        by_row[_GREEN_BY_BLUE],
        by_column[_GREEN_BY_RED],
        across[_RED],
    )
    return np.stack([red, green, blue], axis=-1)


def _filtered(plane: Plane, kernel: Plane) -> Plane:
    return cast(Plane, cv2.filter2D(plane, -1, kernel, borderType=cv2.BORDER_REFLECT_101))
