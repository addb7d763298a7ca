"""PSNR and SSIM tables: noisy input, classical peers and our model on the same images, in one run."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from tqdm import tqdm

from model_store import Metric
from training import digits
from training.batches import scale_of, shrunk
from training.corruption import (
    AnyCorruption,
    Gaussian,
    Jpeg,
    LowLight,
    Masking,
    Mixture,
    Photo,
    SaltAndPepper,
    to_float,
    to_uint8,
)
from training.data import gray, image_files, one_channel, read_rgb
from training.errors import DataError
from training.peers import Denoiser
from training.recipe import Recipe
from training.recipe_parts import DigitsRecipe, PhotosRecipe, SpiralRecipe

REAL = "real noise"


@dataclass(frozen=True)
class Case:
    """A corruption to measure; gray images are given as three equal channels with one noise."""

    corruption: AnyCorruption
    gray: bool = False

    def pair(self, clean: Photo, seed: int) -> "Pair":
        sigma = self.corruption.sigma[0] if isinstance(self.corruption, Gaussian) else None
        clean = gray(clean) if self.gray else clean
        noisy = to_uint8(self.corruption.apply(to_float(clean), np.random.default_rng(seed)))
        return Pair(one_channel(noisy) if self.gray else noisy, clean, sigma)


STANDARD: dict[str, Case] = {
    "gaussian 15": Case(Gaussian(sigma=(15, 15))),
    "gaussian 25": Case(Gaussian(sigma=(25, 25))),
    "gaussian 50": Case(Gaussian(sigma=(50, 50))),
    "gaussian 25, gray": Case(Gaussian(sigma=(25, 25)), gray=True),
    "salt-and-pepper 10 %": Case(SaltAndPepper(amount=(0.1, 0.1))),
    "masking 30 %": Case(Masking(amount=(0.3, 0.3))),
    "jpeg quality 20": Case(Jpeg(quality=(20, 20))),
    "low light, 100 photons": Case(LowLight(photons=(100, 100), read=(3, 3), demosaic=1.0)),
}


@dataclass(frozen=True)
class Pair:
    """A noisy image and its clean one; `sigma` is what a peer may be told."""

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
class Score:
    """One denoiser on one image: PSNR in dB, SSIM, and what it took."""

    psnr: float
    ssim: float
    seconds: float
    pixels: int


@dataclass(frozen=True)
class Row:
    """All scores of one corruption on one folder: name of the denoiser -> score of each image."""

    dataset: str
    corruption: str
    scores: dict[str, list[Score]]

    def mean(self, name: str, field: str) -> float:
        return float(np.mean([getattr(score, field) for score in self.scores[name]]))


def evaluate(folder: Path, denoisers: Sequence[Denoiser], names: Sequence[str], every: int = 1) -> list[Row]:
    """Score denoisers on a folder.

    A folder of `*_noisy` / `*_reference` files is measured as it is (real noise); any other is
    corrupted with each of `names` of STANDARD, the seed of an image being its place in the folder.
    Of each folder every `every`-th image is taken, from the first.
    """
    files = image_files(folder)
    noisy = [path for path in files if path.stem.endswith("_noisy")]
    if noisy:
        return [_score(folder.name, REAL, [_real_pair(path) for path in noisy[::every]], denoisers)]
    rows = []
    for name in names:
        pairs = [STANDARD[name].pair(read_rgb(path), seed) for seed, path in enumerate(files)][::every]
        rows.append(_score(folder.name, name, pairs, denoisers))
    return rows


def evaluate_own(
    recipe: Recipe, data: Path | None, denoisers: Sequence[Denoiser], every: int = 1
) -> list[Row]:
    """Score denoisers on the test half of a recipe's data, under its own corruption.

    The seed of an image is its place in the file; every `every`-th is taken.

    Returns:
        One row; none for data that are no images.

    Raises:
        DataError: the recipe's data has no test half.
    """
    match recipe.data:
        case DigitsRecipe(kind=kind, side=side):
            images = digits.load(kind, "test", side, data).images
            pairs = [_own_pair(recipe, images[index], index) for index in range(0, len(images), every)]
            return [_score(f"{kind} test", described(recipe), pairs, denoisers)]
        case SpiralRecipe():
            return []
        case PhotosRecipe():
            raise DataError(f"{recipe.name} has no test images of its own; name folders of images")


def described(recipe: Recipe) -> str:
    """The corruption of a recipe in a few words: `gaussian sigma=127.5`."""
    parts = []
    for each in recipe.corruption:
        levels = each.model_dump(mode="json", exclude={"kind", "weight"})
        parts.append(" ".join([each.kind, *(f"{name}={_level(value)}" for name, value in levels.items())]))
    return " or ".join(parts)


def _level(value: Any) -> str:
    if isinstance(value, list) and len(value) == 2 and value[0] == value[1]:
        return f"{value[0]:g}"
    return str(value)


def _own_pair(recipe: Recipe, clean: Photo, seed: int) -> Pair:
    corruption = Mixture(of=recipe.corruption)
    small = shrunk(to_float(clean)[None], scale_of(recipe))[0]
    noisy = to_uint8(corruption.apply(small, np.random.default_rng(seed)))
    only = recipe.corruption[0]
    known = len(recipe.corruption) == 1 and isinstance(only, Gaussian) and only.sigma[0] == only.sigma[1]
    return Pair(noisy, clean, only.sigma[0] if known and isinstance(only, Gaussian) else None)


def _real_pair(noisy: Path) -> Pair:
    reference = noisy.with_stem(noisy.stem.removesuffix("_noisy") + "_reference")
    if not reference.exists():
        raise DataError(f"{noisy} has no {reference.name} beside it")
    return Pair(read_rgb(noisy), read_rgb(reference), None)


def _score(dataset: str, corruption: str, pairs: list[Pair], denoisers: Sequence[Denoiser]) -> Row:
    scores = {"noisy": [_compare(pair.shown, pair, 0.0) for pair in pairs]}
    for denoiser in denoisers:
        for pair in tqdm(pairs, desc=f"{corruption}: {denoiser.name}", leave=False):
            begun = time.perf_counter()
            restored = denoiser(pair.noisy, pair.sigma)
            assert restored is None or restored.shape == pair.clean.shape
            seconds = time.perf_counter() - begun
            if restored is not None:
                scores.setdefault(denoiser.name, []).append(_compare(restored, pair, seconds))
    return Row(dataset, corruption, scores)


def _compare(image: Photo, pair: Pair, seconds: float) -> Score:
    return Score(
        peak_signal_noise_ratio(pair.clean, image, data_range=255),
        structural_similarity(pair.clean, image, channel_axis=2, data_range=255),
        seconds,
        pair.clean.shape[0] * pair.clean.shape[1],
    )


def as_metrics(rows: Sequence[Row], ours: str) -> list[Metric]:
    """The rows a model card keeps."""
    return [
        Metric(
            dataset=row.dataset,
            images=len(row.scores[ours]),
            corruption=row.corruption,
            psnr_noisy=round(row.mean("noisy", "psnr"), 2),
            psnr_restored=round(row.mean(ours, "psnr"), 2),
            ssim_noisy=round(row.mean("noisy", "ssim"), 4),
            ssim_restored=round(row.mean(ours, "ssim"), 4),
        )
        for row in rows
    ]


def as_table(rows: Sequence[Row], ours: str) -> str:
    """A Markdown table: PSNR in dB / SSIM of each denoiser, gain of ours (mean, worst), ms/MP."""
    names = list(dict.fromkeys(name for row in rows for name in row.scores))
    lines = [
        "| images | corruption | " + " | ".join(names) + " | gain of ours, mean / worst |",
        "|" + "---|" * (len(names) + 3),
    ]
    for row in rows:
        cells = [_cell(row, name) for name in names]
        gains = [
            ours.psnr - noisy.psnr for ours, noisy in zip(row.scores[ours], row.scores["noisy"], strict=True)
        ]
        images = f"{row.dataset} ({len(gains)})"
        gain = f"{np.mean(gains):+.2f} / {min(gains):+.2f} dB"
        lines.append(f"| {images} | {row.corruption} | " + " | ".join(cells) + f" | {gain} |")
    speeds = [_speed(rows, name) for name in names]
    lines.append("| all | ms per megapixel | " + " | ".join(speeds) + " | |")
    return "\n".join(lines)


def _cell(row: Row, name: str) -> str:
    if name not in row.scores:
        return "-"
    return f"{row.mean(name, 'psnr'):.2f} / {row.mean(name, 'ssim'):.3f}"


def _speed(rows: Sequence[Row], name: str) -> str:
    scores = [score for row in rows for score in row.scores.get(name, [])]
    if name == "noisy":
        return "-"
    return f"{1e9 * sum(s.seconds for s in scores) / sum(s.pixels for s in scores):.0f}"
