"""The mean of the weights of runs that part late: what each of them learned by chance averages out.

Uniform soup of Wortsman et al. 2022 ("Model soups: averaging weights of multiple fine-tuned models improves
accuracy without increasing inference time", section 2). It takes runs with a long beginning in common, such
as several ends of one; others have no good mean.
"""

from collections.abc import Sequence
from pathlib import Path

import torch

from training.checkpoint_io import AtomicCheckpointIO
from training.errors import DataError
from training.export import load_run
from training.fit import read_checkpoint


def average(runs: Sequence[Path], into: Path) -> Path:
    """Write a run whose weights are the mean of those of `runs`; one that is named twice counts twice.

    Recipe, effort and images are those of the first; the others are told of as `averaged_with`.

    Returns:
        Its checkpoint.

    Raises:
        DataError: there is but one, one has no checkpoint or is of another network, `into` is a run
            already or cannot be written.
    """
    if len(runs) < 2:
        raise DataError("a mean takes two runs or more")
    last = into / "last.ckpt"
    if last.exists():
        raise DataError(f"{last} is there already; give another --run")
    loaded = [load_run(run) for run in runs]
    recipe = loaded[0][0]
    for run, (other, _, _) in zip(runs, loaded, strict=True):
        if (other.network, other.fit.optimiser) != (recipe.network, recipe.fit.optimiser):
            raise DataError(f"{run} has another network or optimiser than {runs[0]}, and no mean with it")
    checkpoints = [read_checkpoint(run / "last.ckpt")[1] for run in runs]
    first = checkpoints[0]
    states = [each["state_dict"] for each in checkpoints]
    weights = {name: torch.stack([state[name] for state in states]).mean(0) for name in states[0]}
    others = [effort.told(theirs) for theirs, _, effort in loaded[1:]]
    earlier = [*first["earlier"], {"averaged_with": others}]
    AtomicCheckpointIO().save_checkpoint({**first, "state_dict": weights, "earlier": earlier}, last)
    return last
