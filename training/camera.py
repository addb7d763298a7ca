"""Camera noise: what a sensor adds in linear light, as it looks after the camera's own processing.

Brooks et al. 2019 ("Unprocessing Images for Learned Raw Denoising", section 3) undo a camera's
processing, add sensor noise and process anew. Here only the noise goes that way: it takes the
correlation between neighbours that demosaicing, smoothing, sharpening and shrinking leave (Park et
al. 2009), and the image with it goes through gamma and tone curve. So the clean target stays as
sharp as the photograph, and no stage has to be inverted but the curves.
"""

from dataclasses import dataclass
from typing import Literal, cast

import cv2
import numpy as np
from pydantic import Field

from training.bayer import Demosaic, bilinear, malvar
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
    Gains, demosaicing and colour matrix make noise coloured, and coarser in colour than in brightness:
    chroma noise. To it comes what a sensor repeats: offsets of rows and of columns, and hot pixels.
    An image of one channel is that of a monochrome sensor: no mosaic, no gains, no colour matrix.

    Args:
        photons: electrons at white, log-uniform.
        read: read noise, electrons.
        gain: white-balance gain of red and of blue (Brooks et al. 2019); green has 1.
        demosaic: probability that the grain comes off a Bayer mosaic.
        malvar: share of these whose mosaic was interpolated as Malvar et al. (2004) do, the rest bilinearly.
        shrink: the frame is read at this multiple of its size and shrunk.
        blur: deviation of the Gaussian the camera smooths with, pixels.
        sharpen: share of what a Gaussian of deviation 1 takes away that is added again: unsharp
            masking (Polesel et al. 2000).
        rows: deviation of the offsets of the rows, electrons: banding (row noise of Wei et al. 2020, "A
            Physics-based Noise Formation Model for Extreme Low-light Raw Denoising").
        columns: the same of the columns, whose amplifiers differ: fixed pattern (El Gamal et al. 1998,
            "Modeling and Estimation of FPN Components in CMOS Image Sensors").
        hot: share of the sensor's pixels that add a level of their own, anywhere up to white, to what
            they see (Dudas et al. 2007, "Identification of In-field Defect Development in Digital Image
            Sensors").
        colour: saturation of the colour matrix: 0 leaves the channels, 1 takes half of each
            channel's noise away from each of the others (colour correction of Brooks et al. 2019).
        contrast: share of the S-shaped tone curve 3x^2 - 2x^3 (tone mapping of Brooks et al. 2019).
        unbiased: probability that the curves take the noise to first order only, times their slope. Bent,
            its mean is lower than the image and its distribution leans to the dark; that of real files of
            RENOIR (Anaya & Barbu 2018) does neither.
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
    unbiased: float = Field(default=0.0, ge=0, le=1)
    rows: ReadNoise = (0.0, 0.0)
    columns: ReadNoise = (0.0, 0.0)
    hot: Fraction = (0.0, 0.0)

    def apply(self, clean: Image, rng: np.random.Generator) -> Image:
        channels = clean.shape[2]
        if channels not in (1, 3):
            raise DataError(f"camera corrupts images of 1 or 3 channels, not of {channels}")
        photons = log_uniform(self.photons, 1, rng).item()
        read = rng.uniform(*self.read) / photons
        gain = np.array([rng.uniform(*self.gain), 1, rng.uniform(*self.gain)], np.float32)
        gain = gain if channels == 3 else gain[1:2]
        curve = _tone_curve(rng.uniform(*self.contrast))
        clean = np.clip(clean, 0, 1)
        light = np.interp(_CURVE, curve, _LINEAR).astype(np.float32)
        linear = _look_up(clean, light)
        deviation = np.sqrt(gain * linear / np.float32(photons) + (gain * np.float32(read)) ** 2)
        processing = self._processing(clean.shape, rng)
        grain = processing.apply(rng.standard_normal(processing.sensor, np.float32))
        noise = grain * deviation
        if self.rows[1] or self.columns[1] or self.hot[1]:
            noise += gain * processing.apply(self._defects(processing.sensor, photons, rng))
        if channels == 3:
            noise = noise @ _colour_matrix(rng.uniform(*self.colour))
        if self.unbiased and rng.random() < self.unbiased:
            return clean + noise / _look_up(clean, np.gradient(light, _CURVE))
        # The root spreads the dark end, where the curve is steep, over the table.
        root = np.sqrt(np.clip(linear + noise, 0, 1))
        return _look_up(root, np.interp(_CURVE, _ROOT, curve).astype(np.float32))

    def _processing(self, shape: tuple[int, ...], rng: np.random.Generator) -> "_Processing":
        height, width, channels = shape
        shrink = rng.uniform(*self.shrink)
        mosaic = rng.random() < self.demosaic and channels == 3
        better = rng.random() < self.malvar
        return _Processing(
            sensor=(round(height * shrink), round(width * shrink), channels),
            shape=shape,
            demosaic=(malvar if better else bilinear) if mosaic else None,
            blur=rng.uniform(*self.blur),
            sharpen=rng.uniform(*self.sharpen),
        )

    def _defects(self, sensor: tuple[int, int, int], photons: float, rng: np.random.Generator) -> Image:
        """Linear light that each pixel of the sensor shows besides its own."""
        height, width, _ = sensor
        rows = rng.normal(0, rng.uniform(*self.rows) / photons, (height, 1, 1))
        columns = rng.normal(0, rng.uniform(*self.columns) / photons, (1, width, 1))
        hot = rng.random(sensor, np.float32) < rng.uniform(*self.hot)
        return np.asarray(rows + columns + hot * rng.random(sensor, np.float32), np.float32)


@dataclass(frozen=True)
class _Processing:
    """What one camera does to its sensor's noise, `[H, W, C]` of `sensor` in, of `shape` out."""

    sensor: tuple[int, int, int]
    shape: tuple[int, ...]
    demosaic: Demosaic | None
    blur: float
    sharpen: float

    def apply(self, noise: Image) -> Image:
        if self.demosaic:
            noise = self.demosaic(noise)
        if noise.shape != self.shape:
            height, width, _ = self.shape
            smaller = cv2.resize(noise, (width, height), interpolation=cv2.INTER_AREA)
            noise = cast(Image, smaller.reshape(self.shape))  # OpenCV drops the axis of a single channel
        noise = _blurred(noise, self.blur)
        return noise + np.float32(self.sharpen) * (noise - _blurred(noise, 1))


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


def _blurred(noise: Image, deviation: float) -> Image:
    """Gaussian smoothing; hardly anything below a fifth of a pixel, so nothing there."""
    if deviation < 0.2:
        return noise
    smooth = cv2.GaussianBlur(noise, (0, 0), deviation, borderType=cv2.BORDER_REFLECT_101)
    return cast(Image, smooth.reshape(noise.shape))
