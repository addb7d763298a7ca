"""The clean data that a published model is drawn with."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import skimage.data

from model_store import ModelCard
from training import digits, spiral
from training.corruption import Image, Photo
from training.data import gray, read_photos
from training.errors import DataError
from training.recipe_parts import SpiralRecipe


@dataclass(frozen=True)
class TestImages:
    """Images, uint8 `[H, W, C]` each, and their classes, all 0 where there are none."""

    images: list[Photo]
    labels: npt.NDArray[np.uint8]

    @property
    def stacked(self) -> Photo:
        return np.stack(self.images)


def test_images(
    card: ModelCard, count: int, data_dir: Path | None, folder: Path | None, seed: int
) -> TestImages:
    """Images that fit a model: `folder`'s; else of the test set it was made for; else three photographs.

    Raises:
        DataError: the data are not there, or the model takes no images.
    """
    if not card.takes_image:
        raise DataError(f"{card.label} takes no images; `plot field` draws models of points")
    rng = np.random.default_rng(seed)
    _, height, width, channels = card.inputs[0].shape
    sides = [side * card.scale for side in (height, width) if isinstance(side, int)]
    data_set = _data_set(card)
    if folder is None and data_set:
        found = digits.load(data_set, "test", sides[0] if sides else 28, data_dir)
        chosen = rng.permutation(len(found.images))[:count]
        return TestImages(list(found.images[chosen]), found.labels[chosen])
    if folder is None:
        photos: list[Photo] = [skimage.data.coffee(), skimage.data.chelsea(), skimage.data.astronaut()]
    else:
        read = read_photos(folder, 1)
        photos = [read[each] for each in rng.permutation(len(read))[:count]]
    if sides:
        size = (sides[1], sides[0])
        photos = [
            np.asarray(cv2.resize(each, size, interpolation=cv2.INTER_AREA), np.uint8) for each in photos
        ]
    if channels == 1:
        photos = [gray(each)[..., :1] for each in photos]
    return TestImages(photos[:count], np.zeros(len(photos[:count]), np.uint8))


def _data_set(card: ModelCard) -> str | None:
    """What a model was trained on, if it has a test set."""
    trained_on = " ".join(each.name.lower() for each in card.training_data)
    return next((name for name in ("fashion-mnist", "mnist") if name in trained_on), None)


def learned_points(card: ModelCard, count: int, seed: int) -> Image:
    """Points of the spiral that a model was trained on, `[count, 2]`; cards of old do not tell its turns.

    Raises:
        DataError: the model takes no points.
    """
    if card.task != "denoise-points":
        raise DataError(f"{card.label} takes no points; `plot reconstructions` draws models of images")
    turns = card.training.get("data", {}).get("turns", SpiralRecipe(kind="spiral").turns)
    return spiral.points(count, turns, np.random.default_rng(seed))


def plane_points(side: int) -> npt.NDArray[np.float32]:
    """A square grid of the unit square, `[side * side, 2]`."""
    x, y = np.meshgrid(np.linspace(0, 1, side), np.linspace(0, 1, side))
    return np.stack([x.ravel(), y.ravel()], 1).astype(np.float32)
