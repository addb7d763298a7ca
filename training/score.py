"""What a denoising autoencoder knows of the data's density: its score, and samples drawn with it.

The best reconstruction of x~ = x + N(0, sigma^2 I) in mean squared error is
r(x~) = E[x|x~] = x~ + sigma^2 grad log p_sigma(x~) (Miyasawa 1961, Tweedie's formula in Robbins 1956),
p_sigma being the data's density smoothed by the noise. So a trained DAE holds the score of p_sigma
(Vincent 2011; Alain & Bengio 2014, theorem 1). That needs the noise unclipped and the mean squared error.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Function = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Level:
    """A reconstruction r(x), `[N, ...]` to `[N, ...]`, trained with Gaussian noise of this sigma.

    `sigma` is in the units of x (a recipe's grey levels divided by 255).
    """

    reconstruct: Function
    sigma: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.sigma) and self.sigma > 0):
            raise ValueError(f"sigma is a positive number, not {self.sigma}")

    def score(self, x: Tensor) -> Tensor:
        """Estimate grad log p_sigma(x) = (r(x) - x) / sigma^2, of the shape of x."""
        return (self.reconstruct(x) - x) / self.sigma**2


def denoising_score_matching(score: Tensor, clean: Tensor, noisy: Tensor, sigma: float) -> Tensor:
    """Mean over examples of 1/2 |s(x~) - (x - x~) / sigma^2|^2 (Vincent 2011, equation 9).

    (x - x~) / sigma^2 is the score of the corruption, grad log N(x~; x, sigma^2 I). With
    s(x~) = (r(x~) - x~) / sigma^2 this is the squared reconstruction error over 2 sigma^4.

    Args:
        score: s(x~), `[N, ...]`.
        clean: x, of the same shape.
        noisy: x~, of the same shape.
    """
    return 0.5 * (score - (clean - noisy) / sigma**2).square().flatten(1).sum(1).mean()


@torch.no_grad()
def langevin(
    levels: Sequence[Level],
    start: Tensor,
    *,
    steps: int,
    step: float,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draw from p_sigma by Langevin dynamics, x <- x + a/2 score(x) + sqrt(a) N(0, I).

    With several levels it is annealed (Song & Ermon 2019, algorithm 1): `steps` steps at each, from
    the coarsest to the finest, whose density the result is of. That lets samples find modes that
    are far apart at the finest level.

    Args:
        levels: with sigmas from large to small; one for plain Langevin dynamics.
        start: `[N, ...]`, any points; each becomes one sample.
        steps: of each level.
        step: the step size a in units of sigma^2; below about 0.3 its bias is small.

    Returns:
        As many samples as there are in `start`.
    """
    sigmas = [level.sigma for level in levels]
    if not sigmas or sorted(sigmas, reverse=True) != sigmas:
        raise ValueError(f"levels go from the largest sigma to the smallest, not {sigmas}")
    x = start.clone()
    for level in levels:
        size = step * level.sigma**2
        for _ in range(steps):
            noise = torch.randn(x.shape, generator=generator, dtype=x.dtype)
            x += size / 2 * level.score(x) + math.sqrt(size) * noise
    return x
