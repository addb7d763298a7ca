"""Toy data on a one-dimensional manifold of the plane (after Alain & Bengio 2014, figure 5)."""

import math

import numpy as np
import numpy.typing as npt

from training.corruption import Image

_INNER, _OUTER = 0.08, 0.42  # radius, in a square with sides of 1


def points(count: int, turns: float, rng: np.random.Generator) -> Image:
    """Points of an Archimedean spiral in the unit square, even along its length.

    Args:
        turns: how often it goes around its centre (0.5, 0.5), from radius 0.08 out to 0.42.

    Returns:
        float32 `[count, 2]`, x and y of 0..1.
    """
    # Even in length is even in the square of the radius, near enough once r >> dr/dangle.
    radius = np.sqrt(rng.uniform(_INNER**2, _OUTER**2, count))
    return _at(radius, turns).astype(np.float32)


def distance(found: Image, turns: float) -> Image:
    """How far each point `[n, 2]` is from the curve, float32 `[n]`."""
    curve = _at(np.linspace(_INNER, _OUTER, 4000), turns)
    return np.array([np.hypot(*(curve - each).T).min() for each in found], np.float32)


def _at(radius: npt.NDArray[np.float64], turns: float) -> npt.NDArray[np.float64]:
    angle = 2 * math.pi * turns * (radius - _INNER) / (_OUTER - _INNER)
    return np.stack([0.5 + radius * np.cos(angle), 0.5 + radius * np.sin(angle)], axis=1)
