"""Camera noise: what a sensor adds in linear light, as it looks after the camera's own processing.

Brooks et al. 2019 ("Unprocessing Images for Learned Raw Denoising", section 3) undo a camera's
processing, add sensor noise and process anew. Here only the noise goes that way: it takes the
correlation between neighbours that demosaicing, smoothing, sharpening and shrinking leave (Park et
al. 2009), and the image with it goes through gamma and tone curve. So the clean target stays as
sharp as the photograph, and no stage has to be inverted but the curves.
"""

from typing import Literal, cast

import cv2
import numpy as np
from pydantic import Field

from training.bayer import bilinear, malvar
from training.errors import DataError
from training.pixels import Image, srgb_to_linear
from training.process import Corruption, Deviation, Factor, Fraction, Gain, Photons, ReadNoise, log_uniform

_CURVE = np.linspace(0, 1, 4081, dtype=np.float32)
_LINEAR = srgb_to_linear(_CURVE)
_ROOT = np.sqrt(_LINEAR)


class Camera(Corruption):
    """Poisson-Gaussian noise of a sensor (Foi et al. 2008) as it looks in the camera's sRGB file.

    For a channel of white-balance gain g and linear light y:
    y~ = y + grain * sqrt(g y / photons + (g read / photons)^2), then mixed between the channels,
    then gamma and tone curve. `grain` is white noise of deviation 1 with the camera's filters on it.
    An image of one channel is that of a monochrome sensor: no mosaic, no gains, no colour matrix.

    Args:
        photons: electrons at white, log-uniform.
        read: read noise, electrons.
        gain: white-balance gain of red and of blue; green has 1.
        demosaic: probability that the grain comes off a Bayer mosaic.
        malvar: share of these whose mosaic was interpolated as Malvar et al. do, the rest bilinearly.
        shrink: the frame is read at this multiple of its size and shrunk.
        blur: deviation of the Gaussian the camera smooths with, pixels.
        sharpen: share of what a Gaussian of deviation 1 takes away that is added again.
        colour: saturation of the colour matrix: 0 leaves the channels, 1 takes half of each
            channel's noise away from each of the others.
        contrast: share of the S-shaped tone curve 3x^2 - 2x^3 (Brooks et al. 2019, section 3.1).
    """

    kind: Literal["camera"] = "camera"
    photons: Photons
    read: ReadNoise = (0.0, 6.0)
    gain: Gain = (1.0, 2.2)
    demosaic: float = Field(default=0.6, ge=0, le=1)
    malvar: float = Field(default=0.6, ge=0, le=1)
    shrink: Factor = (1.0, 2.0)
    blur: Deviation = (0.0, 0.8)
    sharpen: Fraction = (0.0, 0.5)
    colour: Fraction = (0.0, 0.5)
    contrast: Fraction = (0.0, 1.0)

    def apply(self, clean: Image, rng: np.random.Generator) -> Image:
        channels = clean.shape[2]
        if channels not in (1, 3):
            raise DataError(f"camera corrupts images of 1 or 3 channels, not of {channels}")
        photons = log_uniform(self.photons, 1, rng).item()
        read = rng.uniform(*self.read) / photons
        gain = np.array([rng.uniform(*self.gain), 1, rng.uniform(*self.gain)], np.float32)
        gain = gain if channels == 3 else gain[1:2]
        curve = _tone_curve(rng.uniform(*self.contrast))
        linear = _look_up(np.clip(clean, 0, 1), np.interp(_CURVE, curve, _LINEAR).astype(np.float32))
        deviation = np.sqrt(gain * linear / np.float32(photons) + (gain * np.float32(read)) ** 2)
        noise = self._grain(clean.shape, rng) * deviation
        if channels == 3:
            noise = noise @ _colour_matrix(rng.uniform(*self.colour))
        # The root spreads the dark end, where the curve is steep, over the table.
        root = np.sqrt(np.clip(linear + noise, 0, 1))
        return _look_up(root, np.interp(_CURVE, _ROOT, curve).astype(np.float32))

    def _grain(self, shape: tuple[int, ...], rng: np.random.Generator) -> Image:
        height, width, channels = shape
        shrink = rng.uniform(*self.shrink)
        grain = rng.standard_normal((round(height * shrink), round(width * shrink), channels), np.float32)
        if rng.random() < self.demosaic and channels == 3:
            grain = malvar(grain) if rng.random() < self.malvar else bilinear(grain)
        if grain.shape != shape:
            smaller = cv2.resize(grain, (width, height), interpolation=cv2.INTER_AREA)
            grain = cast(Image, smaller.reshape(shape))  # OpenCV drops the axis of a single channel
        grain = _blurred(grain, rng.uniform(*self.blur))
        return grain + np.float32(rng.uniform(*self.sharpen)) * (grain - _blurred(grain, 1))


def _look_up(values: Image, table: Image) -> Image:
    """The entries of a table over 0..1; 8-bit levels fall on entries exactly."""
    found: Image = table[np.rint(values * np.float32(len(table) - 1)).astype(np.int32)]
    return found


def _tone_curve(contrast: float) -> Image:
    """Values of the tone curve at `_CURVE`; strictly rising, 0 to 0 and 1 to 1."""
    steep = 3 * _CURVE**2 - 2 * _CURVE**3
    return np.asarray(_CURVE + np.float32(0.9 * contrast) * (steep - _CURVE), np.float32)


def _colour_matrix(saturation: float) -> Image:
    """Rows sum to 1, so that gray stays gray; noise of one channel turns up in the others, negated."""
    return np.asarray((1 + saturation) * np.eye(3) - saturation / 2 * (1 - np.eye(3)), np.float32)


def _blurred(grain: Image, deviation: float) -> Image:
    """Gaussian smoothing; hardly anything below a fifth of a pixel, so nothing there."""
    if deviation < 0.2:
        return grain
    smooth = cv2.GaussianBlur(grain, (0, 0), deviation, borderType=cv2.BORDER_REFLECT_101)
    return cast(Image, smooth.reshape(grain.shape))
