from collections.abc import Callable
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from training.corruption import (
    H264,
    AnyCorruption,
    Camera,
    Clip,
    Corruption,
    Gaussian,
    Jpeg,
    LowLight,
    Masking,
    Mixture,
    Poisson,
    SaltAndPepper,
    Sequence,
    Speckle,
    linear_to_srgb,
    srgb_to_linear,
    to_uint8,
)
from training.errors import DataError

GREY = np.full((200, 200, 3), 0.5, np.float32)
EVERY: list[Corruption] = [
    Gaussian(sigma=(0, 50)),
    SaltAndPepper(amount=(0.1, 0.3)),
    Speckle(deviation=(0.1, 0.3)),
    Masking(amount=(0.1, 0.3)),
    Masking(amount=(0.1, 0.3), unit="element", block=(2, 9)),
    Poisson(peak=(10, 100)),
    LowLight(photons=(50, 100)),
    Camera(photons=(50, 100)),
    Camera(photons=(50, 100), rows=(2, 2), columns=(2, 2), hot=(0.01, 0.01)),
    Jpeg(quality=(10, 90)),
    H264(crf=(20, 40)),
    Sequence(steps=(Gaussian(sigma=(10, 10)), Jpeg(quality=(50, 50)))),
    Mixture(of=(Gaussian(sigma=(10, 10)), Masking(amount=(0.5, 0.5)))),
]


def drawn(
    corruption: Corruption, clean: npt.NDArray[np.float32] = GREY, seed: int = 0
) -> npt.NDArray[np.float32]:
    return corruption.apply(clean, np.random.default_rng(seed))


@pytest.mark.parametrize("corruption", EVERY, ids=lambda each: str(each.kind))
def test_same_seed_same_image_other_seed_other_image(corruption: Corruption) -> None:
    before = GREY.copy()
    assert np.array_equal(drawn(corruption), drawn(corruption))
    assert drawn(corruption).dtype == np.float32
    assert drawn(corruption).shape == GREY.shape
    assert np.array_equal(before, GREY), "the clean image is not touched"
    ramp = np.linspace(0, 1, GREY.size, dtype=np.float32).reshape(GREY.shape)
    assert not np.array_equal(drawn(corruption, ramp, 1), drawn(corruption, ramp, 2))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("corruption", EVERY, ids=lambda each: str(each.kind))
def test_a_batch_draws_noise_and_levels_for_each_image(corruption: Corruption, channels: int) -> None:
    ramp = np.linspace(0.2, 0.8, 48 * 40, dtype=np.float32).reshape(48, 40, 1).repeat(channels, 2)
    noisy = corruption.apply_batch(np.stack([ramp] * 6), np.random.default_rng(0))
    assert noisy.shape == (6, *ramp.shape)
    assert noisy.dtype == np.float32
    assert len(np.unique(noisy.reshape(6, -1), axis=0)) == 6
    alone = [corruption.apply_batch(ramp[None], np.random.default_rng(seed))[0] for seed in range(3)]
    assert all(np.array_equal(each, drawn(corruption, ramp, seed)) for seed, each in enumerate(alone))
    assert len(corruption.apply_batch(np.empty((0, *ramp.shape), np.float32), np.random.default_rng(0))) == 0


def test_the_levels_of_a_batch_fill_their_range() -> None:
    grey = np.full((400, 20, 20, 1), 0.5, np.float32)
    rng = np.random.default_rng(0)
    cases: list[tuple[Corruption, Callable[[Any], Any]]] = [
        (Gaussian(sigma=(10, 50)), lambda x: (x - 0.5).std((1, 2, 3)) * 255 / 50),
        (Speckle(deviation=(0.1, 0.5)), lambda x: (x / 0.5).std((1, 2, 3)) / 0.5),
        (SaltAndPepper(amount=(0.2, 1)), lambda x: (x != 0.5).mean((1, 2, 3))),
        (Masking(amount=(0.2, 1), block=(1, 2)), lambda x: (x == 0).mean((1, 2, 3))),
        (Poisson(peak=(40, 1000)), lambda x: (0.5 / x.var((1, 2, 3)) / 1000) ** (1 / 2)),
    ]
    for corruption, level in cases:
        low, middle, high = np.quantile(level(corruption.apply_batch(grey, rng)), (0.02, 0.5, 0.98))
        assert abs(low - 0.2) < 0.1
        assert low + 0.15 < middle < high - 0.15
        assert abs(high - 1) < 0.15


