"""Noise of a known law on real photographs: what is measured and claimed is compared with the truth."""

import cv2
import numpy as np
import pytest
import skimage.data
import torch

from training.corruption import Photo, to_float, to_uint8
from training.data import to_tensor
from training.errors import DataError
from training.networks import ResidualUNet
from training.noise_model import Curve, NoiseModel, estimate_noise, left_in_flat
from training.self_supervised import Frame, Outcome, Tuning, denoise, fine_tune, stein_risk

BLUR = cv2.getGaussianKernel(13, 0.7) @ cv2.getGaussianKernel(13, 0.7).T


def law() -> NoiseModel:
    """Correlated over neighbours, stronger in the light, twice as strong in red."""
    kernel = torch.zeros(3, 3, 13, 13)
    for channel in range(3):
        kernel[channel, channel] = torch.from_numpy(BLUR / np.sqrt(np.square(BLUR).sum()))
    ends = np.array([[16, 32], [8, 16], [8, 16]]) / 255
    return NoiseModel([Curve(np.tile([0.0, 1.0], (3, 1)), ends)], kernel)


def noisy(clean: Photo, seed: int) -> Photo:
    image = to_tensor(clean)
    noise = law().draw(law().curves[0].of(image)[None], torch.Generator().manual_seed(seed))
    return to_uint8((image + noise[0]).permute(1, 2, 0).numpy())


@pytest.fixture(scope="module")
def clean() -> list[Photo]:
    """Photographs, smooth and dull enough that no noise is clipped."""
    crops = (skimage.data.coffee()[100:292, 150:342], skimage.data.astronaut()[:192, 140:332])
    return [to_uint8(0.25 + 0.5 * to_float(each)) for each in crops]


@pytest.fixture(scope="module")
def frames(clean: list[Photo]) -> list[Photo]:
    return [noisy(image, seed) for seed in range(2) for image in clean]


@pytest.fixture(scope="module")
def network() -> ResidualUNet:
    torch.manual_seed(0)
    return ResidualUNet((12, 16), (1, 1), unshuffle=2).eval()


@pytest.fixture(scope="module")
def outcome(network: ResidualUNet, frames: list[Photo]) -> Outcome:
    return fine_tune(network, frames, Tuning(steps=60, rate=4e-3, batch=4, patch=64))


def mse(network: ResidualUNet, frame: Photo, clean: Photo) -> float:
    return float(np.square(to_float(denoise(network, frame)) - to_float(clean)).mean())


def test_the_noise_is_measured_from_noisy_frames(clean: list[Photo], frames: list[Photo]) -> None:
    guides = [np.asarray(cv2.GaussianBlur(frame, (0, 0), 2), np.uint8) for frame in frames]
    measured = estimate_noise(frames, guides)
    for curve, image in zip(measured.curves, clean * 2, strict=True):
        found, truth = (each.of(to_tensor(image)).mean((1, 2)) for each in (curve, law().curves[0]))
        assert ((found / truth > 0.9) & (found / truth < 1.25)).all(), "texture may add to it a little"
    drawn, truth = (
        each.draw(torch.ones(1, 3, 256, 256), torch.Generator().manual_seed(0))[0]
        for each in (measured, law())
    )
    for lag in (1, 2, 4):
        found, expected = ((each[:, :, lag:] * each[:, :, :-lag]).mean((1, 2)) for each in (drawn, truth))
        assert (found - expected).abs().max() < 0.08


def test_it_learns_from_noisy_frames_alone_and_says_so(
    outcome: Outcome, network: ResidualUNet, clean: list[Photo], frames: list[Photo]
) -> None:
    assert outcome.improved
    held_out, truth = frames[3], clean[1]
    before, after = mse(network, held_out, truth), mse(outcome.network, held_out, truth)
    assert after < 0.5 * before
    assert outcome.after - outcome.before == pytest.approx(10 * np.log10(before / after), abs=1)


def test_steins_estimate_is_the_error_to_the_clean_image(
    outcome: Outcome, network: ResidualUNet, clean: list[Photo]
) -> None:
    image = to_tensor(clean[0])
    deviation = law().curves[0].of(image)
    noise = law().draw(deviation[None], torch.Generator().manual_seed(5))[0]
    for each in (network, outcome.network):
        estimated = stein_risk(each, [Frame(image + noise, deviation)], law(), seed=0).mean()
        with torch.no_grad():
            true = (each((image + noise)[None])[0] - image).square().mean()
        assert estimated == pytest.approx(float(true), abs=0.1 * float(deviation.square().mean()))


def test_what_became_worse_is_not_improved(network: ResidualUNet, frames: list[Photo]) -> None:
    before = [weight.clone() for weight in network.parameters()]
    worse = fine_tune(network, frames, Tuning(steps=2, rate=0.05, batch=1, patch=32))
    assert worse.after < worse.before
    assert not worse.improved
    assert all(map(torch.equal, before, network.parameters())), "the network given is left as it was"


def test_noise_taken_for_too_little_fools_steins_estimate_and_not_the_flat_places(
    outcome: Outcome, frames: list[Photo], monkeypatch: pytest.MonkeyPatch
) -> None:
    def little(noisy: list[Photo], guides: list[Photo]) -> NoiseModel:
        found = estimate_noise(noisy, guides)
        curves = [Curve(curve.intensity, curve.deviation / 5) for curve in found.curves]
        return NoiseModel(curves, found.kernel)

    monkeypatch.setattr("training.self_supervised.estimate_noise", little)
    fooled = fine_tune(outcome.network, frames, Tuning(steps=40, rate=2e-3, batch=4, patch=64))
    assert fooled.after - fooled.before > 2 * fooled.error
    assert fooled.left_after > fooled.left_before
    assert fooled.leaves_more
    assert not fooled.improved


def test_what_is_left_in_flat_places_is_the_noise() -> None:
    scene = np.full((256, 256, 3), 0.5, np.float32)
    scene[:, 128:] *= np.random.default_rng(0).uniform(0.5, 1.5, (256, 128, 1))
    for sigma in (2, 10):
        noise = np.random.default_rng(1).normal(0, sigma / 255, scene.shape).astype(np.float32)
        assert left_in_flat(to_uint8(scene + noise), to_uint8(scene)) == pytest.approx(sigma, rel=0.1)


def test_black_and_odd_frames_among_the_others_do_no_harm(network: ResidualUNet, frames: list[Photo]) -> None:
    odd = [*frames, frames[0][:128], np.zeros_like(frames[0])]
    outcome = fine_tune(network, odd, Tuning(steps=20, rate=4e-3, batch=4, patch=64))
    assert outcome.after > outcome.before


def test_frames_that_nothing_can_be_learnt_from_are_refused(
    network: ResidualUNet, frames: list[Photo]
) -> None:
    with pytest.raises(DataError, match="two noisy frames"):
        fine_tune(network, frames[:1])
    with pytest.raises(DataError, match="at least 96 pixels"):
        fine_tune(network, [frame[:90] for frame in frames])
    smooth = [np.asarray(cv2.GaussianBlur(frame, (0, 0), 9), np.uint8) for frame in frames]
    with pytest.raises(DataError, match="hardly any noise"):
        fine_tune(network, smooth)
