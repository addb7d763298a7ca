import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from training.batches import prepare
from training.corruption import Gaussian
from training.data import Patches, Stream, read_photos, read_rgb
from training.errors import DataError
from training.recipe import Recipe


def patches(
    photos: Path, gray: float = 0.0, sigma: float = 20, seed: int = 0, augment: float = 0.0
) -> Patches:
    return Patches(
        read_photos(photos, 32),
        Gaussian(sigma=(sigma, sigma)),
        patch=32,
        shrink=2.0,
        gray=gray,
        seed=seed,
        augment=augment,
    )


def test_unreadable_and_small_files_are_named_and_skipped(
    photos: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert len(read_photos(photos, 32)) == 4
    assert "broken.png" in caplog.text
    assert "stamp.png: 20x20 is under 32" in caplog.text
    assert f"skipped 2 of 6 files in {photos}" in caplog.text


def test_sixteen_bits_and_alpha_are_read_as_the_service_reads_them(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 64 * 64).astype(np.uint16).reshape(64, 64)
    for suffix in ("png", "tiff"):
        Image.fromarray(ramp).save(tmp_path / f"deep.{suffix}")
        assert np.abs(read_rgb(tmp_path / f"deep.{suffix}") - ramp[..., None] / 257).max() <= 0.5
    Image.new("RGBA", (64, 64), (10, 20, 30, 0)).save(tmp_path / "clear.png")
    assert (read_rgb(tmp_path / "clear.png") == 255).all()
    Image.fromarray(ramp / np.float32(65535)).save(tmp_path / "float.tiff")
    with pytest.raises(DataError, match=r"float\.tiff .* kind F have no 8-bit meaning"):
        read_rgb(tmp_path / "float.tiff")


def test_the_photographs_held_out_are_of_many_authors_and_not_trained_on(
    small: dict[str, Any], tmp_path: Path
) -> None:
    for level in range(20):
        Image.new("L", (32, 32), 10 * level).save(tmp_path / f"author{level // 5}__{level:02}.png")
    small["data"]["holdout"] = 4
    batches = prepare(Recipe.model_validate(small), tmp_path)
    parts = (batches.training, batches.validation)
    training, validation = (
        {int(photo.flat[0]) // 10 for photo in part.photos} for part in parts if isinstance(part, Patches)
    )
    assert training | validation == set(range(20))
    assert not training & validation
    assert {level // 5 for level in validation} == {0, 1, 2, 3}


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a folder"):
        read_photos(tmp_path / "absent", 32)
    with pytest.raises(DataError, match="holds no images"):
        read_photos(tmp_path, 32)
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(DataError, match="no photograph in"):
        read_photos(tmp_path, 32)


@pytest.mark.parametrize("augment", [0, 0.5])
def test_patch_number_i_is_always_the_same(photos: Path, augment: float) -> None:
    first, again, other = (patches(photos, seed=seed, augment=augment) for seed in (0, 0, 1))
    for index in (0, 7, 10**9):
        for ours, theirs in zip(first[index], again[index], strict=True):
            assert torch.equal(ours, theirs)
    assert not torch.equal(first[0][1], other[0][1])
    assert not torch.equal(first[0][1], first[1][1])


@pytest.mark.parametrize("augment", [0, 1])
def test_noisy_and_clean_belong_together(photos: Path, augment: float) -> None:
    for index in range(20):
        noisy, clean = patches(photos, sigma=5, augment=augment)[index]
        assert noisy.shape == clean.shape == (3, 32, 32)
        assert noisy.dtype == torch.float32
        assert noisy.min() >= 0
        assert noisy.max() <= 1
        assert (noisy - clean).abs().mean() < 5 / 255
    unchanged, clean = patches(photos, sigma=0)[3]
    assert torch.equal(unchanged, clean)


def test_gray_patches_are_gray_also_when_noisy(photos: Path) -> None:
    noisy, clean = patches(photos, gray=1.0, sigma=10)[0]
    for image in (noisy, clean):
        assert torch.equal(image[0], image[1])
        assert torch.equal(image[0], image[2])
    assert 8 / 255 < (noisy - clean).std() < 12 / 255, "with the noise of one channel, not of a mean"


def test_gray_patches_are_exposed_otherwise_and_no_sharper(photos: Path) -> None:
    plain, augmented = (patches(photos, gray=1.0, augment=augment) for augment in (0, 1))
    slopes = []
    for index in range(20):
        (_, before), (_, after) = plain[index], augmented[index]
        inside = (after > 0) & (after < 1)
        slope, offset = np.polyfit(before[inside], after[inside], 1)
        assert (slope * before + offset).clamp(0, 1).allclose(after, atol=2 / 255)
        slopes.append(slope)
    assert min(slopes) < 0.8
    assert max(slopes) > 1


def test_the_stream_goes_on_where_the_last_epoch_ended() -> None:
    for counted in (0, 7):  # Lightning's number, which counts an epoch that was cut off
        stream = Stream(10, begin=25)
        seen = []
        for epoch in range(3):
            stream.set_epoch(counted + epoch)
            seen += list(stream)
        assert np.array_equal(seen, np.arange(25, 55))
