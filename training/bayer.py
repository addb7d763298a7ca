"""What reading colours through a Bayer mosaic does to noise."""

import cv2
import numpy as np

from training.pixels import Image

_BILINEAR_GREEN = np.array([[0, 1, 0], [1, 4, 1], [0, 1, 0]], np.float32) / 4
_BILINEAR_RED_BLUE = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]], np.float32) / 4


def demosaiced(noise: Image) -> Image:
    """Keep the samples of an RGGB mosaic and interpolate the rest bilinearly.

    Interpolation is linear, so doing it to the noise alone leaves the clean target sharp.
    """
    red, green, blue = (np.zeros(noise.shape[:2], np.float32) for _ in range(3))
    red[0::2, 0::2] = noise[0::2, 0::2, 0]
    green[0::2, 1::2] = noise[0::2, 1::2, 1]
    green[1::2, 0::2] = noise[1::2, 0::2, 1]
    blue[1::2, 1::2] = noise[1::2, 1::2, 2]
    planes = [
        cv2.filter2D(plane, -1, kernel, borderType=cv2.BORDER_REFLECT_101)
        for plane, kernel in (
            (red, _BILINEAR_RED_BLUE),
            (green, _BILINEAR_GREEN),
            (blue, _BILINEAR_RED_BLUE),
        )
    ]
    return np.stack(planes, axis=-1).astype(np.float32)
