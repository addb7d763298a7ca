"""Reconstruction losses; each takes (restored, clean, noisy), float `[N, C, H, W]` of 0..1, to a scalar."""

from collections.abc import Callable

import torch
from torch import Tensor

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


def mse(restored: Tensor, clean: Tensor, _noisy: Tensor) -> Tensor:
    """Mean squared error: -log p(x|h) of a Gaussian of fixed variance, up to constants."""
    return (restored - clean).square().mean()


def charbonnier(restored: Tensor, clean: Tensor, _noisy: Tensor, epsilon: float = 1e-3) -> Tensor:
    """Smooth L1, sqrt(d^2 + epsilon^2) (Charbonnier et al. 1994); close to a Laplace p(x|h)."""
    return ((restored - clean).square() + epsilon**2).sqrt().mean()


def relative_mse(restored: Tensor, clean: Tensor, noisy: Tensor) -> Tensor:
    """Mean over images of MSE / sqrt(MSE of the noisy input).

    What is left after denoising grows about with that root, so every noise level counts alike, as
    with `psnr_loss`; but a textured image is not let off because a smooth one is easier.
    """
    left, given = ((image - clean).square().flatten(1).mean(1) for image in (restored, noisy))
    return (left / (given + 1e-4).sqrt()).mean()


def psnr_loss(restored: Tensor, clean: Tensor, _noisy: Tensor) -> Tensor:
    """Mean over images of 10 log10(MSE), i.e. -PSNR in dB (Chen et al. 2021, HINet, section 3.4).

    The Gaussian likelihood with the variance of each image maximised out: an image with little
    noise counts as much as one with a lot. Bounded below at -60 dB.
    """
    error = (restored - clean).square().flatten(1).mean(1)
    return 10 * (error + 1e-6).log10().mean()


LOSSES: dict[str, Loss] = {
    "mse": mse,
    "charbonnier": charbonnier,
    "relative-mse": relative_mse,
    "psnr": psnr_loss,
}


def psnr(restored: Tensor, clean: Tensor) -> Tensor:
    """Mean peak signal-to-noise ratio in dB of images in 0..1, after clipping."""
    error = (restored.clamp(0, 1) - clean).square().flatten(1).mean(1)
    return -10 * torch.log10(error.clamp_min(1e-10)).mean()