@given(st.floats(1, 100))
def test_gaussian_has_the_deviation_it_is_given(sigma: float) -> None:
    noise = (drawn(Gaussian(sigma=(sigma, sigma))) - GREY) * 255
    assert abs(noise.std() - sigma) < 0.03 * sigma
    assert abs(noise.mean()) < 0.03 * sigma


@given(st.floats(0, 1))
def test_masking_and_salt_and_pepper_hit_whole_pixels_at_their_rate(amount: float) -> None:
    masked = drawn(Masking(amount=(amount, amount)))
    assert set(np.unique(masked)) <= {0, np.float32(0.5)}
    assert abs((masked[..., 0] == 0).mean() - amount) < 0.02
    assert (masked == masked[..., :1]).all()
    speckled = drawn(SaltAndPepper(amount=(amount, amount)))
    assert abs((speckled[..., 0] == 1).mean() - amount / 2) < 0.02
    assert abs((speckled[..., 0] == 0).mean() - amount / 2) < 0.02


@pytest.mark.parametrize("block", [1, 7])
def test_masks_are_squares_and_channels_fall_together_or_apart(block: int) -> None:
    units: tuple[Literal["pixel", "element"], ...] = ("pixel", "element")
    masks = {unit: drawn(Masking(amount=(0.3, 0.3), unit=unit, block=(block, block))) == 0 for unit in units}
    assert (masks["pixel"] == masks["pixel"][..., :1]).all()
    assert abs(np.corrcoef(masks["element"][..., 0].ravel(), masks["element"][..., 1].ravel())[0, 1]) < 0.1
    for mask in masks.values():
        assert abs(mask.mean() - 0.3) < 0.1
        changes = np.flatnonzero((mask[:, 1:] != mask[:, :-1]).any((0, 2)))
        assert len(set(changes % block)) == 1


@settings(max_examples=15)
@given(st.floats(0.01, 1))
def test_speckle_grows_with_the_signal_and_clip_ends_it(deviation: float) -> None:
    speckle = Speckle(deviation=(deviation, deviation))
    for grey in (GREY, GREY * np.float32(0.5)):
        assert abs((drawn(speckle, grey) / grey - 1).std() / deviation - 1) < 0.03
    clipped = drawn(Sequence(steps=(speckle, Clip())))
    assert np.array_equal(clipped, np.clip(drawn(speckle), 0, 1))


def test_a_sequence_clips_where_it_says_so() -> None:
    noise = Gaussian(sigma=(255, 255))
    assert drawn(Sequence(steps=(noise,))).min() < -1
    assert drawn(Sequence(steps=(noise, Clip()))).min() == 0


def test_a_process_of_light_refuses_channels_it_has_no_meaning_for() -> None:
    light = (Jpeg(quality=(50, 50)), H264(crf=(30, 30)), LowLight(photons=(50, 50)), Camera(photons=(50, 50)))
    for corruption in light:
        with pytest.raises(DataError, match="1 or 3 channels, not of 4"):
            drawn(corruption, np.zeros((8, 8, 4), np.float32))


@settings(max_examples=30)
@given(st.floats(20, 1000))
def test_poisson_variance_is_the_signal(peak: float) -> None:
    noisy = drawn(Poisson(peak=(peak, peak)))
    assert abs(noisy.mean() - 0.5) < 0.01
    assert abs(noisy.var() * peak / 0.5 - 1) < 0.05


def test_low_light_follows_its_formula_and_demosaicing_correlates_neighbours() -> None:
    for demosaic in (0, 1):
        low = LowLight(photons=(1000, 1000), read=(5, 5), demosaic=demosaic)
        noise = srgb_to_linear(np.clip(drawn(low), 0, 1)) - srgb_to_linear(GREY)
        assert abs(noise.mean()) < 0.001
        neighbours = np.corrcoef(noise[:, :-1].ravel(), noise[:, 1:].ravel())[0, 1]
        if demosaic:
            assert neighbours > 0.3
        else:
            assert abs(neighbours) < 0.02
            expected = srgb_to_linear(GREY).mean() / 1000 + (5 / 1000) ** 2
            assert abs(noise.var() / expected - 1) < 0.05


