"""How noisy an image was, by what a denoiser removed from it."""

import math
from collections.abc import Iterable

import numpy as np

from service.codec import Pixels


def noise_sigma(pairs: Iterable[tuple[Pixels, Pixels]]) -> float:
    """Estimated standard deviation of the noise, in levels of 255: the RMS of noisy minus denoised.

    For a network r(x) that gives the mean of the clean images that can have become x, as one trained
    on squared error does (Vincent 2011; Miyasawa 1961), the error r(x) - clean is orthogonal to every
    function of x, so E|x - clean|^2 = E|x - r(x)|^2 + E|r(x) - clean|^2. What is left or lost by the
    network is missing: the estimate is low by the square of its error over twice sigma. All that the
    network takes for noise counts, also where it is correlated, which estimators that look at the
    finest scale only (Immerkaer 1996; Donoho and Johnstone 1994) miss or mistake texture for.
    docs/operations.md has the bias that was measured, with the command.

    Args:
        pairs: uint8 noisy and denoised at strength 1, of one shape each, which together are the image.

    Returns:
        0..255, of the 8-bit image as it is: after clipping at black and white.
    """
    squares, count = 0.0, 0
    for noisy, denoised in pairs:
        removed = np.subtract(noisy, denoised, dtype=np.float32)
        squares += float(np.vdot(removed, removed))
        count += removed.size
    return math.sqrt(squares / count)
