"""Corruption processes C(x~|x): what happens to a clean image before the network sees it.

Every corruption is a small typed description (so a recipe can spell it in TOML) with two methods:
`apply(clean, rng)` for one image and `apply_batch(clean, rng)` for many of one size. Images are
float32 `[H, W, C]`, batches `[N, H, W, C]`, sRGB, 0..1, of 3 channels or of 1 (gray). The result is
not clipped or rounded unless the process itself does so: `to_uint8` does that, once, where pixels
are stored. A process that is only defined for light (poisson, low-light, camera, jpeg, h264) first
clips to 0..1. A level is drawn from its range for each image, uniformly (numbers of photons
log-uniformly, as their effect goes with the square root); `25` is short for `[25, 25]`.
What papers write as gaussian(0.5) + clip is a sequence of `Gaussian(sigma=127.5)` and `Clip()`.
All randomness comes from `rng`, so equal seeds give equal images.
"""

from typing import Annotated, Literal, cast

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import AfterValidator, Field

from training.camera import Camera
from training.errors import DataError
from training.h264 import H264
from training.low_light import LowLight
from training.pixels import Image, Photo, linear_to_srgb, srgb_to_linear, to_float, to_uint8
from training.process import (
    BatchedCorruption,
    Corruption,
    Deviation,
    Fraction,
    Photons,
    Quality,
    Side,
    Sigma,
    log_uniform,
    uniform,
)

__all__ = [
    "H264",
    "AnyCorruption",
    "Camera",
    "Clip",
    "Corruption",
    "Gaussian",
    "Image",
    "Jpeg",
    "LowLight",
    "Masking",
    "Mixture",
    "Photo",
    "Poisson",
    "SaltAndPepper",
    "Sequence",
    "Several",
    "Speckle",
    "Steps",
    "linear_to_srgb",
    "srgb_to_linear",
    "to_float",
    "to_uint8",
]


class Gaussian(BatchedCorruption):
    """Additive white noise: x~ = x + N(0, (sigma/255)^2 I), sigma >= 0 in grey levels.

    255 is the standard normal N(0, I) on images of 0..1.
    """

    kind: Literal["gaussian"] = "gaussian"
    sigma: Sigma

    def apply_batch(self, clean: Image, rng: np.random.Generator) -> Image:
        sigma = (uniform(self.sigma, len(clean), rng) / 255).astype(np.float32)
        return clean + sigma * rng.standard_normal(clean.shape, np.float32)


class Speckle(BatchedCorruption):
    """Multiplicative noise (Lee 1981): x~ = x (1 + N(0, deviation^2 I)), deviation 0..8 of the signal."""

    kind: Literal["speckle"] = "speckle"
    deviation: Deviation

    def apply_batch(self, clean: Image, rng: np.random.Generator) -> Image:
        deviation = uniform(self.deviation, len(clean), rng).astype(np.float32)
        return clean * (1 + deviation * rng.standard_normal(clean.shape, np.float32))


class SaltAndPepper(BatchedCorruption):
    """Impulse noise: each pixel becomes 0 or 1, evenly, with probability `amount` (Vincent et al. 2010)."""

    kind: Literal["salt-and-pepper"] = "salt-and-pepper"
    amount: Fraction

    def apply_batch(self, clean: Image, rng: np.random.Generator) -> Image:
        amount = uniform(self.amount, len(clean), rng).astype(np.float32)
        draw = rng.random((*clean.shape[:3], 1), np.float32)
        return np.where(draw < amount, np.float32(draw < amount / 2), clean)


