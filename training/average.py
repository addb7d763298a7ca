"""The mean of the weights of runs that part late: what each of them learned by chance averages out.

Uniform soup of Wortsman et al. 2022 ("Model soups: averaging weights of multiple fine-tuned models improves
accuracy without increasing inference time", section 2). It takes runs with a long beginning in common, such
as several ends of one; others have no good mean.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from training.errors import DataError
from training.export import Effort, read_run
from training.fit import Denoiser, write_finished


def average(runs: Sequence[Path], into: Path) -> Path:
    """Write a run whose weights are the mean of those of `runs`; one that is named twice counts twice.

    Recipe, effort and images are those of the first; the others are told of as `averaged_with`, and whose
    images they learned from is told, too. It cannot be trained further, but another run begun with it.

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
    efforts = [Effort.of_checkpoint(checkpoint) for _, checkpoint in read]
    others = [effort.told(theirs) for effort, (theirs, _) in zip(efforts, read, strict=True)][1:]
    provenance = efforts[0].provenance
    for effort in efforts[1:]:
        theirs = effort.own_provenance.after(effort.provenance)
        provenance = theirs.after(provenance)
    mean = Denoiser(recipe)
    mean.on_load_checkpoint(first)
    mean.load_state_dict(weights)
    mean.photographs, mean.own_provenance = efforts[0].photographs, efforts[0].own_provenance
    mean.earlier, mean.provenance = [*first["earlier"], {"averaged_with": others}], provenance
    write_finished(mean, last)
    return last


def _shapes(checkpoint: dict[str, Any]) -> dict[str, torch.Size]:
    """Of each weight by its name, both of which the optimiser changes, too."""
    return {name: weight.shape for name, weight in checkpoint["state_dict"].items()}
