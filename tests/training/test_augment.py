import numpy as np
import pytest

from training.augment import augmented, recoloured, sharpened, turned_crop
from training.pixels import Image, Photo

SIDE = 32


def slope(height: int, width: int) -> Photo:
    """Brighter to the right in red, downwards in green: a straight line stays one however it is turned."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([columns, rows, rows * 0 + 128], axis=2).astype(np.uint8)


def gradients(image: Image) -> np.ndarray:
    """What a step to the right and one downwards change in red and green, 2 x 2; raises where it varies."""
    steps = np.stack([np.diff(image[:-1], axis=1), np.diff(image[:, :-1], axis=0)])[..., :2]
    mean = steps.mean(axis=(1, 2))
    assert np.abs(steps - mean[:, None, None]).max() < 1.5 / 255
    return np.asarray(mean * 255)


@pytest.mark.parametrize("seed", range(20))
def test_a_crop_is_turned_stretched_and_shrunk_but_never_bent_or_reflected(seed: int) -> None:
    crop = turned_crop(slope(150, 250), SIDE, 3.0, np.random.default_rng(seed))
    assert crop is not None
    assert crop.shape == (SIDE, SIDE, 3)
    long, short = np.linalg.svd(gradients(crop), compute_uv=False)
    assert 0.99 < np.sqrt(long * short) < 3.02, "shrunk by 1 to 3"
    assert 0.99 < long / short < np.exp(0.5) * 1.01, "stretched by 1.65 at most"
    assert np.abs(crop[..., 2] - 128 / 255).max() < 1e-3


def test_angles_are_not_only_right_ones() -> None:
    rng = np.random.default_rng(0)
    crops = (turned_crop(slope(150, 250), SIDE, 2.0, rng) for _ in range(40))
    directions = [np.arctan2(*gradients(crop)[0]) for crop in crops if crop is not None]
    assert len(np.unique(np.floor(np.array(directions) / (np.pi / 8)))) > 10


def test_what_does_not_fit_turned_is_left_to_plain_crops() -> None:
    rng = np.random.default_rng(0)
    assert all(augmented(slope(SIDE, SIDE), SIDE, 2.0, rng) is None for _ in range(10))


def test_detail_comes_up_more_often_than_it_covers_the_photograph() -> None:
    photo = np.full((200, 200, 3), 100, np.uint8)
    photo[:, :100] += np.random.default_rng(0).integers(0, 60, (200, 100, 1), np.uint8)
    rng = np.random.default_rng(1)

    def detailed(crop: Image | None) -> bool:
        assert crop is not None
        return bool(crop.std(axis=(0, 1)).max() > 0.02)

    chosen = np.mean([detailed(augmented(photo, SIDE, 1.0, rng)) for _ in range(200)])
    assert chosen > np.mean([detailed(turned_crop(photo, SIDE, 1.0, rng)) for _ in range(200)]) + 0.05


def test_sharpening_raises_contrast_at_edges_and_leaves_the_flat_alone() -> None:
    edge = np.tile(np.array([0.3] * 8 + [0.6] * 8, np.float32)[None, :, None], (16, 1, 3))
    images = np.stack([sharpened(edge, np.random.default_rng(seed)) for seed in range(20)])
    assert images.dtype == np.float32
    assert np.abs(images[:, :, [0, 15]] - edge[:, [0, 15]]).max() < 1e-6
    assert (images[:, 0, 8, 0] - images[:, 0, 7, 0] > 0.3).all()
    assert np.ptp(images[:, 0, 8, 0]) > 0.02, "now more, now less"


def test_recolouring_keeps_what_is_brighter_brighter_until_it_is_white() -> None:
    rng = np.random.default_rng(0)
    levels = np.repeat(np.linspace(0.1, 1, 10, dtype=np.float32)[None, :, None], 3, axis=2)
    images = np.stack([recoloured(levels, rng) for _ in range(40)])
    assert images.dtype == np.float32
    assert 0 <= images.min() < images.max() <= 1
    rises = np.diff(images, axis=2)
    assert ((rises > 0) | (images[:, :, 1:] == 1) | (images[:, :, :-1] == 0)).all()
    assert 0.02 < (images == 1).mean() < 0.2
    assert images[:, 0, 4].std(axis=0).min() > 0.02
