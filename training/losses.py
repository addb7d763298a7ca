"""Reconstruction losses; each takes (restored, clean, noisy), float `[N, ...]` of 0..1, to a scalar.

A loss is the negative log-likelihood of a reconstruction distribution p(x|h), up to constants:
which one, its docstring says. The denoising score-matching objective is in `score`.
"""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
_EPSILON = 1e-7  # as Keras clips probabilities


def mse(restored: Tensor, clean: Tensor, _noisy: Tensor) -> Tensor:
    """Mean squared error: p(x|h) = N(x; r, s^2 I) with a fixed s (Vincent et al. 2010, section 2.2)."""
    return (restored - clean).square().mean()


def bce(restored: Tensor, clean: Tensor, _noisy: Tensor) -> Tensor:
    """Binary cross-entropy in nats a value: p(x|h) = Bernoulli(x; r), r of 0..1 (Vincent et al. 2010).

    Gray levels count as probabilities, so it is not 0 at its best but the entropy of the image.
    """
    p = restored.clamp(_EPSILON, 1 - _EPSILON)
    return -(clean * p.log() + (1 - clean) * (1 - p).log()).mean()


class GaussianNll(nn.Module):
    """Mean negative log-likelihood in nats a value: p(x|h) = N(x; r, s^2 I) with a learned s.

    One s for all values, as in the sigma-VAE (Rybkin et al. 2021, section 3.2): it ends at the root
    of the mean squared error, and the gradient of r is scaled by it on the way.
    """

    def __init__(self) -> None:
        super().__init__()
        self.log_variance = nn.Parameter(torch.tensor(math.log(0.1)))

    def forward(self, restored: Tensor, clean: Tensor, _noisy: Tensor) -> Tensor:
        error = (restored - clean).square().mean()
        loss: Tensor = 0.5 * (error / self.log_variance.exp() + self.log_variance + math.log(2 * math.pi))
        return loss


def charbonnier(restored: Tensor, clean: Tensor, _noisy: Tensor, epsilon: float = 1e-3) -> Tensor:
    """sqrt(d^2 + epsilon^2) (Charbonnier et al. 1994): p(x|h) is hyperbolic, a Laplace with a round tip."""
    return ((restored - clean).square() + epsilon**2).sqrt().mean()


def relative_mse(restored: Tensor, clean: Tensor, noisy: Tensor) -> Tensor:
    """Mean over images of MSE / sqrt(MSE of the noisy input): p(x|h) = N(x; r, s^2 I), s^2 as that root.

    What is left after denoising grows about with that root, so every noise level counts alike, as
    with `psnr_loss`; but a textured image is not let off because a smooth one is easier.
    """
    left, given = ((image - clean).square().flatten(1).mean(1) for image in (restored, noisy))
    return (left / (given + 1e-4).sqrt()).mean()


def psnr_loss(restored: Tensor, clean: Tensor, _noisy: Tensor, floor: float = 1e-6) -> Tensor:
    """Mean over images of 10 log10(MSE + floor), i.e. -PSNR in dB (Chen et al. 2021, HINet, section 3.4).

    p(x|h) = N(x; r, s^2 I) with the s of each image maximised out: an image with little noise
    counts as much as one with a lot. Bounded below at 10 log10(floor) dB: an image's gradient is divided
    by its own error, so with a low floor a tenth of a batch, flat or nearly clean already, has nine tenths
    of the sum of squared gradients.
    """
    error = (restored - clean).square().flatten(1).mean(1)
    return 10 * (error + floor).log10().mean()


LOSSES: dict[str, Loss] = {
    "mse": mse,
    "bce": bce,
    "charbonnier": charbonnier,
    "relative-mse": relative_mse,
    "psnr": psnr_loss,
}


def build_loss(name: str, floor: float) -> Loss:
    """The loss of that name; one with parameters is made anew. `floor` is that of "floored-psnr"."""
    match name:
        case "gaussian-nll":
            return GaussianNll()
        case "floored-psnr":
            return partial(psnr_loss, floor=floor)
        case _:
            return LOSSES[name]


def psnr(restored: Tensor, clean: Tensor) -> Tensor:
    """Mean peak signal-to-noise ratio in dB of images in 0..1, after clipping."""
    error = (restored.clamp(0, 1) - clean).square().flatten(1).mean(1)
    return -10 * torch.log10(error.clamp_min(1e-10)).mean()
