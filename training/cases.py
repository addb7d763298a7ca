"""What is measured: clean images and their noisy ones, by a corruption or from a camera."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self, cast

import cv2
import numpy as np

from training.corruption import (
    H264,
    AnyCorruption,
    Camera,
    Gaussian,
    Jpeg,
    LowLight,
    Masking,
    Photo,
    SaltAndPepper,
    to_float,
    to_uint8,
)
from training.corruption import (
    Sequence as SequenceOf,
)
from training.data import gray, image_files, one_channel, read_rgb
from training.errors import DataError

log = logging.getLogger(__name__)
REAL = "real noise"
MILD = "real noise, input above 33 dB"
SMALLEST = 7  # the window of SSIM


@dataclass(frozen=True)
class Pair:
    """A noisy image and its clean one; `sigma` is what a peer may be told."""

    name: str
    noisy: Photo
    clean: Photo
    sigma: float | None

    @property
    def shown(self) -> Photo:
        """The noisy image in the size of the clean one, enlarged bicubically if that is larger."""
        height, width, channels = self.clean.shape
        if self.noisy.shape == self.clean.shape:
            return self.noisy
        large = cv2.resize(self.noisy, (width, height), interpolation=cv2.INTER_CUBIC)
        return cast(Photo, large).reshape(height, width, channels)


@dataclass(frozen=True)
class Case:
    """A corruption to measure; gray images are given as three equal channels with one noise."""

    corruption: AnyCorruption
    gray: bool = False

    def pair(self, name: str, clean: Photo, seed: int) -> Pair:
        sigma = self.corruption.sigma[0] if isinstance(self.corruption, Gaussian) else None
        clean = gray(clean) if self.gray else clean
        noisy = to_uint8(self.corruption.apply(to_float(clean), np.random.default_rng(seed)))
        return Pair(name, one_channel(noisy) if self.gray else noisy, clean, sigma)


_CAMERA = Camera(
    photons=(200, 200),
    read=(3, 3),
    gain=(1.6, 1.6),
    demosaic=1.0,
    malvar=1.0,
    shrink=(1, 1),
    blur=(0.4, 0.4),
    sharpen=(0.3, 0.3),
    colour=(0.3, 0.3),
    contrast=(0.5, 0.5),
)
_DEFECTIVE = _CAMERA.model_copy(update={"rows": (2, 2), "columns": (2, 2), "hot": (0.001, 0.001)})

STANDARD: dict[str, Case] = {
    **{f"gaussian {sigma}": Case(Gaussian(sigma=(sigma, sigma))) for sigma in (15, 25, 50)},
    **{f"gaussian {sigma}, gray": Case(Gaussian(sigma=(sigma, sigma)), gray=True) for sigma in (15, 25, 50)},
    "salt-and-pepper 10 %": Case(SaltAndPepper(amount=(0.1, 0.1))),
    "masking 30 %": Case(Masking(amount=(0.3, 0.3))),
    "jpeg quality 20": Case(Jpeg(quality=(20, 20))),
    "low light, 100 photons": Case(LowLight(photons=(100, 100), read=(3, 3), demosaic=1.0)),
    "camera, jpeg quality 80": Case(SequenceOf(steps=(_CAMERA, Jpeg(quality=(80, 80))))),
    "camera, jpeg quality 80, gray": Case(SequenceOf(steps=(_CAMERA, Jpeg(quality=(80, 80)))), gray=True),
    "camera, h264 crf 28": Case(SequenceOf(steps=(_CAMERA, H264(crf=(28, 28))))),
    "camera, banding, hot pixels": Case(_DEFECTIVE),
    "dropped blocks, 5 %": Case(Masking(amount=(0.05, 0.05), block=(8, 8))),
}


@dataclass(frozen=True)
class Folder:
    """Clean images that are corrupted, or `*_noisy` / `*_reference` pairs of real noise.

    Every file was read once: what is wrong with one is said before hours of measuring.
    """

    name: str
    clean: dict[int, Path]  # by place in the folder, which seeds the noise
    noisy: dict[int, Path]

    @classmethod
    def read(cls, folder: Path, every: int = 1) -> Self:
        """Take every `every`-th image of a folder, from the first; where there are pairs, the pairs alone.

        Raises:
            DataError: there are none, or one cannot be read, is too small or does not fit its reference.
        """
        files = image_files(folder)
        noisy = [path for path in files if path.stem.endswith("_noisy")]
        taken = dict(list(enumerate(noisy or files))[::every])
        clean = {place: _reference(path) for place, path in taken.items()} if noisy else taken
        found = cls(folder.resolve().name, clean, taken if noisy else {})
        found._check()
        if noisy and len(files) > 2 * len(noisy):
            log.warning(
                "%s: %d files that belong to no pair are left out", folder, len(files) - 2 * len(noisy)
            )
        return found

    def corruptions(self, names: Sequence[str]) -> Sequence[str]:
        """Of `names` of STANDARD those to measure: real noise is measured as it is."""
        return [REAL] if self.noisy else names

    def pairs(self, corruption: str) -> Iterator[Pair]:
        for place, path in self.clean.items():
            yield self.pair(corruption, place, path)

    def pair(self, corruption: str, place: int, path: Path) -> Pair:
        if self.noisy:
            return Pair(self.noisy[place].name, read_rgb(self.noisy[place]), read_rgb(path), None)
        return STANDARD[corruption].pair(path.name, read_rgb(path), place)

    def clean_images(self) -> Iterator[tuple[str, Photo]]:
        for path in self.clean.values():
            yield path.name, read_rgb(path)

    def _check(self) -> None:
        for place, path in self.clean.items():
            height, width, _ = read_rgb(path).shape
            if min(height, width) < SMALLEST:
                raise DataError(f"{path} is {width}x{height}; SSIM needs {SMALLEST} pixels a side")
            if self.noisy and read_rgb(self.noisy[place]).shape[:2] != (height, width):
                raise DataError(f"{self.noisy[place]} has not the size of {path.name}")


def _reference(noisy: Path) -> Path:
    reference = noisy.with_stem(noisy.stem.removesuffix("_noisy") + "_reference")
    if not reference.exists():
        raise DataError(f"{noisy} has no {reference.name} beside it")
    return reference
