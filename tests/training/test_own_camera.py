from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import skimage.data
import torch
from PIL import Image

from model_store import ModelStore, default_root
from training.begin import begun_with
from training.corruption import Gaussian, to_float, to_uint8
from training.errors import DataError, NotBetterError
from training.export import export_run, load_run
from training.fit import fit
from training.networks import ResidualUNet, denoise_uint8
from training.own_camera import adapt
from training.recipe import Recipe, load_recipe
from training.self_supervised import Tuning

TUNING = Tuning(steps=40, rate=4e-3, batch=4, patch=64)


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    """Three noisy frames of one camera, and a broken file."""
    folder = tmp_path / "frames"
    folder.mkdir()
    clean = 0.25 + 0.5 * to_float(skimage.data.coffee()[100:228, 150:278])
    noise = Gaussian(sigma=(20, 20))
    for number in range(3):
        noisy = to_uint8(noise.apply(clean, np.random.default_rng(number)))
        Image.fromarray(noisy).save(folder / f"{number}.png")
    (folder / "broken.png").write_bytes(b"no image")
    return folder


def test_a_run_is_adapted_to_a_folder_of_noisy_frames_or_left_alone(
    recipe: Recipe, photos: Path, frames: Path, tmp_path: Path
) -> None:
    fit(recipe, photos, tmp_path / "begun", workers=0)
    begun = begun_with(str(tmp_path / "begun"))
    with pytest.raises(NotBetterError, match="where held-out frames are flat"):
        adapt(frames, begun, tmp_path / "worse", Tuning(steps=2, rate=0.1, batch=1, patch=32))
    assert not (tmp_path / "worse").exists()

    outcome = adapt(frames, begun, tmp_path / "better", TUNING)
    kept, network, effort = load_run(tmp_path / "better")
    assert kept.name == "own-camera"
    assert effort.steps == 40
    assert effort.photographs == 2, "of three frames one is held out"
    assert effort.earlier[-1]["steps"] == recipe.fit.steps
    found, expected = network.state_dict(), outcome.network.state_dict()
    assert all((found[name] == expected[name]).all() for name in expected)
    with pytest.raises(DataError, match="exists already"):
        adapt(frames, begun, tmp_path / "better")


def test_its_card_tells_the_truth_about_the_published_model_it_was_begun_with(
    small: dict[str, Any], photos: Path, frames: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = tmp_path / "listed"
    listed.mkdir()
    for name in ("chelsea.png", "coffee.png"):
        (listed / name).symlink_to(photos / name)
    (listed / "ATTRIBUTION.csv").write_text("file,licence\nchelsea.png,CC0-1.0\ncoffee.png,CC-BY-4.0\n")
    store = ModelStore(tmp_path / "store")
    monkeypatch.setattr("training.begin.default_root", lambda: tmp_path / "store")
    small.update(name="frames-camera")
    small["fit"].update(schedule="constant", epochs=7)
    small["corruption"].append({"kind": "jpeg", "quality": [30, 60], "weight": 2, "gray": False})
    fit(Recipe.model_validate(small), listed, tmp_path / "base", workers=0)
    (base,) = export_run(tmp_path / "base", store, None, listed)

    for copy in range(33):
        (frames / f"again-{copy}.png").symlink_to(frames / f"{copy % 3}.png")
    adapt(frames, begun_with("frames-camera"), tmp_path / "own", TUNING)
    (own,) = export_run(tmp_path / "own", store, None, frames)
    card = own.card
    assert card.limits[0].startswith("Fine-tuned on 14 noisy frames"), "every second of 36, less 4 held out"
    assert card.limits[1] == "The corruption that its card names is that of the network it began with."
    assert card.limits[2:] == base.card.limits == ("for tests",)
    assert [each.levels for each in card.corruption] == [each.levels for each in base.card.corruption]
    assert [each.share for each in card.corruption] == pytest.approx([1 / 3, 2 / 3])
    as_cut = {"patch": TUNING.patch, "gray": 0.0, "shrink": 1.0, "augment": 0.0}
    assert card.training["data"] == base.card.training["data"] | as_cut
    assert (card.training["schedule"], card.training["epochs"]) == ("cosine", None), "its own, not the base's"
    assert card.training["earlier"] == [{"model": "frames-camera/1", "sha256": base.card.sha256}]
    frames_used, *rest = card.training_data
    assert (frames_used.images, frames_used.licence) == (14, "not stated")
    assert tuple(rest) == base.card.training_data
    attribution = (own.folder / "ATTRIBUTION.csv").read_bytes()
    assert attribution == (listed / "ATTRIBUTION.csv").read_bytes()
    told = begun_with(str(tmp_path / "own")).provenance.training_data
    assert told == card.training_data, "a run begun with this one names the frames too"


@pytest.mark.parametrize("model", ["frames-balanced:4", "frames-camera:1", "frames-fast:1"])
def test_what_a_published_model_was_trained_with_is_read_from_its_card(model: str) -> None:
    stored = ModelStore(default_root()).resolve(model)
    card, begun = stored.card, begun_with(model)
    assert (begun.recipe.name, begun.recipe.limits) == (card.name, card.limits)
    for found, expected in zip(begun.recipe.corruption, card.corruption, strict=True):
        assert (found.kind, found.weight) == (expected.kind, expected.share)
        read = found.model_dump(mode="json", exclude={"kind", "weight"}, exclude_unset=True)
        assert read == expected.levels
    assert begun.recipe.data.model_dump(mode="json") == card.training.get(
        "data", load_recipe(card.name).data.model_dump(mode="json")
    )
    assert begun.provenance.training_data == card.training_data
    assert begun.provenance.attribution.encode() == (stored.folder / "ATTRIBUTION.csv").read_bytes()


@pytest.mark.parametrize("model", ["frames-camera"])
def test_a_published_network_is_read_from_its_graph(model: str) -> None:
    stored = ModelStore(default_root()).resolve(model)
    frame = np.random.default_rng(0).integers(0, 256, (1, 40, 64, 3), np.uint8)
    feeds = {"image": frame, "strength": np.ones(1, np.float32)}
    (expected,) = ort.InferenceSession(stored.read_verified()).run(None, feeds)
    begun = begun_with(model)
    assert isinstance(begun.network, ResidualUNet)
    with torch.no_grad():
        found = denoise_uint8(begun.network, torch.from_numpy(frame), torch.ones(1)).numpy()
    assert np.abs(found.astype(int) - expected).max() <= 1


@pytest.mark.parametrize(
    ("model", "said"), [("frames-balanced:1", "from before"), ("mnist-dense", "no U-Net")]
)
def test_what_cannot_be_trained_on_is_said(model: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        begun_with(model)
