"""What features are worth: a classifier on top of stacked layers, few labels (Vincent et al. 2010)."""

import copy

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from training.classic import begin_by_glorot
from training.digits import Digits
from training.stacked import Stacked

CLASSES = 10
_BATCH = 50
_EPOCHS = 60
_RATE = 1e-3


def accuracy_of_seeds(
    network: Stacked, train: Digits, test: Digits, share: float, seeds: int
) -> tuple[list[float], list[float]]:
    """Accuracies of the pre-trained and of the same classifier from scratch, one of each for a seed.

    Args:
        share: of the labels that are used, 0..1, as many of each class; others for each seed, the
            same for both classifiers.
    """
    pretrained: list[float] = []
    scratch: list[float] = []
    for seed in range(seeds):
        chosen = _balanced(train, share, np.random.default_rng(seed))
        images, labels = to_float_planes(train)[chosen], torch.from_numpy(train.labels).long()[chosen]
        for found, keeps_weights in ((pretrained, True), (scratch, False)):
            torch.manual_seed(seed)
            model = _classifier(network, keeps_weights)
            _train(model, images, labels)
            found.append(_accuracy(model, test))
    return pretrained, scratch


def to_float_planes(digits: Digits) -> Tensor:
    """float32 `[n, 1, H, W]` of 0..1."""
    return torch.from_numpy(digits.images.transpose(0, 3, 1, 2)).float() / 255


def _balanced(digits: Digits, share: float, rng: np.random.Generator) -> Tensor:
    each = max(1, round(share * len(digits.labels) / CLASSES))
    chosen = [rng.permutation(np.flatnonzero(digits.labels == label))[:each] for label in range(CLASSES)]
    return torch.from_numpy(np.concatenate(chosen))


def _classifier(network: Stacked, keeps_weights: bool) -> nn.Sequential:
    """The encoders with a softmax layer on top."""
    layers: list[nn.Module] = [nn.Flatten()]
    for encoder in copy.deepcopy(network.encoders):
        layers += [encoder, nn.Sigmoid()]
    top = nn.Linear(network.units, CLASSES)
    model = nn.Sequential(*layers, top)
    begin_by_glorot(top if keeps_weights else model)
    return model


def _train(model: nn.Module, images: Tensor, labels: Tensor) -> None:
    optimiser = torch.optim.Adam(model.parameters(), lr=_RATE)
    for _ in range(_EPOCHS):
        for chosen in torch.split(torch.randperm(len(images)), _BATCH):
            loss = functional.cross_entropy(model(images[chosen]), labels[chosen])
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()


@torch.no_grad()
def _accuracy(model: nn.Module, test: Digits) -> float:
    found = model(to_float_planes(test)).argmax(1)
    return float((found == torch.from_numpy(test.labels)).float().mean())
