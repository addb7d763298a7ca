"""Pixel values: the 8-bit levels of files, floats of 0..1, linear light."""

import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.float32]
Photo = npt.NDArray[np.uint8]


def to_float(photo: Photo) -> Image:
    """8-bit levels as float32 of 0..1."""
    return photo.astype(np.float32) / np.float32(255)


def to_uint8(image: Image) -> Photo:
    """Clip to 0..1 and round to the 8-bit levels a file or a camera stores."""
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)


def srgb_to_linear(image: Image) -> Image:
    """IEC 61966-2-1 decoding of values in 0..1."""
    return np.where(image <= 0.04045, image / 12.92, ((image + 0.055) / 1.055) ** 2.4).astype(np.float32)


def linear_to_srgb(image: Image) -> Image:
    """IEC 61966-2-1 encoding; values below 0 are mirrored, above 1 continued, so noise stays noise."""
    size = np.abs(image)
    coded = np.where(size <= 0.0031308, 12.92 * size, 1.055 * size ** (1 / 2.4) - 0.055)
    return np.copysign(coded, image).astype(np.float32)
