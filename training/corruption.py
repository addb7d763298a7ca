"""Corruption processes C(x~|x): what happens to a clean image before the network sees it.

Every corruption is a small typed description (so a recipe can spell it in TOML) with one method,
`apply(clean, rng)`. Images are float32 `[H, W, 3]`, sRGB, 0..1. The result is not clipped or
rounded unless the process itself does so: `to_uint8` does that, once, where pixels are stored.
A level is drawn from its range for each image, uniformly (numbers of photons log-uniformly, as their
effect goes with the square root); `25` is short for `[25, 25]`.
All randomness comes from `rng`, so equal seeds give equal images.
"""

import math
from abc import ABC, abstractmethod
from typing import Annotated, Any, Literal, cast

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PositiveFloat

Image = npt.NDArray[np.float32]
Photo = npt.NDArray[np.uint8]


def _levels(value: Any) -> Any:
    """A single level is a range of itself; a range goes upwards."""
    if isinstance(value, int | float):
        return (value, value)
    if isinstance(value, list | tuple) and len(value) == 2 and value[0] > value[1]:
        raise ValueError(f"a range goes from low to high, not from {value[0]} to {value[1]}")
    return value


_Grey = Annotated[float, Field(ge=0, le=255)]
_Share = Annotated[float, Field(ge=0, le=1)]
_Count = Annotated[float, Field(ge=1, le=1e6)]
_Electrons = Annotated[float, Field(ge=0, le=1000)]
_Gain = Annotated[float, Field(ge=1, le=8)]
_Deviation = Annotated[float, Field(ge=0, le=8)]
_Percent = Annotated[float, Field(ge=1, le=100)]
Sigma = Annotated[tuple[_Grey, _Grey], BeforeValidator(_levels)]
Fraction = Annotated[tuple[_Share, _Share], BeforeValidator(_levels)]
Photons = Annotated[tuple[_Count, _Count], BeforeValidator(_levels)]
ReadNoise = Annotated[tuple[_Electrons, _Electrons], BeforeValidator(_levels)]
Gain = Annotated[tuple[_Gain, _Gain], BeforeValidator(_levels)]
Blur = Annotated[tuple[_Deviation, _Deviation], BeforeValidator(_levels)]
Quality = Annotated[tuple[_Percent, _Percent], BeforeValidator(_levels)]


