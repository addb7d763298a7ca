"""What a run that broke off leaves behind, and how it goes on."""

import math
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.training.test_fit import spelled, weights
from training.begin import begun_with
from training.checkpoint_io import AtomicCheckpointIO
from training.errors import DataError, DivergedError, RecipeError
from training.export import load_run
from training.fit import Denoiser, fit
from training.losses import LOSSES
from training.recipe import Recipe, changed, load_recipe


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


def test_a_run_does_not_change_what_it_was_begun_with(spiral: dict[str, Any], tmp_path: Path) -> None:
    recipe = Recipe.model_validate(spiral)
    begun = begun_with(str(fit(recipe, None, tmp_path / "first").parent))
    last = fit(recipe, None, tmp_path / "run", begun=begun)
    longer = changed(recipe, steps=2 * spiral["fit"]["steps"])
    with pytest.raises(RecipeError, match="begun with something else"):
        fit(longer, None, last.parent, begun=replace(begun, earlier=[{"model": "another/1"}]))
    assert fit(longer, None, last.parent, begun=begun) == last


def test_a_run_killed_at_once_goes_on_to_the_same_weights(spiral: dict[str, Any], tmp_path: Path) -> None:
    spiral["fit"]["steps"] = 160
    file = spelled(spiral, tmp_path)
    command = [sys.executable, "-m", "training", "fit", str(file), "--run", str(tmp_path / "broken")]
    last = tmp_path / "broken" / "last.ckpt"
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        while not last.exists():
            assert process.poll() is None
            time.sleep(0.02)
        process.kill()
    assert 0 < load_run(tmp_path / "broken")[2].steps < 160
    for run in ("broken", "unbroken"):
        fit(load_recipe(str(file)), None, tmp_path / run)
    for ours, theirs in zip(weights(tmp_path / "broken"), weights(tmp_path / "unbroken"), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_told_to_stop_keeps_all_its_steps_and_says_so(
    number: signal.Signals, spiral: dict[str, Any], tmp_path: Path
) -> None:
    spiral["fit"].update(steps=10**6, epoch=10**5)
    file, run = spelled(spiral, tmp_path), tmp_path / "run"
    command = [sys.executable, "-m", "training", "fit", str(file), "--run", str(run)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        while not (run / "log" / "version_0" / "metrics.csv").exists():
            assert process.poll() is None
            time.sleep(0.02)
        assert not (run / "last.ckpt").exists()
        process.send_signal(number)
        said = process.communicate(timeout=60)[1]
    assert process.returncode == 128 + number
    steps = load_run(run)[2].steps
    assert f"stopped at step {steps}, which {run / 'last.ckpt'} holds" in said
    assert steps > 0
    fit(changed(load_recipe(str(file)), steps=steps + 5), None, run)
    assert load_run(run)[2].steps == steps + 5


def test_a_finished_run_is_left_alone(recipe: Recipe, photos: Path, tmp_path: Path) -> None:
    fit(recipe, photos, tmp_path, workers=0)
    before = (tmp_path / "last.ckpt").read_bytes()
    fit(recipe, photos, tmp_path, workers=0)
    assert (tmp_path / "last.ckpt").read_bytes() == before


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


def test_a_loss_that_is_no_number_stops_and_keeps_the_last_checkpoint(
    recipe: Recipe, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0

    def breaks_at_15(restored: Tensor, clean: Tensor, noisy: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return (restored - clean).square().mean() * (math.nan if calls > 15 else 1)

    monkeypatch.setitem(LOSSES, "psnr", breaks_at_15)
    with pytest.raises(DivergedError, match=r"step 15 .*seed 0, 15"):
        fit(recipe, photos, tmp_path, workers=0)
    assert load_run(tmp_path)[2].steps == 10


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


def test_a_full_disk_leaves_the_checkpoint_as_it_was(
    spiral: dict[str, Any], tmp_path: Path, little_files: Callable[[], AbstractContextManager[None]]
) -> None:
    io = AtomicCheckpointIO()
    io.save_checkpoint({"step": 1}, tmp_path / "last.ckpt")
    with little_files(), pytest.raises(DataError, match=r"last\.ckpt cannot be written .*intact"):
        io.save_checkpoint({"step": 2, "weights": torch.zeros(10_000)}, tmp_path / "last.ckpt")
    assert torch.load(tmp_path / "last.ckpt") == {"step": 1}
    assert [each.name for each in tmp_path.iterdir()] == ["last.ckpt"]
