"""The noise of a camera's sensor in low light, as it looks in the sRGB picture."""

from typing import Literal, cast

import cv2
import numpy as np
from pydantic import Field

from training.errors import DataError
from training.pixels import Image, linear_to_srgb, srgb_to_linear
from training.process import Corruption, Deviation, Gain, Photons, ReadNoise, log_uniform


class LowLight(Corruption):
    """Poisson-Gaussian sensor noise at high gain (Foi et al. 2008, section II) on its way to sRGB.

    In linear light, for a channel of white-balance gain g:
    y~ = y + N(0, g y / photons + (g read / photons)^2), then through the sRGB curve.
    `photons` is the number of electrons at white, log-uniform; `read` the read noise in electrons;
    `gain` the range of g for red and blue, green having 1. With probability `demosaic` the noise has
    passed through a bilinear Bayer interpolation and a Gaussian of deviation `blur` pixels, which
    correlate it between neighbours as a camera's own processing does (Park et al. 2009).
    An image of one channel is that of a monochrome sensor: g is 1 and there is no mosaic, only the blur.
    The image is clipped to 0..1 before, as there is no negative light.
    """

    kind: Literal["low-light"] = "low-light"
    photons: Photons
    read: ReadNoise = (0.0, 6.0)
    gain: Gain = (1.0, 1.0)
    demosaic: float = Field(default=0.5, ge=0, le=1)
    blur: Deviation = (0.0, 0.0)

    def apply(self, clean: Image, rng: np.random.Generator) -> Image:
        channels = clean.shape[2]
        if channels not in (1, 3):
            raise DataError(f"low-light corrupts images of 1 or 3 channels, not of {channels}")
        photons = log_uniform(self.photons, 1, rng).item()
        read = rng.uniform(*self.read) / photons
        gain = np.array([rng.uniform(*self.gain), 1, rng.uniform(*self.gain)], np.float32)
        gain = gain if channels == 3 else gain[1:2]
        linear = srgb_to_linear(np.clip(clean, 0, 1))
        deviation = np.sqrt(gain * linear / np.float32(photons) + (gain * np.float32(read)) ** 2)
        noise = deviation * rng.standard_normal(clean.shape, np.float32)
        if rng.random() < self.demosaic:
            noise = _demosaiced(noise) if channels == 3 else noise
            noise = _blurred(noise, rng.uniform(*self.blur))
        return linear_to_srgb(linear + noise)


_BILINEAR_GREEN = np.array([[0, 1, 0], [1, 4, 1], [0, 1, 0]], np.float32) / 4
_BILINEAR_RED_BLUE = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]], np.float32) / 4


def _demosaiced(noise: Image) -> Image:
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


def _blurred(noise: Image, deviation: float) -> Image:
    if deviation == 0:
        return noise
    smooth = cv2.GaussianBlur(noise, (0, 0), deviation, borderType=cv2.BORDER_REFLECT_101)
    return cast(Image, smooth.reshape(noise.shape))  # OpenCV drops the axis of a single channel
