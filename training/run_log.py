"""What a run wrote down while it trained."""

import csv
from pathlib import Path

import numpy as np

from training.errors import DataError
from training.plots import Series

_PANELS = {
    "loss": {"loss": "training", "val_loss": "held out"},
    "PSNR / dB": {"psnr": "training", "val_psnr": "held out"},
    "learning rate": {"rate": "rate"},
}


def read_curves(run: Path) -> dict[str, dict[str, Series]]:
    """Panels of curves by step, of every metrics.csv of a run; a later part overrides an earlier one.

    Raises:
        DataError: there are none.
    """
    files = sorted(run.glob("log/*/metrics.csv"), key=_part)
    if not files:
        raise DataError(f"{run} holds no metrics.csv; pass the folder that `fit --run` wrote")
    values: dict[str, dict[int, float]] = {}
    for path in files:
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                for column, text in row.items():
                    if text and column not in ("step", "epoch"):
                        values.setdefault(column, {})[int(row["step"])] = float(text)
    panels = {
        title: {
            label: _series(values[column], label == "training")
            for column, label in lines.items()
            if column in values
        }
        for title, lines in _PANELS.items()
    }
    drawn = {title: lines for title, lines in panels.items() if lines}
    if not drawn:
        raise DataError(f"{files[-1]} has none of loss, psnr or rate; did the run take a step?")
    return drawn


def _part(path: Path) -> tuple[int, str]:
    """Lightning's folders count up: version_0, version_1 ... version_10."""
    number = path.parent.name.rpartition("_")[2]
    return (int(number) if number.isdecimal() else -1, str(path))


def _series(by_step: dict[int, float], jitters: bool) -> Series:
    steps = sorted(by_step)
    return Series(np.array(steps), np.array([by_step[step] for step in steps]), jitters)
