"""Crops as cameras deliver them, and more of them: turned, stretched, sharpened, in other light."""

import math
from typing import cast

import cv2
import numpy as np

from training.pixels import Image, Photo, to_float

_STRETCH = 0.25
_SHARPEST = 1.4


def augmented(photo: Photo, side: int, shrink: float, rng: np.random.Generator) -> Image | None:
    """One crop, turned, sharpened and recoloured; every other time the more detailed one of two.

    Crops of photographs that were made to be looked at are softer and emptier than what a camera
    delivers, which has been sharpened already.

    Returns:
        float32 `[side, side, 3]`, 0..1; None where none fits into the photograph.
    """
    crops = (turned_crop(photo, side, shrink, rng) for _ in range(rng.integers(1, 3)))
    fitting = [crop for crop in crops if crop is not None]
    if not fitting:
        return None
    return recoloured(sharpened(max(fitting, key=_detail), rng), rng)


def _detail(image: Image) -> float:
    return float(
        np.abs(np.diff(image[..., 1], axis=0)).mean() + np.abs(np.diff(image[..., 1], axis=1)).mean()
    )


def turned_crop(photo: Photo, side: int, shrink: float, rng: np.random.Generator) -> Image | None:
    """A square of the photograph at any angle, stretched by up to 1.65 to 1, shrunk up to `shrink` times.

    Most of the shrinking averages areas, up to 1.4 times of it picks points: so a crop is as soft or
    as sharp as photographs are.

    Returns:
        float32 `[side, side, 3]`, about 0..1; None where it does not fit into the photograph.
    """
    angle, stretch = rng.uniform(0, 2 * math.pi), rng.uniform(-_STRETCH, _STRETCH)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    axes = turn * np.exp([stretch, -stretch])
    extent = np.abs(axes).sum(1) * side + 2
    room = np.array(photo.shape[1::-1]) / extent
    if room.min() < 1:
        return None
    scale = rng.uniform(1, min(shrink, room.min()))
    picked = min(scale, rng.uniform(1, _SHARPEST))
    size = np.ceil(extent * scale).astype(int).clip(max=photo.shape[1::-1])
    left, top = rng.integers(np.array(photo.shape[1::-1]) - size + 1)
    box = to_float(photo[top : top + size[1], left : left + size[0]])
    small = np.ceil(size * picked / scale).astype(int)
    box = cast(Image, cv2.resize(box, small.tolist(), interpolation=cv2.INTER_AREA))
    axes = axes * picked
    offset = (small - 1) / 2 - axes @ np.full(2, (side - 1) / 2)
    flags = cv2.INTER_LANCZOS4 | cv2.WARP_INVERSE_MAP
    matrix = np.column_stack([axes, offset])
    turned = cv2.warpAffine(box, matrix, (side, side), flags=flags, borderMode=cv2.BORDER_REFLECT_101)
    return cast(Image, turned)


def sharpened(image: Image, rng: np.random.Generator) -> Image:
    """Up to 0.9 of what a Gaussian of deviation 0.8 takes away is added again (unsharp masking)."""
    detail = image - cv2.GaussianBlur(image, (0, 0), 0.8, borderType=cv2.BORDER_REFLECT_101)
    return np.asarray(image + np.float32(rng.uniform(0, 0.9)) * detail, np.float32)


def recoloured(image: Image, rng: np.random.Generator) -> Image:
    """The same in other light: saturation, gamma, a little of it by channel, exposure; float32, 0..1."""
    image = np.clip(image, 0, 1)
    mean = image.mean(axis=2, keepdims=True)
    image = np.clip(mean + rng.uniform(0.6, 1.3) * (image - mean), 0, 1)
    gamma = np.exp(rng.uniform(-0.3, 0.3) + rng.normal(0, 0.05, 3)).astype(np.float32)
    return exposed(image**gamma, rng)


def exposed(image: Image, rng: np.random.Generator) -> Image:
    """The same with other black and white points; float32, 0..1.

    A third of them is overexposed, as frames are: what a network makes of white, it learns from white.
    """
    low, high = rng.uniform(-0.03, 0.1), rng.uniform(0.8, 1.1)
    return np.asarray(np.clip(low + (high - low) * image, 0, 1), np.float32)
