"""The training loop, on Lightning: read it top to bottom."""

import logging
import math
import time
import warnings
from pathlib import Path
from typing import Any

import cv2
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EMAWeightAveraging, ModelCheckpoint, TQDMProgressBar
from pytorch_lightning.loggers import CSVLogger
from torch import Tensor
from torch.optim import AdamW
from torch.utils.data import DataLoader

from training.corruption import Mixture, Photo
from training.data import Patches, Stream, read_photos
from training.errors import DataError, DivergedError, RecipeError
from training.losses import LOSSES, psnr
from training.muon import hold_kernels_as_matrices, muon_and_adamw
from training.networks import ResidualUNet
from training.recipe import NetworkRecipe, Recipe

VALIDATION_PATCHES = 128
log = logging.getLogger(__name__)
logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)


class Denoiser(pl.LightningModule):
    """A network learning to undo the corruption of its recipe."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.automatic_optimization = False  # Muon and AdamW step together
        self.recipe = recipe
        self.network = build_network(recipe.network)
        if recipe.fit.optimiser == "muon":
            hold_kernels_as_matrices(self.network)
        self.loss = LOSSES[recipe.fit.loss]
        self.earlier: list[dict[str, Any]] = []
        self.photographs = 0
        self.steps_done = 0
        self.seconds_done = 0.0
        self._clock = 0.0

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        fit = self.recipe.fit
        if fit.optimiser == "muon":
            return list(muon_and_adamw(self.network, fit.rate))
        return [AdamW(self.network.parameters(), lr=fit.rate, weight_decay=0.0)]

    def on_train_start(self) -> None:
        self._clock = time.monotonic()

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        noisy, clean = batch
        restored = self.network(noisy)
        loss = self.loss(restored.float(), clean, noisy)
        if not torch.isfinite(loss):
            raise DivergedError(
                f"loss is {loss.item()} at step {self.steps_done} (data seed {self.recipe.fit.seed}); "
                "lower fit.rate and run again: it goes on from the last good checkpoint"
            )
        self._step(loss)
        self.log("loss", loss, prog_bar=True)
        self.log("psnr", psnr(restored.detach().float(), clean), prog_bar=True)

    def _step(self, loss: Tensor) -> None:
        optimisers = self.optimizers()
        optimisers = optimisers if isinstance(optimisers, list) else [optimisers]
        rate = self.recipe.fit.rate * self._rate_factor()
        for optimiser in optimisers:
            for group in optimiser.param_groups:
                group["lr"] = rate
            optimiser.zero_grad()
        self.manual_backward(loss)
        for optimiser in optimisers:
            optimiser.step()
        self.steps_done += 1
        now = time.monotonic()
        self.seconds_done, self._clock = self.seconds_done + now - self._clock, now
        self.log("rate", rate)
        if self.progress >= 1:
            self.trainer.should_stop = True

    @property
    def progress(self) -> float:
        """Share of the budget that is used up: of steps or of time, the larger; 1 = finished."""
        fit = self.recipe.fit
        minutes = fit.minutes or math.inf
        return max(self.steps_done / fit.steps, self.seconds_done / (60 * minutes))

    def _rate_factor(self) -> float:
        """Linear warm-up, then a cosine to zero (Loshchilov & Hutter 2017) over the budget."""
        warm = min(1.0, (self.steps_done + 1) / max(1, self.recipe.fit.warmup))
        return warm * 0.5 * (1 + math.cos(math.pi * min(1.0, self.progress)))

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        noisy, clean = batch
        self.log("val_psnr", psnr(self.network(noisy).float(), clean), prog_bar=True)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if not all(torch.isfinite(weight).all() for weight in self.parameters()):
            raise DivergedError(f"a weight is no number at step {self.steps_done}; lower fit.rate")
        checkpoint["recipe"] = self.recipe.model_dump(mode="json")
        checkpoint["earlier"] = self.earlier
        checkpoint["photographs"] = self.photographs
        checkpoint["steps_done"] = self.steps_done
        checkpoint["seconds_done"] = self.seconds_done

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.steps_done = checkpoint["steps_done"]
        self.seconds_done = checkpoint["seconds_done"]
        self.earlier = checkpoint["earlier"]

    def take_weights(self, checkpoint: dict[str, Any]) -> None:
        """Begin with the averaged weights of an earlier run, and remember how they were trained."""
        self.load_state_dict(checkpoint["state_dict"])
        trained = {key: checkpoint["recipe"][key] for key in ("fit", "corruption", "data")}
        effort = {"steps": checkpoint["steps_done"], "minutes": round(checkpoint["seconds_done"] / 60, 1)}
        self.earlier = [*checkpoint["earlier"], {**trained, **effort}]


def build_network(recipe: NetworkRecipe) -> ResidualUNet:
    return ResidualUNet(recipe.widths, recipe.blocks, recipe.unshuffle)


def batches(recipe: Recipe, photos: list[Photo], sampler: Any, seed: int, workers: int) -> Any:
    patches = Patches(
        photos,
        Mixture(of=recipe.corruption),
        patch=recipe.data.patch,
        shrink=recipe.data.shrink,
        gray=recipe.data.gray,
        seed=seed,
    )
    return DataLoader(
        patches,
        batch_size=recipe.fit.batch,
        sampler=sampler,
        num_workers=workers,
        persistent_workers=workers > 0,
        worker_init_fn=_one_thread,
    )


def _one_thread(worker: int) -> None:
    cv2.setNumThreads(0)


def fit(recipe: Recipe, photos: Path, run: Path, *, begin_with: Path | None = None, workers: int = 1) -> Path:
    """Train a recipe on a folder of photographs; goes on from `run/last.ckpt` when there is one.

    Args:
        photos: folder of clean images; each side at least `data.patch` pixels.
        run: folder of last.ckpt and log/version_N/metrics.csv, one for each run.
        begin_with: an earlier run of the same network, whose weights a new run begins with.
        workers: processes that make patches; 0 makes them in the training process.

    Returns:
        The last checkpoint, whose weights are the exponential moving average.
    """
    pl.seed_everything(recipe.fit.seed, verbose=False)
    last = run / "last.ckpt"
    model = Denoiser(recipe)
    if last.exists():
        checkpoint = torch.load(last, map_location="cpu", weights_only=True)
        _refuse_another_recipe(recipe, checkpoint["recipe"], run)
        model.on_load_checkpoint(checkpoint)
    elif begin_with:
        model.take_weights(torch.load(begin_with / "last.ckpt", map_location="cpu", weights_only=True))
    if model.progress >= 1:
        log.warning("%s is finished already; give another --run to train again", last)
        return last
    images = read_photos(photos, recipe.data.patch)
    held_out = max(1, min(recipe.data.holdout, len(images) // 4))
    if len(images) == held_out:
        raise DataError(f"{photos} has one usable photograph; one is held out, so two are the least")
    model.photographs = len(images) - held_out
    stream = Stream(recipe.fit.epoch * recipe.fit.batch, model.steps_done // recipe.fit.epoch)
    with warnings.catch_warnings():
        # Advice on what is done on purpose: one worker, resuming into the same folder.
        warnings.filterwarnings("ignore", module="pytorch_lightning")
        make_trainer(recipe, run).fit(
            model,
            batches(recipe, images[held_out:], stream, recipe.fit.seed, workers),
            batches(recipe, images[:held_out], range(VALIDATION_PATCHES), recipe.fit.seed, 0),
            ckpt_path=last if last.exists() else None,
            weights_only=True,
        )
    return last


def _refuse_another_recipe(recipe: Recipe, trained: dict[str, Any], run: Path) -> None:
    """Only the budget may change between the parts of one run."""
    given = recipe.model_dump(mode="json")
    for spelled in (given, trained):
        spelled["fit"] = {**spelled["fit"], "steps": None, "minutes": None}
    changed = [key for key in given if given[key] != trained.get(key)]
    if changed:
        raise RecipeError(f"{run} was begun with another recipe ({', '.join(changed)}); give another --run")


def make_trainer(recipe: Recipe, run: Path) -> pl.Trainer:
    checkpoints = ModelCheckpoint(
        run, filename="last", save_top_k=1, enable_version_counter=False, every_n_epochs=1
    )
    return pl.Trainer(
        devices=1,
        max_epochs=-1,
        precision=recipe.fit.precision,
        callbacks=[EMAWeightAveraging(decay=recipe.fit.ema), checkpoints, TQDMProgressBar(20)],
        logger=CSVLogger(run, name="log"),
        log_every_n_steps=50,
        num_sanity_val_steps=0,
        enable_model_summary=False,
        default_root_dir=run,
    )
