"""The loop itself, on a network of a few hundred weights."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from training.batches import Arrays, Share, prepare
from training.begin import begun_with
from training.build import build_network
from training.errors import DataError, RecipeError
from training.export import load_run
from training.figures import figures_of
from training.fit import Begun, Denoiser, fit, make_trainer
from training.losses import psnr
from training.provenance import Provenance
from training.recipe import Recipe, changed, load_recipe


def weights(run: Path) -> list[Tensor]:
    return list(load_run(run)[1].state_dict().values())


@pytest.mark.parametrize("optimiser", ["muon", "adamw"])
def test_training_learns_to_remove_noise(
    small: dict[str, Any], photos: Path, tmp_path: Path, optimiser: str
) -> None:
    small["fit"].update(optimiser=optimiser, steps=200, rate=5e-3, ema=0.999)
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


@pytest.mark.parametrize(("cpu", "taken"), [({"avx2": True}, "32-true"), ({"amx_bf16": True}, "bf16-mixed")])
def test_bfloat16_is_only_for_cpus_that_have_it(
    small: dict[str, Any],
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    cpu: dict[str, bool],
    taken: str,
) -> None:
    small["fit"]["precision"] = "bf16-mixed"
    recipe = Recipe.model_validate(small)
    monkeypatch.setattr("torch.accelerator.is_available", lambda: False)
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: cpu)
    assert make_trainer(recipe, tmp_path, prepare(recipe, photos)).precision == taken


@pytest.mark.parametrize("optimiser", ["muon", "adamw"])
def test_a_larger_network_begins_with_what_a_smaller_one_learned(
    small: dict[str, Any], photos: Path, tmp_path: Path, optimiser: str
) -> None:
    small["fit"].update(steps=20)
    fit(Recipe.model_validate(small), photos, tmp_path / "small", workers=0)
    network = small["network"]
    network.update(widths=[2 * width for width in network["widths"]])
    small["fit"].update(optimiser=optimiser, steps=1, rate=1e-9, ema=0.0)
    fit(
        Recipe.model_validate(small),
        photos,
        tmp_path / "large",
        begun=begun_with(str(tmp_path / "small")),
        workers=0,
    )
    (_, before, _), (_, after, effort) = (load_run(tmp_path / name) for name in ("small", "large"))
    image = torch.rand(1, 3, 64, 64)
    assert torch.allclose(after(image), before(image), atol=1e-4)
    assert [each["steps"] for each in effort.earlier] == [20]


@pytest.mark.parametrize("optimiser", ["muon", "adamw"])
def test_what_gray_images_alone_have_can_be_trained_alone(
    small: dict[str, Any], photos: Path, tmp_path: Path, optimiser: str
) -> None:
    small["network"]["gates"] = True
    small["fit"].update(steps=2)
    fit(Recipe.model_validate(small), photos, tmp_path / "all", workers=0)
    small["network"]["gray_rank"] = 2
    small["data"]["gray"] = 1.0
    small["fit"].update(steps=4, optimiser=optimiser, only="gray")
    begun = begun_with(str(tmp_path / "all"))
    fit(Recipe.model_validate(small), photos, tmp_path / "gray", begun=begun, workers=0)
    network = load_run(tmp_path / "gray")[1]
    image = torch.rand(1, 3, 64, 64)
    gray = image[:, :1].expand_as(image)
    assert torch.allclose(network(image), begun.network(image), atol=1e-6)  # averages round
    assert (network(gray) - begun.network(gray)).abs().max() > 1e-5


@pytest.mark.parametrize(
    ("network", "said"),
    [
        ({"kind": "dense", "hidden": [4]}, "a dense of 28x28x1 samples cannot begin one of 32x32x1"),
        ({"kind": "conv", "widths": [2, 4]}, None),
    ],
    ids=["dense", "conv"],
)
def test_a_network_begins_with_one_for_samples_of_its_shape(
    network: dict[str, Any], said: str | None, small: dict[str, Any]
) -> None:
    small.update(network=network, data={"kind": "mnist"})
    small["fit"].update(loss="mse", optimiser="adam")
    earlier = Recipe.model_validate(small)
    small["data"]["side"] = 32
    larger = Denoiser(Recipe.model_validate(small))
    begun = Begun(earlier, build_network(earlier), [], Provenance())
    if said:
        with pytest.raises(RecipeError, match=said):
            larger.begin_with(begun)
    else:
        larger.begin_with(begun)
        for ours, theirs in zip(larger.network.parameters(), begun.network.parameters(), strict=True):
            assert torch.equal(ours, theirs)


def spelled(recipe: dict[str, Any], folder: Path) -> Path:
    """The recipe as a TOML file, which knows JSON's values."""
    tables = {name: part for name, part in recipe.items() if isinstance(part, dict)}
    lines = [f"{name} = {json.dumps(part)}" for name, part in recipe.items() if isinstance(part, str)]
    lines += [f"limits = {recipe['limits']!r}", "corruption = [{ kind = 'gaussian', sigma = [10, 20] }]"]
    for name, table in tables.items():
        lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in table.items())]
    file = folder / "mine.toml"
    file.write_text("\n".join(lines))
    return file


