"""The training loop, on Lightning: read it top to bottom."""

import logging
import math
import os
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint, TQDMProgressBar, WeightAveraging
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from torch import Tensor
from torch.optim import Adam, AdamW

from training.batches import Batches, Share, prepare
from training.build import build_network
from training.checkpoint_io import AtomicCheckpointIO
from training.ema import averaging
from training.errors import DataError, DivergedError, RecipeError, StoppedError
from training.grow import grow
from training.losses import build_loss, psnr
from training.muon import hold_kernels_as_kernels, hold_kernels_as_matrices, muon_and_adamw
from training.network import Network
from training.networks import ResidualUNet
from training.provenance import Provenance, provenance_of
from training.recipe import Recipe, changed
from training.stopping import StopAtSignals

log = logging.getLogger(__name__)
_GO_ON = "--begin-with this one goes on from its last good checkpoint, if it has one"
logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)


@dataclass(frozen=True)
class Begun:
    """A network to begin with, its weights as kernels, its recipe, and how it came about, for the card."""

    recipe: Recipe
    network: Network
    earlier: list[dict[str, Any]]
    provenance: Provenance


class Denoiser(pl.LightningModule):
    """A network learning to undo the corruption of its recipe."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.automatic_optimization = False  # Muon and AdamW step together
        self.recipe = recipe
        self.network = build_network(recipe)
        if recipe.fit.optimiser == "muon":
            hold_kernels_as_matrices(self.network)
        self.loss = build_loss(recipe.fit.loss, recipe.fit.floor)
        self.earlier: list[dict[str, Any]] = []
        self.provenance = Provenance()
        self.own_provenance = Provenance()
        self.photographs = 0
        self.steps_an_epoch = recipe.fit.epoch
        self.steps_done = 0
        self.seconds_done = 0.0
        self._clock = 0.0

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        rate = self.recipe.fit.rate
        match self.recipe.fit.optimiser:
            case "muon":
                return list(muon_and_adamw(self, rate))
            case "adamw":
                return [AdamW(self.parameters(), lr=rate, weight_decay=0.0)]
            case "adam":
                return [Adam(self.parameters(), lr=rate)]

    def on_train_start(self) -> None:
        self._clock = time.monotonic()

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        noisy, clean = batch
        seed = self.recipe.fit.seed
        # A network may draw noise of its own: the same after a restart, another in each process.
        torch.manual_seed((seed << 32) + self.steps_done * self.trainer.world_size + self.global_rank)
        restored, target = self.network.training_pass(noisy, clean, self.progress)
        loss = self.loss(restored.float(), target, noisy)
        if not torch.isfinite(loss):
            raise DivergedError(
                f"loss is {loss.item()} at step {self.steps_done} (batch seed {seed}, {self.steps_done}); "
                f"lower fit.rate and give another --run; {_GO_ON}"
            )
        self._step(loss)
        self.log("loss", loss, prog_bar=True)
        self.log("psnr", psnr(restored.detach().float(), target), prog_bar=True)

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
        seconds, self._clock = self.seconds_done + now - self._clock, now
        # One clock for all processes, or they would not stop together.
        self.seconds_done = self.trainer.strategy.broadcast(seconds)
        self.log("rate", rate)
        if self.progress >= 1:
            self.trainer.should_stop = True

    @property
    def progress(self) -> float:
        """Share of the budget that is used up: of steps, epochs or time, the largest; 1 = finished."""
        fit = self.recipe.fit
        epochs, minutes = (limit or math.inf for limit in (fit.epochs, fit.minutes))
        steps = min(fit.steps or math.inf, epochs * self.steps_an_epoch)
        return max(self.steps_done / steps, self.seconds_done / (60 * minutes))

    def _rate_factor(self) -> float:
        """Linear warm-up, then a cosine to zero (Loshchilov & Hutter 2017) over the budget, or nothing."""
        warm = min(1.0, (self.steps_done + 1) / max(1, self.recipe.fit.warmup))
        if self.recipe.fit.schedule == "constant":
            return warm
        return warm * 0.5 * (1 + math.cos(math.pi * min(1.0, self.progress)))

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        noisy, clean = batch
        self.log("val_psnr", psnr(self.network(noisy).float(), clean), prog_bar=True)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if not all(torch.isfinite(weight).all() for weight in self.parameters()):
            raise DivergedError(f"a weight is no number at step {self.steps_done}; lower fit.rate; {_GO_ON}")
        checkpoint["recipe"] = self.recipe.model_dump(mode="json")
        checkpoint["earlier"] = self.earlier
        checkpoint["provenance"] = self.provenance.model_dump(mode="json")
        checkpoint["own_provenance"] = self.own_provenance.model_dump(mode="json")
        checkpoint["photographs"] = self.photographs
        checkpoint["steps_done"] = self.steps_done
        checkpoint["seconds_done"] = self.seconds_done

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.steps_done = checkpoint["steps_done"]
        self.seconds_done = checkpoint["seconds_done"]
        self.earlier = checkpoint["earlier"]
        self.provenance = Provenance.of_checkpoint(checkpoint, "provenance")
        self.own_provenance = Provenance.of_checkpoint(checkpoint, "own_provenance")

    def begin_with(self, begun: Begun) -> None:
        """Take the weights of an earlier network; a U-Net may be larger, and begins by computing the same.

        Raises:
            RecipeError: the network is another one, or not larger, or for samples of another shape.
        """
        hold_kernels_as_kernels(self.network)
        if isinstance(begun.network, ResidualUNet) and isinstance(self.network, ResidualUNet):
            grow(begun.network, self.network)
        else:
            _refuse_another_network(begun, self.recipe, self.network)
            self.network.load_state_dict(begun.network.state_dict())
        if self.recipe.fit.optimiser == "muon":
            hold_kernels_as_matrices(self.network)
        self.earlier, self.provenance = begun.earlier, begun.provenance

    def train_only(self, part: str) -> None:
        """Hold all weights but those whose name has `part` in it."""
        for name, weight in self.network.named_parameters():
            weight.requires_grad_(part in name.split("."))


def fit(
    recipe: Recipe, data: Path | None, run: Path, *, begun: Begun | None = None, workers: int = 1
) -> Path:
    """Train a recipe; goes on from `run/last.ckpt` when there is one.

    Started by `torchrun` it is one of several processes that share each batch.

    Args:
        data: folder of clean photographs, each side at least `data.patch` pixels; for MNIST that of
            its files, or None for the cache; for the spiral None.
        run: folder of last.ckpt and of log/version_N/metrics.csv with TensorBoard's events, one for
            each run.
        begun: the same network, or a smaller U-Net, that a new run begins with.
        workers: processes that make patches; 0 makes them in the training process.

    Returns:
        The last checkpoint, whose weights are the exponential moving average.

    Raises:
        DataError, RecipeError: the data, the recipe or what is in `run` cannot be used; nothing has been
            trained.
        DivergedError: the loss or a weight is no number; the last good checkpoint stays.
        StoppedError: SIGTERM or Ctrl-C came before the end; the checkpoint holds all steps.
    """
    share = Share(int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1)))
    if recipe.fit.batch % share.world:
        raise RecipeError(f"fit.batch {recipe.fit.batch} cannot be shared by {share.world} processes")
    pl.seed_everything(recipe.fit.seed, verbose=False)
    last = run / "last.ckpt"
    model = Denoiser(recipe)
    if last.exists():
        trained, checkpoint = read_checkpoint(last)
        _refuse_another_recipe(recipe, trained, run)
        if "optimizer_states" not in checkpoint:
            raise RecipeError(f"{run} is finished for good; give another --run, and --begin-with {run}")
        model.on_load_checkpoint(checkpoint)
        if begun and begun.earlier != model.earlier:
            raise RecipeError(f"{run} was begun with something else; give another --run, or no --begin-with")
    elif begun:
        model.begin_with(begun)
    if recipe.fit.only:
        model.train_only(recipe.fit.only)
    batches = prepare(recipe, data)
    model.photographs = batches.images
    own = provenance_of(recipe, data, batches.images)
    if model.own_provenance not in (Provenance(), own):
        raise RecipeError(f"{run} was begun with other images; give another --run, and --begin-with {run}")
    model.own_provenance = own
    model.steps_an_epoch = batches.epoch
    if model.progress >= 1:
        log.warning("%s is finished already; give another --run to train again", last)
        return last
    stop = StopAtSignals()
    with warnings.catch_warnings():
        # Advice on what is done on purpose: one worker, resuming into the same folder.
        warnings.filterwarnings("ignore", module="pytorch_lightning")
        make_trainer(recipe, run, batches, stop).fit(
            model,
            batches.loader(model.steps_done, share, workers),
            batches.validation_loader(),
            ckpt_path=last if last.exists() else None,
            weights_only=True,
        )
    if stop.received and model.progress < 1:
        told = f"stopped at step {model.steps_done}, which {last} holds; the same command goes on from there"
        raise StoppedError(told, stop.received)
    return last


def write_finished(model: Denoiser, last: Path) -> None:
    """The checkpoint of a run that is over: it can be exported and begun with, but not gone on with.

    Raises:
        DataError: it cannot be written.
    """
    checkpoint: dict[str, Any] = {"state_dict": model.state_dict()}
    model.on_save_checkpoint(checkpoint)
    AtomicCheckpointIO().save_checkpoint(checkpoint, last)


def read_checkpoint(path: Path) -> tuple[Recipe, dict[str, Any]]:
    """The recipe that a run was begun with, and all of its checkpoint.

    Raises:
        DataError: it is none of ours, or its recipe none of today's.
    """
    try:
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        return Recipe.model_validate(checkpoint["recipe"]), checkpoint
    except Exception:  # what a reader of pickles makes of other bytes has a dozen classes
        raise DataError(
            f"{path} is no checkpoint of `python -m training fit`, or is damaged or too old; give another run"
        ) from None


def _refuse_another_network(begun: Begun, recipe: Recipe, network: Network) -> None:
    """A network begins with the weights of its own kind, for samples of the shape that it takes."""
    kind = begun.recipe.network.kind
    if begun.recipe.network != recipe.network:
        raise RecipeError(f"a {kind} cannot begin another network than its own")
    if begun.network.shape != network.shape:
        before, now = ("x".join(map(str, (*sides, c))) for c, *sides in (begun.network.shape, network.shape))
        raise RecipeError(f"a {kind} of {before} samples cannot begin one of {now}; give it data as before")


def _refuse_another_recipe(recipe: Recipe, trained: Recipe, run: Path) -> None:
    """Only the budget may change between the parts of one run."""
    given, before = (changed(each, steps=None, epochs=None, minutes=1) for each in (recipe, trained))
    different = [key for key in Recipe.model_fields if getattr(given, key) != getattr(before, key)]
    if different:
        raise RecipeError(f"{run} was begun with another recipe ({', '.join(different)}); give another --run")


def _multiplies_bf16() -> bool:
    """Whether bfloat16 is faster here than float32; a CPU without instructions for it is ten times slower."""
    if torch.accelerator.is_available():
        return True
    return any(can and "bf16" in what for what, can in torch.cpu.get_capabilities().items())


def make_trainer(recipe: Recipe, run: Path, batches: Batches, *further: pl.Callback) -> pl.Trainer:
    checkpoints = ModelCheckpoint(
        run, filename="last", save_top_k=1, enable_version_counter=False, every_n_epochs=1
    )
    averages = WeightAveraging(avg_fn=averaging(recipe.fit.ema))
    table = CSVLogger(run, name="log")
    local = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    world = int(os.environ.get("WORLD_SIZE", 1))
    # A stacked network trains one layer at a time.
    together = "ddp_find_unused_parameters_true" if recipe.network.kind == "stacked" else "ddp"
    return pl.Trainer(
        strategy=together if world > 1 else "auto",
        devices=local,
        num_nodes=world // local,
        use_distributed_sampler=False,
        max_epochs=-1,
        precision=recipe.fit.precision if _multiplies_bf16() else "32-true",
        callbacks=[averages, checkpoints, TQDMProgressBar(20), *further],
        plugins=[AtomicCheckpointIO()],
        logger=[table, TensorBoardLogger(run, name="log", version=table.version)],
        log_every_n_steps=min(50, batches.epoch),
        num_sanity_val_steps=0,
        enable_model_summary=False,
        default_root_dir=run,
    )