def test_srgb_curve_is_inverted_and_keeps_noise_around_black() -> None:
    levels = np.linspace(0, 1, 256, dtype=np.float32)
    assert np.abs(linear_to_srgb(srgb_to_linear(levels)) - levels).max() < 1e-5
    assert linear_to_srgb(-levels).tolist() == (-linear_to_srgb(levels)).tolist()


@pytest.mark.parametrize("channels", [1, 3])
def test_compression_worsens_by_its_level(channels: int) -> None:
    rough = np.random.default_rng(0).random((8, 9, 1), np.float32).repeat(channels, 2)
    odd = cv2.resize(rough, (67, 63), interpolation=cv2.INTER_CUBIC).reshape(63, 67, channels).clip(0, 1)
    harder: list[list[Corruption]] = [
        [Jpeg(quality=(q, q)) for q in (90, 50, 10)],
        [H264(crf=(crf, crf)) for crf in (10, 30, 50)],
    ]
    for steps in harder:
        errors = [np.square(drawn(step, odd) - odd).mean() for step in steps]
        assert errors[0] < errors[1] < errors[2]
        assert errors[0] < 0.02**2


def test_mixture_draws_by_weight() -> None:
    mixture = Mixture(of=(Masking(amount=(1, 1), weight=3), SaltAndPepper(amount=(0, 0), weight=1)))
    dark = [drawn(mixture, GREY[:1, :1], seed).max() == 0 for seed in range(400)]
    assert 0.68 < np.mean(dark) < 0.82


def test_a_mixture_keeps_from_gray_images_what_is_not_for_them() -> None:
    never = Masking(amount=(1, 1), weight=9, gray=False)
    shares = {"unchanged": Gaussian(sigma=(0, 0), weight=1), "white": SaltAndPepper(amount=(1, 1), weight=3)}
    mixture = Mixture(of=(never, *shares.values()))
    coloured = np.tile(np.array([0.4, 0.5, 0.6], np.float32), (600, 1, 1, 1))
    grey = np.full((600, 1, 1, 3), 0.5, np.float32)
    noisy = mixture.apply_batch(np.concatenate([grey, coloured]), np.random.default_rng(0))
    unchanged = (noisy == np.concatenate([grey, coloured])).all(axis=(1, 2, 3))
    assert 0.2 < unchanged[:600].mean() < 0.3, "the others keep their proportions"
    assert 0.05 < unchanged[600:].mean() < 0.11
    assert (noisy[600:] == 0).all(axis=(1, 2, 3)).mean() > 0.65


def test_a_step_of_a_sequence_may_follow_any_other() -> None:
    dark = np.zeros((16, 16, 3), np.float32)
    for second in (Poisson(peak=(10, 10)), LowLight(photons=(50, 50), read=(0, 0)), Jpeg(quality=(9, 9))):
        noisy = drawn(Sequence(steps=(Gaussian(sigma=(50, 50)), second)), dark)
        assert np.isfinite(noisy).all()


def test_to_uint8_clips_and_rounds() -> None:
    values = np.array([[-1, 0.4999 / 255, 0.5001 / 255, 2]], np.float32)
    assert to_uint8(values).tolist() == [[0, 0, 1, 255]]


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "mixture", "of": [{"kind": "jpeg", "quality": 50, "gray": False}]},
        {"kind": "gaussian", "sigma": [30, 10]},
        {"kind": "gaussian", "sigma": [[0], 5]},
        {"kind": "gaussian", "sigma": [0, "loud"]},
        {"kind": "gaussian", "sigma": [30, "10"]},
        {"kind": "gaussian", "sigma": -1},
        {"kind": "gaussian", "sigma": "loud"},
        {"kind": "gaussian", "sigma": 1, "mean": 0},
        {"kind": "masking", "amount": 1.5},
        {"kind": "gaussian", "sigma": float("inf")},
        {"kind": "gaussian", "sigma": 1, "weight": float("inf")},
        {"kind": "masking", "amount": 0.5, "block": 0},
        {"kind": "speckle", "deviation": [-1, 1]},
        {"kind": "fog"},
        {"kind": "sequence", "steps": []},
        {"kind": "sequence", "steps": [{"kind": "jpeg", "quality": 50, "gray": False}]},
    ],
)
def test_impossible_levels_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter[Any](AnyCorruption).validate_python(wrong)
