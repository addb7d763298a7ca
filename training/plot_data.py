"""The clean data that a published model is drawn with."""

import gzip
import os
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import skimage.data

from model_store import ModelCard
from training.corruption import Photo
from training.data import gray, read_photos
from training.errors import DataError


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
        DataError: the data are not there.
    """
    rng = np.random.default_rng(seed)
    _, height, width, channels = card.inputs[0].shape
    sides = [side * card.scale for side in (height, width) if isinstance(side, int)]
    if folder is None and sides:
        images, labels = _test_set(card, data_dir)
        chosen = rng.permutation(len(images))[:count]
        border = (sides[0] - images.shape[1]) // 2
        padded = np.pad(images[chosen], ((0, 0), (border, border), (border, border)))
        return TestImages(list(padded[..., None]), labels[chosen])
    if folder is None:
        photos: list[Photo] = [skimage.data.coffee(), skimage.data.chelsea(), skimage.data.astronaut()]
    else:
        found = read_photos(folder, 1)
        photos = [found[each] for each in rng.permutation(len(found))[:count]]
    if sides:
        size = (sides[1], sides[0])
        photos = [
            np.asarray(cv2.resize(each, size, interpolation=cv2.INTER_AREA), np.uint8) for each in photos
        ]
    if channels == 1:
        photos = [gray(each)[..., :1] for each in photos]
    return TestImages(photos[:count], np.zeros(len(photos[:count]), np.uint8))


def _test_set(card: ModelCard, data_dir: Path | None) -> tuple[Photo, npt.NDArray[np.uint8]]:
    """MNIST's or Fashion-MNIST's 10000 test images, uint8 `[N, 28, 28]`, and their classes."""
    fashion = card.name.startswith("fashion") or any(
        "fashion" in each.name.lower() for each in card.training_data
    )
    name = "fashion-mnist" if fashion else "mnist"
    chosen = data_dir or os.environ.get("QUIETFRAME_DATA_DIR")
    if not chosen:
        raise DataError(f"pass the folder that holds {name}/ with --data-dir or QUIETFRAME_DATA_DIR")
    images, labels = (
        _read_idx(Path(chosen) / name / f"t10k-{kind}-ubyte.gz", header)
        for kind, header in (("images-idx3", 16), ("labels-idx1", 8))
    )
    return images.reshape(-1, 28, 28), labels


def _read_idx(path: Path, header: int) -> npt.NDArray[np.uint8]:
    try:
        return np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=header)
    except (OSError, EOFError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}") from None


def spiral_points(count: int, seed: int) -> npt.NDArray[np.float32]:
    """Points `[count, 2]` of the spiral that toy-spiral is trained on: 1.5 turns in the unit square."""
    rng = np.random.default_rng(seed)
    radius = np.sqrt(rng.uniform(0.08**2, 0.42**2, count))
    angle = 2 * np.pi * 1.5 * (radius - 0.08) / 0.34
    return np.asarray(0.5 + radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1), np.float32)


def plane_points(side: int) -> npt.NDArray[np.float32]:
    """A square grid of the unit square, `[side * side, 2]`."""
    x, y = np.meshgrid(np.linspace(0, 1, side), np.linspace(0, 1, side))
    return np.stack([x.ravel(), y.ravel()], 1).astype(np.float32)
