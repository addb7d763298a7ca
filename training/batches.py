"""What a recipe trains on, as seeded batches of (noisy, clean) that any process can make by number."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from training import digits, spiral
from training.corruption import Corruption, Image, Mixture, Photo, to_float, to_uint8
from training.data import Patches, Stream, read_photos
from training.errors import DataError, RecipeError
from training.recipe import Recipe
from training.recipe_parts import DigitsRecipe, PhotosRecipe, SpiralRecipe

VALIDATION_PATCHES = 128
Batch = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Share:
    """Which part of every batch a process makes: every `world`-th sample from `rank` on."""

    rank: int = 0
    world: int = 1


@dataclass(frozen=True)
class Batches:
    """Training and validation data of a recipe; `images` is how many samples training draws from.

    An epoch is `epoch` steps, and `loader(steps)` goes on after any number of them.
    """

    recipe: Recipe
    training: "Dataset[Any]"
    validation: "Dataset[Any]"
    images: int
    epoch: int

    def loader(self, steps: int, share: Share, workers: int) -> Any:
        """The training batches after so many steps; each process has its share of all of them."""
        if isinstance(self.training, Arrays):
            self.training.share = share
            return _whole(self.training, Stream(self.epoch, steps))
        batch = self.recipe.fit.batch
        stream = Stream(self.epoch * batch, steps * batch, share.rank, share.world)
        return DataLoader(
            self.training,
            batch_size=batch // share.world,
            sampler=stream,
            num_workers=workers,
            persistent_workers=workers > 0,
            worker_init_fn=_one_thread,
        )

    def validation_loader(self) -> Any:
        """The same batches each time, whole in every process."""
        if isinstance(self.validation, Arrays):
            return _whole(self.validation, range(self.validation.batches))
        return DataLoader(
            self.validation, batch_size=self.recipe.fit.batch, sampler=range(VALIDATION_PATCHES)
        )


def prepare(recipe: Recipe, data: Path | None) -> Batches:
    """Read what a recipe trains on.

    Args:
        data: the folder of photographs; for digits that of their files (see `digits.load`).

    Raises:
        DataError: there is none, or it cannot be used.
    """
    match recipe.data:
        case PhotosRecipe():
            return _photographs(recipe, recipe.data, data)
        case DigitsRecipe(kind=kind, side=side, holdout=holdout):
            images = digits.load(kind, "train", side, data).images
            return _arrays(recipe, images, holdout, f"{kind} has {len(images)} training images")
        case SpiralRecipe(points=count, turns=turns, holdout=holdout):
            rng = np.random.default_rng(recipe.fit.seed)
            curve = spiral.points(count, turns, rng)[:, None, None, :]
            return _arrays(recipe, curve, holdout, f"data.points is {count}")


def _photographs(recipe: Recipe, options: PhotosRecipe, folder: Path | None) -> Batches:
    if folder is None:
        raise DataError(f"{recipe.name} is trained on photographs; give their folder with --photos")
    photos = read_photos(folder, options.patch)
    held_out = max(1, min(options.holdout, len(photos) // 4))
    if len(photos) == held_out:
        raise DataError(f"{folder} has one usable photograph; one is held out, so two are the least")
    spread = len(photos) // held_out  # neighbours by name are of one author
    seen = [photo for place, photo in enumerate(photos) if place % spread or place // spread >= held_out]
    training, validation = (
        Patches(
            part,
            Mixture(of=recipe.corruption),
            patch=options.patch,
            shrink=options.shrink,
            gray=options.gray,
            seed=recipe.fit.seed,
            augment=augment,
        )
        for part, augment in ((seen, options.augment), (photos[::spread][:held_out], 0.0))
    )
    return Batches(recipe, training, validation, len(training.photos), recipe.fit.epoch)


def _arrays(recipe: Recipe, samples: Photo | Image, holdout: int, found: str) -> Batches:
    kept = len(samples) - holdout
    if kept < recipe.fit.batch:
        raise RecipeError(f"{found}; data.holdout {holdout} leaves less than one batch of {recipe.fit.batch}")
    training = Arrays(samples[:kept], recipe, shuffled=True)
    validation = Arrays(samples[kept:], recipe, shuffled=False)
    return Batches(recipe, training, validation, kept, training.batches)


class Arrays(Dataset[Batch]):
    """Batch number i of samples held in memory, corrupted anew each time: (noisy, clean), `[n, C, H, W]`.

    The batch depends on (seed, i) alone. Each epoch goes through the samples in another order, and
    leaves out those that do not fill a batch. Where the network enlarges by `scale`, the noisy
    images are shrunk by as much before they are corrupted.
    """

    def __init__(self, samples: Photo | Image, recipe: Recipe, *, shuffled: bool) -> None:
        self.samples = samples
        self.corruption: Corruption = Mixture(of=recipe.corruption)
        self.eight_bits = getattr(recipe.data, "eight_bits", True)
        self.scale = scale_of(recipe)
        self.seed = recipe.fit.seed
        self.batch = min(recipe.fit.batch, len(samples))
        self.batches = len(samples) // self.batch
        self.shuffled = shuffled
        self.share = Share()
        self._order = (-1, np.arange(len(samples)))

    def __getitem__(self, index: int) -> Batch:
        epoch, place = divmod(index, self.batches)
        if self.shuffled and self._order[0] != epoch:
            rng = np.random.default_rng((self.seed, 0, epoch))
            self._order = epoch, rng.permutation(len(self.samples))
        chosen = self._order[1][place * self.batch : (place + 1) * self.batch]
        clean = _as_float(self.samples[chosen])
        rng = np.random.default_rng((self.seed, 1, index))
        noisy = self.corruption.apply_batch(shrunk(clean, self.scale), rng)
        if self.eight_bits:
            noisy = to_float(to_uint8(noisy))
        mine = slice(self.share.rank, None, self.share.world)
        return to_planes(noisy[mine]), to_planes(clean[mine])


def _as_float(samples: Photo | Image) -> Image:
    return to_float(cast(Photo, samples)) if samples.dtype == np.uint8 else cast(Image, samples)


def shrunk(images: Image, scale: int) -> Image:
    """`[n, H, W, C]` with sides `scale` times shorter, each pixel the mean of its block."""
    if scale == 1:
        return images
    n, height, width, channels = images.shape
    blocks = images.reshape(n, height // scale, scale, width // scale, scale, channels)
    return cast(Image, blocks.mean(axis=(2, 4), dtype=np.float32))


def to_planes(images: Image) -> torch.Tensor:
    """float32 `[n, H, W, C]` to `[n, C, H, W]`."""
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))


def scale_of(recipe: Recipe) -> int:
    return 2 if recipe.network.kind == "sr2" else 1


def _whole(batches: Arrays, sampler: Stream | range) -> Any:
    return DataLoader(batches, batch_size=None, sampler=sampler)


def _one_thread(worker: int) -> None:
    cv2.setNumThreads(0)
