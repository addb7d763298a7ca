"""The mean of the weights of runs that part late: what each of them learned by chance averages out.

Uniform soup of Wortsman et al. 2022 ("Model soups: averaging weights of multiple fine-tuned models improves
accuracy without increasing inference time", section 2). It takes runs with a long beginning in common, such
as several ends of one; others have no good mean.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from training.checkpoint_io import AtomicCheckpointIO
from training.errors import DataError
from training.export import Effort, read_run


def average(runs: Sequence[Path], into: Path) -> Path:
    """Write a run whose weights are the mean of those of `runs`; one that is named twice counts twice.

    Recipe, effort and images are those of the first; the others are told of as `averaged_with`.

    Returns:
        Its checkpoint.

    Raises:
        DataError: there is but one, one has no checkpoint or other weights, `into` is a run already or
            cannot be written.
    """
    if len(runs) < 2:
        raise DataError("a mean takes two runs or more")
    last = into / "last.ckpt"
    if last.exists():
        raise DataError(f"{last} is there already; give another --run")
    read = [read_run(run) for run in runs]
    recipe, first = read[0]
    for run, (other, checkpoint) in zip(runs, read, strict=True):
        if other.network != recipe.network or _shapes(checkpoint) != _shapes(first):
            raise DataError(f"{run} has other weights than {runs[0]}, and no mean with it")
    states = [checkpoint["state_dict"] for _, checkpoint in read]
    weights = {name: torch.stack([state[name] for state in states]).mean(0) for name in states[0]}
    others = [Effort.of_checkpoint(checkpoint).told(theirs) for theirs, checkpoint in read[1:]]
    earlier = [*first["earlier"], {"averaged_with": others}]
    AtomicCheckpointIO().save_checkpoint({**first, "state_dict": weights, "earlier": earlier}, last)
    return last


def _shapes(checkpoint: dict[str, Any]) -> dict[str, torch.Size]:
    """Of each weight by its name, both of which the optimiser changes, too."""
    return {name: weight.shape for name, weight in checkpoint["state_dict"].items()}
