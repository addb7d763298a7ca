"""The production network for one camera: fine-tuned on a folder of its noisy frames, kept as a run."""

import time
from collections.abc import Callable
from pathlib import Path

from training.data import read_photos
from training.errors import DataError, NotBetterError
from training.fit import Begun, Denoiser, write_finished
from training.networks import ResidualUNet
from training.provenance import of_photographs
from training.recipe import Recipe
from training.recipe_parts import FitRecipe
from training.self_supervised import Outcome, Tuning, fine_tune

NAME = "own-camera"


def adapt(
    frames: Path,
    begun: Begun,
    run: Path,
    tuning: Tuning | None = None,
    each_step: Callable[[int, float], None] = lambda step, loss: None,
) -> Outcome:
    """Fine-tune the network of one run and keep it as another, which `evaluate` and `export` take.

    Args:
        frames: folder of noisy frames of one camera, straight from it; files that cannot be read or
            are smaller than a patch are named in the log and skipped.
        begun: the production network to adapt.
        run: where last.ckpt is written, if the network is better than before.

    Raises:
        DataError: nothing to begin with or to learn from, or `run` holds a network already.
        NotBetterError: held-out frames do not say that it is better; nothing is written.
    """
    tuning = tuning or Tuning()
    last = run / "last.ckpt"
    if last.exists():
        raise DataError(f"{last} exists already; give another --run")
    network = begun.network
    if not isinstance(network, ResidualUNet):
        raise DataError(f"{begun.recipe.name} is a {begun.recipe.network.kind}; a unet can be adapted")
    photos = read_photos(frames, tuning.patch)
    started = time.monotonic()
    outcome = fine_tune(network, photos, tuning, each_step)
    if outcome.leaves_more:
        raise NotBetterError(
            f"where held-out frames are flat it would leave noise of {outcome.left_after:.2f} grey levels,"
            f" and {outcome.left_before:.2f} are left now: {run} is not written; the model you have knows"
            " this noise already, or what it is cannot be measured on these frames"
        )
    if not outcome.improved:
        raise NotBetterError(
            f"on held-out frames the change is {outcome.after - outcome.before:+.2f} dB, give or take"
            f" {2 * outcome.error:.2f}, which is not better for certain: {run} is not written;"
            " try more frames, other scenes, or keep the model you have"
        )
    model = Denoiser(_recipe(begun.recipe, tuning, outcome.learned_from))
    model.network.load_state_dict(outcome.network.state_dict())
    model.photographs, model.steps_done = outcome.learned_from, tuning.steps
    model.seconds_done = time.monotonic() - started
    model.own_provenance = of_photographs(frames, outcome.learned_from)
    model.earlier, model.provenance = begun.earlier, begun.provenance
    write_finished(model, last)
    return outcome


def _recipe(base: Recipe, tuning: Tuning, frames: int) -> Recipe:
    own = f"Fine-tuned on {frames} noisy frames of one camera alone; others may be served worse than before."
    noise = "The corruption that its card names is that of the network it began with."
    fit = FitRecipe(
        loss="mse",
        rate=tuning.rate,
        batch=tuning.batch,
        steps=tuning.steps,
        warmup=0,
        ema=0.0,
        precision="32-true",
        seed=tuning.seed,
    )
    data = {"patch": tuning.patch, "gray": 0.0, "shrink": 1.0, "augment": 0.0}
    change = {
        "name": NAME,
        "data": base.data.model_copy(update=data),
        "summary": f"{base.name}, fine-tuned to one camera's noise by Recorrupted-to-Recorrupted",
        "limits": (own, noise, *base.limits),
        "fit": fit,
    }
    return base.model_copy(update=change)
