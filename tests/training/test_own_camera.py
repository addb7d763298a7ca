from pathlib import Path

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
from training.export import load_run
from training.fit import fit
from training.networks import ResidualUNet, denoise_uint8
from training.own_camera import adapt
from training.recipe import Recipe
from training.self_supervised import Tuning


def test_a_run_is_adapted_to_a_folder_of_noisy_frames_or_left_alone(
    recipe: Recipe, photos: Path, tmp_path: Path
) -> None:
    fit(recipe, photos, tmp_path / "begun", workers=0)
    begun = begun_with(str(tmp_path / "begun"))
    frames = tmp_path / "frames"
    frames.mkdir()
    clean = 0.25 + 0.5 * to_float(skimage.data.coffee()[100:228, 150:278])
    noise = Gaussian(sigma=(20, 20))
    for number in range(3):
        noisy = to_uint8(noise.apply(clean, np.random.default_rng(number)))
        Image.fromarray(noisy).save(frames / f"{number}.png")
    (frames / "broken.png").write_bytes(b"no image")

    with pytest.raises(NotBetterError, match="where held-out frames are flat"):
        adapt(frames, begun, tmp_path / "worse", Tuning(steps=2, rate=0.1, batch=1, patch=32))
    assert not (tmp_path / "worse").exists()

    outcome = adapt(frames, begun, tmp_path / "better", Tuning(steps=40, rate=4e-3, batch=4, patch=64))
    kept, network, effort = load_run(tmp_path / "better")
    assert kept.name == "own-camera"
    assert effort.steps == 40
    assert effort.photographs == 3
    assert effort.earlier[-1]["steps"] == recipe.fit.steps
    found, expected = network.state_dict(), outcome.network.state_dict()
    assert all((found[name] == expected[name]).all() for name in expected)
    with pytest.raises(DataError, match="exists already"):
        adapt(frames, begun, tmp_path / "better")


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
