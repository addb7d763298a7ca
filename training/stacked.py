"""Stacked denoising autoencoders, trained greedily layer by layer (Vincent et al. 2010, section 3.5)."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from training.classic import Shape, begin_by_glorot
from training.network import Means, Network


class Stacked(Network):
    """Layer k learns to restore the features of layer k - 1 from features of which `masked` are set to 0.

    Training goes through the layers in even shares of the budget: the first restores images from
    what the recipe's corruption makes of them, each further one the clean features below it. In the
    last share the decoders are unfolded on top of the encoders and the whole learns to denoise.

    Args:
        hidden: units of each layer, from the image up.
        masked: share of the features that is set to 0 above the first layer.
    """

    def __init__(self, shape: Shape, hidden: Sequence[int], masked: float) -> None:
        super().__init__()
        self.shape = shape
        self.masked = masked
        self.units = hidden[-1]
        sizes = [shape[0] * shape[1] * shape[2], *hidden]
        self.encoders = nn.ModuleList(nn.Linear(below, above) for below, above in pairwise(sizes))
        self.decoders = nn.ModuleList(nn.Linear(above, below) for below, above in pairwise(sizes))
        self.means = Means()
        begin_by_glorot(self)

    def encode(self, image: Tensor, layers: int | None = None) -> Tensor:
        """Features of the first `layers` layers (all if None): float `[N, C, H, W]` to `[N, units]`, 0..1."""
        features = image.flatten(1)
        for encoder in self.encoders[:layers]:
            features = self.means(encoder(features))
        return features

    def forward(self, image: Tensor) -> Tensor:
        features = self.encode(image)
        for decoder in reversed(self.decoders):
            features = self.means(decoder(features))
        return features.view_as(image)

    def training_pass(self, noisy: Tensor, clean: Tensor, progress: float) -> tuple[Tensor, Tensor]:
        layer = int(progress * (len(self.encoders) + 1))
        if layer >= len(self.encoders):
            return self(noisy), clean
        with torch.no_grad():
            target = self.encode(clean, layer)
        kept = torch.rand_like(target) >= self.masked
        below = target * kept if layer else noisy.flatten(1)
        features = self.means(self.encoders[layer](below))
        return self.means(self.decoders[layer](features)), target
