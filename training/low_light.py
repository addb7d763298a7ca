"""The noise of a camera's sensor in low light, as it looks in the sRGB picture."""

from typing import Literal

import numpy as np
from pydantic import Field

from training.bayer import bilinear
from training.errors import DataError
from training.pixels import Image, linear_to_srgb, srgb_to_linear
from training.process import Corruption, Photons, ReadNoise, log_uniform


class LowLight(Corruption):
    """Poisson-Gaussian sensor noise at high gain (Foi et al. 2008, section II) on its way to sRGB.

    In linear light y~ = y + N(0, y / photons + (read / photons)^2), then through the sRGB curve.
    `photons` is the number of electrons at white, log-uniform; `read` the read noise in electrons.
    With probability `demosaic` the noise of a colour image has passed through a bilinear Bayer
    interpolation, which correlates it between neighbours (Park et al. 2009). The image is clipped to
    0..1 before, as there is no negative light. `camera` is the same with the rest of a camera behind it.
    """

    kind: Literal["low-light"] = "low-light"
    photons: Photons
    read: ReadNoise = (0.0, 6.0)
    demosaic: float = Field(default=0.5, ge=0, le=1)

    def apply(self, clean: Image, rng: np.random.Generator) -> Image:
        channels = clean.shape[2]
        if channels not in (1, 3):
            raise DataError(f"low-light corrupts images of 1 or 3 channels, not of {channels}")
        photons = log_uniform(self.photons, 1, rng).item()
        read = rng.uniform(*self.read) / photons
        linear = srgb_to_linear(np.clip(clean, 0, 1))
        deviation = np.sqrt(linear / np.float32(photons) + np.float32(read) ** 2)
        noise = deviation * rng.standard_normal(clean.shape, np.float32)
        if rng.random() < self.demosaic and channels == 3:
            noise = bilinear(noise)
        return linear_to_srgb(linear + noise)