class Corruption(BaseModel, ABC):
    """One corruption process; `weight` is its share where a recipe mixes several."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    weight: PositiveFloat = 1.0

    @abstractmethod
    def apply(self, clean: Image, rng: np.random.Generator) -> Image:
        """Draw x~ from C(x~|x = clean)."""


class Gaussian(Corruption):
    """Additive white noise: x~ = x + N(0, (sigma/255)^2 I), sigma in grey levels (0..255)."""

    kind: Literal["gaussian"] = "gaussian"
    sigma: Sigma

    def apply(self, clean: Image, rng: np.random.Generator) -> Image:
        sigma = rng.uniform(*self.sigma) / 255
        return clean + np.float32(sigma) * rng.standard_normal(clean.shape, np.float32)


class SaltAndPepper(Corruption):
    """Impulse noise: each pixel becomes black or white, evenly, with probability `amount`."""

    kind: Literal["salt-and-pepper"] = "salt-and-pepper"
    amount: Fraction

    def apply(self, clean: Image, rng: np.random.Generator) -> Image:
        amount = rng.uniform(*self.amount)
        draw = rng.random((*clean.shape[:2], 1), np.float32)
        return np.where(draw < amount, np.float32(draw < amount / 2), clean)


class Masking(Corruption):
    """Masking noise (after Vincent et al. 2008): each pixel is set to 0 with probability `amount`."""

    kind: Literal["masking"] = "masking"
    amount: Fraction

    def apply(self, clean: Image, rng: np.random.Generator) -> Image:
        kept = rng.random((*clean.shape[:2], 1), np.float32) >= rng.uniform(*self.amount)
        return clean * kept


class Poisson(Corruption):
    """Shot noise: x~ = Poisson(peak * x) / peak, with `peak` photons at white, log-uniform."""

    kind: Literal["poisson"] = "poisson"
    peak: Photons

    def apply(self, clean: Image, rng: np.random.Generator) -> Image:
        peak = _log_uniform(self.peak, rng)
        return (rng.poisson(clean * peak) / peak).astype(np.float32)


class LowLight(Corruption):
    """Poisson-Gaussian sensor noise at high gain (Foi et al. 2008, section II) on its way to sRGB.

    In linear light, for a channel of white-balance gain g:
    y~ = y + N(0, g y / photons + (g read / photons)^2), then through the sRGB curve.
    `photons` is the number of electrons at white, log-uniform; `read` the read noise in electrons;
    `gain` the range of g for red and blue, green having 1. With probability `demosaic` the noise has
    passed through a bilinear Bayer interpolation and a Gaussian of deviation `blur` pixels, which
    correlate it between neighbours as a camera's own processing does (Park et al. 2009).
    """

    kind: Literal["low-light"] = "low-light"
    photons: Photons
    read: ReadNoise = (0.0, 6.0)
    gain: Gain = (1.0, 1.0)
    demosaic: float = Field(default=0.5, ge=0, le=1)
    blur: Blur = (0.0, 0.0)

    def apply(self, clean: Image, rng: np.random.Generator) -> Image:
        photons = _log_uniform(self.photons, rng)
        read = rng.uniform(*self.read) / photons
        gain = np.array([rng.uniform(*self.gain), 1, rng.uniform(*self.gain)], np.float32)
        linear = srgb_to_linear(clean)
        deviation = np.sqrt(gain * linear / np.float32(photons) + (gain * np.float32(read)) ** 2)
        noise = deviation * rng.standard_normal(clean.shape, np.float32)
        if rng.random() < self.demosaic:
            noise = _blurred(_demosaiced(noise), rng.uniform(*self.blur))
        return linear_to_srgb(linear + noise)


class Jpeg(Corruption):
    """JPEG compression and decompression at `quality` 1..100, 4:2:0 chroma."""

    kind: Literal["jpeg"] = "jpeg"
    quality: Quality

    def apply(self, clean: Image, rng: np.random.Generator) -> Image:
        quality = round(rng.uniform(*self.quality))
        bgr = to_uint8(clean)[..., ::-1]
        _, file = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
        decoded = cast(Photo, cv2.imdecode(file, cv2.IMREAD_COLOR))
        return to_float(decoded[..., ::-1])


class Sequence(Corruption):
    """Corruptions applied one after the other, each to an image in 0..1, as noise and then compression."""

    kind: Literal["sequence"] = "sequence"
    steps: tuple["AnyCorruption", ...] = Field(min_length=1)

    def apply(self, clean: Image, rng: np.random.Generator) -> Image:
        for step in self.steps:
            clean = np.clip(step.apply(clean, rng), 0, 1)
        return clean


class Mixture(Corruption):
    """One of several corruptions, drawn for each image in proportion to its weight."""

    kind: Literal["mixture"] = "mixture"
    of: tuple["AnyCorruption", ...] = Field(min_length=1)

    def apply(self, clean: Image, rng: np.random.Generator) -> Image:
        weights = np.array([each.weight for each in self.of])
        chosen = int(rng.choice(len(self.of), p=weights / weights.sum()))
        return self.of[chosen].apply(clean, rng)


AnyCorruption = Annotated[
    Gaussian | SaltAndPepper | Masking | Poisson | LowLight | Jpeg | Sequence | Mixture,
    Field(discriminator="kind"),
]


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


def _log_uniform(bounds: tuple[float, float], rng: np.random.Generator) -> float:
    return math.exp(rng.uniform(math.log(bounds[0]), math.log(bounds[1])))


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
    return cast(Image, cv2.GaussianBlur(noise, (0, 0), deviation, borderType=cv2.BORDER_REFLECT_101))
