"""The camera, stage by stage: its sensor, its mosaic, its processing."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tests.training.test_corruption import GREY, drawn
from training.bayer import Demosaic, bilinear, malvar
from training.corruption import Camera, srgb_to_linear

BARE: dict[str, Any] = {
    "read": 0,
    "gain": 1,
    "demosaic": 0,
    "shrink": 1,
    "blur": 0,
    "sharpen": 0,
    "colour": 0,
}


def neighbours(noise: npt.NDArray[np.float32]) -> float:
    """Correlation of a pixel with the next one."""
    return float((noise[:, 1:] * noise[:, :-1]).mean() / noise.var())


def test_a_camera_without_processing_is_its_sensor() -> None:
    camera = Camera.model_validate({"photons": 1000, "contrast": 0, **BARE})
    linear, clean = srgb_to_linear(drawn(camera)), srgb_to_linear(GREY)
    assert abs((linear - clean).std() / np.sqrt(clean.mean() / 1000) - 1) < 0.02
    assert abs(neighbours(linear - clean)) < 0.02


@pytest.mark.parametrize("contrast", [0, 1])
def test_curves_bend_noise_to_the_dark_unless_they_take_it_to_first_order(contrast: float) -> None:
    for unbiased in (0, 1):
        camera = Camera.model_validate({"photons": 60, "contrast": contrast, "unbiased": unbiased, **BARE})
        noise = drawn(camera) - GREY
        off, lean = noise.mean(), float((((noise - noise.mean()) / noise.std()) ** 3).mean())
        if unbiased:
            assert abs(off) < 0.001
            assert abs(lean) < 0.03
        else:
            assert off < -0.003
            assert lean < -0.3


@pytest.mark.parametrize("contrast", [0, 1])
def test_of_little_noise_curves_make_the_same_as_their_slope(contrast: float) -> None:
    bent, sloped = (
        drawn(Camera.model_validate({"photons": 1e5, "contrast": contrast, "unbiased": each, **BARE})) - GREY
        for each in (0, 1)
    )
    assert (bent - sloped).std() < 0.05 * bent.std()


@pytest.mark.parametrize("stage", [{"demosaic": 1}, {"shrink": 1.5}, {"blur": 0.6}])
def test_processing_joins_neighbours(stage: dict[str, float]) -> None:
    camera = Camera.model_validate({"photons": 1000, "contrast": 0, **BARE, **stage})
    assert neighbours(drawn(camera) - GREY) > 0.05


def test_rows_and_columns_have_offsets_of_their_own() -> None:
    for stage, axis in (("rows", 1), ("columns", 0)):
        camera = Camera.model_validate({"photons": 1000, "contrast": 0, **BARE, stage: 50})
        found = srgb_to_linear(drawn(camera))[..., 0]
        assert abs(found.mean(axis).std() / (50 / 1000) - 1) < 0.2
        assert found.mean(1 - axis).std() < 0.01


@pytest.mark.parametrize("demosaic", [0, 1])
def test_hot_pixels_are_as_many_as_told_and_spread_by_the_mosaic(demosaic: float) -> None:
    dark = np.zeros((400, 400, 3), np.float32)
    stage = {"hot": 0.01, "demosaic": demosaic, "malvar": 0}
    camera = Camera.model_validate({"photons": 1e6, "contrast": 0, **BARE, **stage})
    shown = (drawn(camera, dark) > 0.02).any(2).mean()
    assert 0.02 < shown < 0.12 if demosaic else abs(shown - 0.03) < 0.004


def test_a_better_demosaicing_gives_all_channels_the_same_grain() -> None:
    def channels(share: float) -> float:
        stage = {"demosaic": 1, "malvar": share}
        camera = Camera.model_validate({"photons": 1000, "contrast": 0, **BARE, **stage})
        return float(np.corrcoef((drawn(camera) - GREY).reshape(-1, 3).T)[0, 1])

    assert channels(1) > 0.4
    assert abs(channels(0)) < 0.05


@pytest.mark.parametrize("demosaic", [bilinear, malvar])
def test_demosaicing_keeps_what_the_channels_share(demosaic: Demosaic) -> None:
    assert np.allclose(demosaic(np.ones((16, 14, 3), np.float32)), 1)


def test_a_steep_tone_curve_quietens_the_dark() -> None:
    def noise(contrast: float, grey: float) -> float:
        camera = Camera.model_validate({"photons": 1000, "contrast": contrast, **BARE})
        return float((drawn(camera, GREY * np.float32(grey)) - GREY * np.float32(grey)).std())

    assert noise(1, 0.2) / noise(1, 1) < 0.8 * noise(0, 0.2) / noise(0, 1)


def test_gains_and_colours_are_those_of_their_channels() -> None:
    loud = Camera.model_validate({"photons": 1000, "contrast": 0, **BARE, "read": 20, "gain": 2})
    red, green, blue = (drawn(loud) - GREY).std((0, 1))
    assert min(red, blue) > 1.5 * green
    mixed = Camera.model_validate({"photons": 1000, "contrast": 0, **BARE, "colour": 0.5})
    assert np.corrcoef((drawn(mixed) - GREY).reshape(-1, 3).T)[0, 1] < -0.2
