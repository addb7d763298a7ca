"""The loop itself, on a network of a few hundred weights."""

import csv
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from training.errors import DataError, DivergedError, RecipeError
from training.export import load_run
from training.fit import Denoiser, fit
from training.losses import LOSSES, build_loss, psnr
from training.recipe import Recipe


def weights(run: Path) -> list[Tensor]:
    return list(load_run(run)[1].state_dict().values())


@pytest.mark.parametrize("optimiser", ["muon", "adamw"])
def test_training_learns_to_remove_noise(
    small: dict[str, Any], photos: Path, tmp_path: Path, optimiser: str
) -> None:
    small["fit"].update(optimiser=optimiser, steps=200, rate=5e-3)
    fit(Recipe.model_validate(small), photos, tmp_path, workers=0)
    _, network, effort = load_run(tmp_path)
    assert effort.steps == 200
    clean = torch.full((4, 3, 64, 64), 0.5)
    noisy = (clean + torch.randn(clean.shape, generator=torch.Generator().manual_seed(0)) * 45 / 255).clamp(
        0, 1
    )
    with torch.no_grad():
        assert psnr(network(noisy), clean) > psnr(noisy, clean) + 3
    assert "val_psnr" in next(tmp_path.glob("log/*/metrics.csv")).read_text()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_run_that_was_killed_goes_on_as_if_it_had_not(
    recipe: Recipe, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    fit(recipe, photos, tmp_path / "unbroken", workers=0)
    step = Denoiser._step

    def die_at_15(self: Denoiser, loss: Tensor) -> None:
        if self.steps_done == 15:
            raise RuntimeError("killed")
        step(self, loss)

    with monkeypatch.context() as patched:
        patched.setattr(Denoiser, "_step", die_at_15)
        with pytest.raises(RuntimeError, match="killed"):
            fit(recipe, photos, tmp_path / "broken", workers=workers)
    fit(recipe, photos, tmp_path / "broken", workers=workers)
    for ours, theirs in zip(weights(tmp_path / "broken"), weights(tmp_path / "unbroken"), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)


def test_a_finished_run_is_left_alone(recipe: Recipe, photos: Path, tmp_path: Path) -> None:
    fit(recipe, photos, tmp_path, workers=0)
    before = (tmp_path / "last.ckpt").read_bytes()
    fit(recipe, photos, tmp_path, workers=0)
    assert (tmp_path / "last.ckpt").read_bytes() == before


def test_a_loss_that_is_no_number_stops_and_keeps_the_last_checkpoint(
    recipe: Recipe, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0

    def breaks_at_15(restored: Tensor, clean: Tensor, noisy: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return (restored - clean).square().mean() * (math.nan if calls > 15 else 1)

    monkeypatch.setitem(LOSSES, "psnr", breaks_at_15)
    with pytest.raises(DivergedError, match=r"step 15 .*seed 0"):
        fit(recipe, photos, tmp_path, workers=0)
    assert load_run(tmp_path)[2].steps == 10


def test_a_time_budget_ends_the_run_with_the_rate_at_zero(
    small: dict[str, Any], photos: Path, tmp_path: Path
) -> None:
    small["fit"].update(minutes=0.05, steps=10**6, epoch=50)
    fit(Recipe.model_validate(small), photos, tmp_path, workers=0)
    _, _, effort = load_run(tmp_path)
    assert 50 < effort.steps < 10**6
    with next(tmp_path.glob("log/*/metrics.csv")).open() as file:
        rates = [float(row["rate"]) for row in csv.DictReader(file) if row["rate"]]
    assert rates[-1] < 0.1 * max(rates)


def test_a_run_is_not_continued_with_another_recipe(
    small: dict[str, Any], photos: Path, tmp_path: Path
) -> None:
    fit(Recipe.model_validate(small), photos, tmp_path, workers=0)
    small["fit"]["steps"] = 50
    fit(Recipe.model_validate(small), photos, tmp_path, workers=0)
    assert load_run(tmp_path)[2].steps == 50
    small["corruption"][0]["sigma"] = [0, 10]
    with pytest.raises(RecipeError, match=r"another recipe \(corruption\)"):
        fit(Recipe.model_validate(small), photos, tmp_path, workers=0)


def test_weights_that_are_no_numbers_are_never_saved(
    recipe: Recipe, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Denoiser._step

    def explode_at_20(self: Denoiser, loss: Tensor) -> None:
        step(self, loss)
        if self.steps_done == 20:
            list(self.network.parameters())[-1].data.fill_(math.inf)

    monkeypatch.setattr(Denoiser, "_step", explode_at_20)
    with pytest.raises(DivergedError, match="step 20"):
        fit(recipe, photos, tmp_path, workers=0)
    assert load_run(tmp_path)[2].steps == 10


def test_one_photograph_is_not_enough(recipe: Recipe, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "only.png").symlink_to(photos / "coffee.png")
    with pytest.raises(DataError, match="two are the least"):
        fit(recipe, tmp_path / "photos", tmp_path / "run", workers=0)


def test_losses_agree_with_their_formulas() -> None:
    clean = torch.rand(2, 3, 8, 8)
    restored, noisy = clean + 0.1, clean + 0.2
    expected = {"mse": 0.01, "charbonnier": 0.1, "relative-mse": 0.01 / 0.2, "psnr": -20.0}
    for name in expected:
        loss = build_loss(name)
        assert torch.isclose(loss(restored, clean, noisy), torch.tensor(expected[name]), rtol=0.01), name
        assert loss(clean, clean, noisy) < loss(restored, clean, noisy)
