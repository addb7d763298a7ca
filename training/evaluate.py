"""PSNR and SSIM of the noisy input, classical peers and our model on the same images, in one run."""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from tqdm import tqdm

from training import digits
from training.batches import scale_of, shrunk
from training.cases import MILD, REAL, Folder, Pair
from training.corruption import Gaussian, Mixture, Photo, to_float, to_uint8
from training.errors import DataError
from training.peers import Denoiser
from training.recipe import Recipe
from training.recipe_parts import DigitsRecipe, PhotosRecipe, SpiralRecipe

_EQUAL = 100.0  # dB, of images without any difference; infinity has no mean
_LITTLE = 33.0  # dB, of an input that is easily smoothed away with its noise


@dataclass(frozen=True)
class Score:
    """One denoiser on one image: PSNR in dB, SSIM, and what it took."""

    image: str
    psnr: float
    ssim: float
    seconds: float
    pixels: int


@dataclass(frozen=True)
class Row:
    """All scores of one corruption on one folder: name of the denoiser -> score of each image.

    Denoisers that had no answer for some of the images are not there: their means would be of others.
    """

    dataset: str
    corruption: str
    scores: dict[str, list[Score]]

    def mean(self, name: str, field: str) -> float:
        return float(np.mean([getattr(score, field) for score in self.scores[name]]))

    def gains(self, name: str) -> list[float]:
        """PSNR over that of the noisy image, dB, of each image."""
        pairs = zip(self.scores[name], self.scores["noisy"], strict=True)
        return [score.psnr - noisy.psnr for score, noisy in pairs]


def evaluate(folder: Folder, denoisers: Sequence[Denoiser], names: Sequence[str]) -> list[Row]:
    """Score denoisers on a folder, under each corruption of `names` of STANDARD or its real noise.

    Real noise has a second row where some of the images have little of it.
    """
    rows = [
        _score(folder.name, name, folder.pairs(name), len(folder.clean), denoisers)
        for name in folder.corruptions(names)
    ]
    return rows + [mild for row in rows for mild in _mild(row)]


def _mild(row: Row) -> Iterator[Row]:
    few = [place for place, score in enumerate(row.scores["noisy"]) if score.psnr > _LITTLE]
    if row.corruption == REAL and few:
        scores = {name: [of[place] for place in few] for name, of in row.scores.items()}
        yield Row(row.dataset, MILD, scores)


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
            places = range(0, len(images), every)
            pairs = (_own_pair(recipe, images[place], place) for place in places)
            return [_score(f"{kind} test", described(recipe), pairs, len(places), denoisers)]
        case SpiralRecipe():
            return []
        case PhotosRecipe():
            raise DataError(f"{recipe.name} has no test images of its own; name folders of images")


def own_shape(recipe: Recipe) -> tuple[int, int, int] | None:
    """H, W and C of the noisy images of `evaluate_own`; None where the data are no images of one size."""
    if not isinstance(recipe.data, DigitsRecipe):
        return None
    channels, height, width = recipe.data.shape
    return height // scale_of(recipe), width // scale_of(recipe), channels


def described(recipe: Recipe) -> str:
    """The corruption of a recipe in a few words: `gaussian sigma=127.5`."""
    parts = []
    for each in recipe.corruption:
        levels = each.model_dump(mode="json", exclude={"kind", "weight", "gray"})
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
    sigma = only.sigma[0] if known and isinstance(only, Gaussian) else None
    return Pair(str(seed), noisy, clean, sigma)


def _score(
    dataset: str, corruption: str, pairs: Iterable[Pair], count: int, denoisers: Sequence[Denoiser]
) -> Row:
    scores: dict[str, list[Score]] = {}
    for pair in tqdm(pairs, desc=f"{dataset}, {corruption}", total=count, leave=False):
        for name, score in _scores(pair, denoisers):
            scores.setdefault(name, []).append(score)
    answered = {name: given for name, given in scores.items() if len(given) == len(scores["noisy"])}
    return Row(dataset, corruption, answered)


def _scores(pair: Pair, denoisers: Sequence[Denoiser]) -> Iterator[tuple[str, Score]]:
    yield "noisy", _compare(pair.shown, pair, 0.0)
    for denoiser in denoisers:
        begun = time.perf_counter()
        restored = denoiser(pair.noisy, pair.sigma)
        seconds = time.perf_counter() - begun
        # A peer that does not enlarge has no answer where the clean image is larger.
        if restored is not None and restored.shape == pair.clean.shape:
            yield denoiser.name, _compare(restored, pair, seconds)


def _compare(image: Photo, pair: Pair, seconds: float) -> Score:
    height, width, _ = pair.clean.shape
    similarity = structural_similarity(pair.clean, image, channel_axis=2, data_range=255)
    return Score(pair.name, psnr(pair.clean, image), similarity, seconds, height * width)


def psnr(clean: Photo, image: Photo) -> float:
    """In dB, over all channels; 100 where nothing differs."""
    if np.array_equal(clean, image):
        return _EQUAL
    return float(peak_signal_noise_ratio(clean, image, data_range=255))
