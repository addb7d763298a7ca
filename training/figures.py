"""Measurements of a network beside PSNR and SSIM: likelihood, how a code separates the classes, distances."""

from pathlib import Path

import numpy as np
import torch
from sklearn.neighbors import KNeighborsClassifier

from training import digits, spiral
from training.batches import to_planes
from training.classic import Latent2
from training.classifier import accuracy_of_seeds, to_float_planes
from training.corruption import Corruption, Image, Mixture, to_float, to_uint8
from training.digits import Digits
from training.losses import bce
from training.network import Network
from training.recipe import Recipe
from training.recipe_parts import DigitsRecipe, SpiralRecipe
from training.stacked import Stacked

NEIGHBOURS = 30  # of 60,000 points in the plane; 20 to 80 differ by half a percent
SEEDS = 5
LABELS = 0.01


@torch.no_grad()
def figures_of(recipe: Recipe, network: Network, data: Path | None) -> dict[str, float]:
    """What is measured of this kind of network on its own test data, by name; nothing for photographs.

    Args:
        data: as for `digits.load`.
    """
    match recipe.data:
        case DigitsRecipe(kind=kind, side=side):
            test = digits.load(kind, "test", side, data)
            found = _likelihood(recipe, network, test)
            if isinstance(network, Latent2):
                found |= _separation(recipe, network, digits.load(kind, "train", side, data), test)
            if isinstance(network, Stacked):
                with torch.enable_grad():
                    found |= _worth(network, digits.load(kind, "train", side, data), test)
            return found
        case SpiralRecipe(points=_, turns=turns):
            return _distances(recipe, network, turns)
        case _:
            return {}


def noisy_images(recipe: Recipe, clean: Image, seed: int) -> Image:
    """What the recipe's corruption makes of `[n, H, W, C]`, in 8 bits where the recipe says so."""
    corruption: Corruption = Mixture(of=recipe.corruption)
    noisy = corruption.apply_batch(clean, np.random.default_rng(seed))
    return to_float(to_uint8(noisy)) if getattr(recipe.data, "eight_bits", True) else noisy


def _likelihood(recipe: Recipe, network: Network, test: Digits) -> dict[str, float]:
    """Test BCE in nats a pixel, where the network gives probabilities."""
    if recipe.fit.loss != "bce":
        return {}
    clean = to_float(test.images)
    noisy = to_planes(noisy_images(recipe, clean, seed=0))
    return {"test bce": round(float(bce(network(noisy), to_planes(clean), noisy)), 5)}


def _separation(recipe: Recipe, network: Latent2, train: Digits, test: Digits) -> dict[str, float]:
    """Accuracy of k-NN on the codes of clean images, and of noisy ones."""
    found = {}
    for name, seeds in (("clean", None), ("noisy", (1, 2))):
        codes = []
        for part, seed in zip((train, test), seeds or (0, 0), strict=True):
            images = to_float_planes(part)
            if seeds:
                images = to_planes(noisy_images(recipe, to_float(part.images), seed))
            codes.append(network.encode(images).numpy())
        model = KNeighborsClassifier(NEIGHBOURS).fit(codes[0], train.labels)
        found[f"{NEIGHBOURS}-NN accuracy, {name}"] = round(float(model.score(codes[1], test.labels)), 4)
    return found


def _worth(network: Stacked, train: Digits, test: Digits) -> dict[str, float]:
    pretrained, scratch = accuracy_of_seeds(network, train, test, LABELS, SEEDS)
    name = f"accuracy with {LABELS:.0%} of the labels, mean of {SEEDS} seeds"
    return {
        f"{name}, pre-trained": round(float(np.mean(pretrained)), 4),
        f"{name}, from scratch": round(float(np.mean(scratch)), 4),
    }


def _distances(recipe: Recipe, network: Network, turns: float) -> dict[str, float]:
    """Root mean square distance from the curve before and after, of 2000 new points."""
    clean = spiral.points(2000, turns, np.random.default_rng(1 + recipe.fit.seed))[:, None, None, :]
    noisy = noisy_images(recipe, clean, seed=0)
    restored = network(to_planes(noisy)).numpy()
    return {
        f"distance from the curve, {name}": round(
            float(np.sqrt((spiral.distance(found, turns) ** 2).mean())), 5
        )
        for name, found in (("noisy", noisy[:, 0, 0]), ("restored", restored[:, :, 0, 0]))
    }
