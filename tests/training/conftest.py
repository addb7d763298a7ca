import resource
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import skimage.data
import torch
from PIL import Image

from training.recipe import Recipe

# On networks this small two threads wait for each other longer than they compute.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of four real photographs, one of them unreadable and one too small."""
    folder = tmp_path_factory.mktemp("photos")
    for name in ("chelsea", "coffee", "astronaut"):
        Image.fromarray(getattr(skimage.data, name)()).save(folder / f"{name}.png")
    Image.fromarray(skimage.data.camera()).save(folder / "camera.jpg")
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    Image.fromarray(skimage.data.camera()[:20, :20]).save(folder / "stamp.png")
    return folder


@pytest.fixture
def small() -> dict[str, Any]:
    """A recipe that trains in seconds, as TOML would give it."""
    return {
        "name": "small",
        "summary": "for tests",
        "limits": ["for tests"],
        "network": {"kind": "unet", "widths": [8, 12], "blocks": [1, 1], "unshuffle": 2},
        "data": {"patch": 32, "holdout": 1},
        "fit": {
            "loss": "psnr",
            "optimiser": "muon",
            "rate": 5e-3,
            "batch": 4,
            "steps": 40,
            "warmup": 5,
            "ema": 0.8,
            "epoch": 10,
            "precision": "32-true",
        },
        "corruption": [{"kind": "gaussian", "sigma": [30, 60]}],
    }


@pytest.fixture
def spiral(small: dict[str, Any]) -> dict[str, Any]:
    """A recipe of points: a hundred steps in a second."""
    small.update(
        network={"kind": "dense", "hidden": [16], "output": "linear"},
        data={"kind": "spiral", "points": 1000, "holdout": 200},
    )
    small["fit"].update(optimiser="adam", loss="gaussian-nll", batch=20, steps=60, rate=1e-2, warmup=0)
    return small


@pytest.fixture
def recipe(small: dict[str, Any]) -> Recipe:
    return Recipe.model_validate(small)


@pytest.fixture
def little_files() -> Callable[[], AbstractContextManager[None]]:
    """A context in which no file grows over 64 bytes, as on a disk that is full."""

    @contextmanager
    def limited() -> Iterator[None]:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (64, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limited