class Masking(BatchedCorruption):
    """Masking noise: x~ = x * m, m = 0 with probability `amount` (0..1), else 1.

    One m is drawn for each pixel, or with `unit = "element"` for each channel of each pixel, as
    Vincent et al. (2008, section 2.3) do with the elements of a vector. With `block` > 1 it is
    drawn for squares of that many pixels a side, on a grid at a random offset: blocks of a video that
    were lost on the way (Wang & Zhu 1998, "Error Control and Concealment for Video Communication").
    """

    kind: Literal["masking"] = "masking"
    amount: Fraction
    unit: Literal["pixel", "element"] = "pixel"
    block: Side = (1, 1)

    def apply_batch(self, clean: Image, rng: np.random.Generator) -> Image:
        images, height, width, channels = clean.shape
        draw = rng.random((images, height, width, channels if self.unit == "element" else 1), np.float32)
        kept = draw >= uniform(self.amount, images, rng).astype(np.float32)
        if self.block != (1, 1):
            block = rng.integers(*self.block, (images, 1), endpoint=True)
            rows, columns = ((np.arange(n) + rng.integers(block)) // block for n in (height, width))
            kept = kept[np.arange(images)[:, None, None], rows[:, :, None], columns[:, None]]
        return clean * kept


class Poisson(BatchedCorruption):
    """Shot noise: x~ = Poisson(peak * x) / peak, with `peak` photons (1..1e6) at white, log-uniform.

    As the noise of a sensor without any of its own (Foi et al. 2008).
    """

    kind: Literal["poisson"] = "poisson"
    peak: Photons

    def apply_batch(self, clean: Image, rng: np.random.Generator) -> Image:
        peak = log_uniform(self.peak, len(clean), rng)
        return (rng.poisson(np.clip(clean, 0, 1) * peak.astype(np.float32)) / peak).astype(np.float32)


class Jpeg(Corruption):
    """JPEG (ITU-T T.81) compression and decompression at libjpeg's `quality` 1..100, 4:2:0 chroma."""

    kind: Literal["jpeg"] = "jpeg"
    quality: Quality

    def apply(self, clean: Image, rng: np.random.Generator) -> Image:
        if clean.shape[2] not in (1, 3):
            raise DataError(f"jpeg corrupts images of 1 or 3 channels, not of {clean.shape[2]}")
        quality = round(rng.uniform(*self.quality))
        bgr = to_uint8(clean)[..., ::-1]
        _, file = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
        mode = cv2.IMREAD_COLOR if clean.shape[2] == 3 else cv2.IMREAD_GRAYSCALE
        decoded = cast(Photo, cv2.imdecode(file, mode)).reshape(clean.shape)
        return to_float(decoded[..., ::-1])


class Clip(BatchedCorruption):
    """x~ = min(max(x, 0), 1): what a file or a sensor that saturates can hold. Draws nothing."""

    kind: Literal["clip"] = "clip"

    def apply_batch(self, clean: Image, rng: np.random.Generator) -> Image:
        return np.clip(clean, 0, 1)


class Sequence(BatchedCorruption):
    """Corruptions applied one after the other, as noise and then compression."""

    kind: Literal["sequence"] = "sequence"
    steps: "Steps"

    def apply_batch(self, clean: Image, rng: np.random.Generator) -> Image:
        for step in self.steps:
            clean = step.apply_batch(clean, rng)
        return clean


class Mixture(BatchedCorruption):
    """One of several corruptions, drawn for each image in proportion to its weight.

    For a gray image it is drawn from those that are for gray images, of which there is one at least.
    """

    kind: Literal["mixture"] = "mixture"
    of: "Several"

    def apply_batch(self, clean: Image, rng: np.random.Generator) -> Image:
        weights = np.array([each.weight for each in self.of])
        chosen: npt.NDArray[np.int64] = rng.choice(len(self.of), len(clean), p=weights / weights.sum())
        for_gray = np.array([each.gray for each in self.of])
        if not for_gray.all():
            again = ~for_gray[chosen] & (clean == clean[..., :1]).all(axis=(1, 2, 3))
            weights = weights * for_gray
            chosen[again] = rng.choice(len(self.of), again.sum(), p=weights / weights.sum())
        noisy = np.empty_like(clean)
        for number in np.unique(chosen):
            noisy[chosen == number] = self.of[number].apply_batch(clean[chosen == number], rng)
        return noisy


AnyCorruption = Annotated[
    Gaussian
    | Speckle
    | SaltAndPepper
    | Masking
    | Poisson
    | LowLight
    | Camera
    | Jpeg
    | H264
    | Clip
    | Sequence
    | Mixture,
    Field(discriminator="kind"),
]


def _one_for_gray(several: tuple[Corruption, ...]) -> tuple[Corruption, ...]:
    if not any(each.gray for each in several):
        raise ValueError("gray is false for all of them; leave it true for one that gray images get")
    return several


Several = Annotated[tuple[AnyCorruption, ...], Field(min_length=1), AfterValidator(_one_for_gray)]


def _gray_as_a_whole(steps: tuple[Corruption, ...]) -> tuple[Corruption, ...]:
    if not all(each.gray for each in steps):
        raise ValueError("gray = false belongs to the sequence, not to one of its steps")
    return steps


Steps = Annotated[tuple[AnyCorruption, ...], Field(min_length=1), AfterValidator(_gray_as_a_whole)]