def test_two_processes_learn_what_one_does(spiral: dict[str, Any], tmp_path: Path) -> None:
    spiral["fit"].update(optimiser="muon")
    file = spelled(spiral, tmp_path)
    together = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = ["-m", "--", "training", "fit", str(file), "--run", str(tmp_path / "two")]
    done = subprocess.run(
        [sys.executable, *together, *command],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    fit(load_recipe(str(file)), None, tmp_path / "one")
    for ours, theirs in zip(weights(tmp_path / "two"), weights(tmp_path / "one"), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-4)


def test_a_batch_that_cannot_be_shared_is_refused(
    spiral: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(RecipeError, match=r"fit\.batch 20 cannot be shared by 3"):
        fit(Recipe.model_validate(spiral), None, tmp_path)


def test_points_are_brought_back_to_their_curve(spiral: dict[str, Any], tmp_path: Path) -> None:
    spiral["fit"]["steps"] = 400
    recipe = Recipe.model_validate(spiral)
    fit(recipe, None, tmp_path)
    _, network, _ = load_run(tmp_path)
    noisy, restored = figures_of(recipe, network, None).values()
    assert restored < 0.8 * noisy
    assert list((tmp_path / "log").glob("version_0/events.out.tfevents.*"))
    assert load_run(tmp_path)[2].photographs == 800


def test_another_seed_is_another_network(spiral: dict[str, Any], tmp_path: Path) -> None:
    spiral["fit"]["steps"] = 20
    recipe = Recipe.model_validate(spiral)
    for run, seed in (("a", 1), ("b", 1), ("c", 2)):
        fit(changed(recipe, seed=seed), None, tmp_path / run)
    first, again, other = (weights(tmp_path / run) for run in "abc")
    assert all(torch.equal(*pair) for pair in zip(first, again, strict=True))
    assert not any(torch.equal(*pair) for pair in zip(first, other, strict=True))


def test_images_are_corrupted_anew_in_each_epoch_each_with_its_own_level(small: dict[str, Any]) -> None:
    small.update(network={"kind": "linear", "code": 2}, data={"kind": "mnist", "holdout": 4})
    small["fit"].update(loss="mse", batch=8)
    small["corruption"] = [{"kind": "gaussian", "sigma": [0, 100]}]
    images = np.full((24, 28, 28, 1), 128, np.uint8)
    arrays = Arrays(images, Recipe.model_validate(small), shuffled=True)
    noisy, clean = arrays[0]
    assert noisy.shape == clean.shape == (8, 1, 28, 28)
    assert torch.equal(noisy, arrays[0][0])
    assert not torch.equal(noisy, arrays[arrays.batches][0])
    assert torch.equal((noisy * 255).round() / 255, noisy), "in 8 bits, as a served model gets it"
    assert len(set((noisy - clean).flatten(1).std(1).tolist())) == 8
    halves = []
    for rank in (0, 1):
        arrays.share = Share(rank, 2)
        halves.append(arrays[0][0])
    assert torch.equal(torch.stack(halves, 1).flatten(0, 1), noisy)


def test_what_super_resolution_gets_is_smaller(small: dict[str, Any]) -> None:
    small.update(network={"kind": "sr2", "width": 2}, data={"kind": "mnist", "holdout": 4})
    small["fit"].update(loss="mse", batch=2)
    small["corruption"] = [{"kind": "gaussian", "sigma": 0}]
    images = np.random.default_rng(0).integers(0, 256, (2, 28, 28, 1), np.uint8)
    noisy, clean = Arrays(images, Recipe.model_validate(small), shuffled=False)[0]
    assert noisy.shape == (2, 1, 14, 14)
    means = torch.nn.functional.avg_pool2d(clean, 2)
    assert (noisy - means).abs().max() <= 0.51 / 255


def test_a_time_budget_ends_the_run_with_the_rate_at_zero(
    small: dict[str, Any], photos: Path, tmp_path: Path
) -> None:
    small["fit"].update(minutes=0.05, steps=10**6, epoch=5)
    fit(Recipe.model_validate(small), photos, tmp_path, workers=0)
    _, _, effort = load_run(tmp_path)
    assert 5 < effort.steps < 10**6
    with next(tmp_path.glob("log/*/metrics.csv")).open() as file:
        rates = [float(row["rate"]) for row in csv.DictReader(file) if row["rate"]]
    assert rates[-1] < 0.1 * max(rates)


def test_one_photograph_is_not_enough(recipe: Recipe, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "only.png").symlink_to(photos / "coffee.png")
    with pytest.raises(DataError, match="two are the least"):
        fit(recipe, tmp_path / "photos", tmp_path / "run", workers=0)
