"""The mean of runs: from their weights to what the card tells."""

from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from model_store import ModelStore, card_markdown
from tests.training.test_fit import weights
from training.average import average
from training.begin import begun_with
from training.cli import main
from training.errors import DataError, RecipeError
from training.export import export_run, load_run
from training.fit import fit
from training.recipe import Recipe, changed


@pytest.fixture
def ends(small: dict[str, Any], photos: Path, tmp_path: Path) -> list[Path]:
    """Two ends of one run."""
    small["fit"].update(optimiser="muon", steps=4)
    fit(Recipe.model_validate(small), photos, tmp_path / "begin", workers=0)
    begun = begun_with(str(tmp_path / "begin"))
    runs = [tmp_path / f"end{seed}" for seed in (1, 2)]
    for seed, run in enumerate(runs, 1):
        small["fit"].update(seed=seed, steps=seed)
        fit(Recipe.model_validate(small), photos, run, begun=begun, workers=0)
    return runs


def test_it_is_the_mean_and_says_whose(ends: list[Path], photos: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["average", *map(str, ends), "--run", str(tmp_path / "mean")])
    assert done.exit_code == 0, done.output
    for mean, *parts in zip(*map(weights, (tmp_path / "mean", *ends)), strict=True):
        assert not torch.equal(*parts)
        assert torch.allclose(mean, (parts[0] + parts[1]) / 2)
    (stored,) = export_run(tmp_path / "mean", ModelStore(tmp_path / "store"), None, photos)
    told = stored.card.training
    assert (told["seed"], told["steps"]) == (1, 1)
    *begun, others = told["earlier"]
    assert [each["steps"] for each in begun] == [4]
    assert [(each["fit"]["seed"], each["steps"]) for each in others["averaged_with"]] == [(2, 2)]
    with pytest.raises(RecipeError, match="--begin-with"):
        fit(changed(load_run(tmp_path / "mean")[0], steps=9), photos, tmp_path / "mean", workers=0)
    assert "weights averaged with those of 1 run beside the last" in card_markdown(stored.card)


def test_what_has_no_mean_is_refused_and_nothing_is_written(
    ends: list[Path], small: dict[str, Any], photos: Path, tmp_path: Path
) -> None:
    small["network"].update(widths=[2 * width for width in small["network"]["widths"]])
    fit(Recipe.model_validate(small), photos, tmp_path / "wider", workers=0)
    into = tmp_path / "mean"
    for runs, said in (
        (ends[:1], "two runs or more"),
        ([ends[0], tmp_path / "wider"], "wider has other weights"),
        ([ends[0], photos], "does not exist; run"),
    ):
        with pytest.raises(DataError, match=said):
            average(runs, into)
    assert not into.exists()
    before = (ends[1] / "last.ckpt").read_bytes()
    with pytest.raises(DataError, match="give another --run"):
        average(ends, ends[1])
    assert (ends[1] / "last.ckpt").read_bytes() == before
