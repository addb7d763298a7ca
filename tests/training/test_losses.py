import math

import pytest
import torch
from torch.distributions import Bernoulli, Normal

from training.losses import GaussianNll, build_loss


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mse", 0.01),
        ("charbonnier", 0.1),
        ("relative-mse", 0.01 / 0.2),
        ("psnr", -20.0),
        ("floored-psnr", -19.957),
    ],
)
def test_losses_agree_with_their_formulas(name: str, expected: float) -> None:
    clean = torch.rand(2, 3, 8, 8)
    restored, noisy = clean + 0.1, clean + 0.2
    loss = build_loss(name, floor=1e-4)
    assert torch.isclose(loss(restored, clean, noisy), torch.tensor(expected), rtol=0.01)
    assert loss(clean, clean, noisy) < loss(restored, clean, noisy)


def test_an_image_without_error_leads_only_where_there_is_no_floor() -> None:
    clean = torch.zeros(2, 3, 8, 8)
    for name, floor, leads in (
        ("psnr", 1e-4, True),
        ("floored-psnr", 1e-6, True),
        ("floored-psnr", 1e-4, False),
    ):
        restored = torch.stack([torch.full((3, 8, 8), error) for error in (0.002, 0.02)]).requires_grad_()
        build_loss(name, floor)(restored, clean, clean).backward()  # type: ignore[no-untyped-call]
        assert restored.grad is not None
        flat, textured = restored.grad.flatten(1).norm(dim=1)
        assert (flat > textured) == leads


def test_bce_is_the_likelihood_of_bernoulli_pixels_and_stays_finite() -> None:
    restored, clean = torch.rand(2, 1, 8, 8), torch.rand(2, 1, 8, 8).round()
    expected = -Bernoulli(restored).log_prob(clean).mean()  # type: ignore[no-untyped-call]
    assert torch.isclose(build_loss("bce", floor=1e-4)(restored, clean, clean), expected, rtol=1e-4)
    assert build_loss("bce", floor=1e-4)(torch.zeros(1), torch.ones(1), torch.ones(1)).isfinite()


def test_gaussian_nll_is_a_likelihood_whose_variance_is_learned() -> None:
    clean = torch.rand(4, 1, 16, 16)
    restored = clean + 0.05 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    loss = GaussianNll()
    deviation = (0.5 * loss.log_variance).exp()
    expected = -Normal(restored, deviation).log_prob(clean).mean()  # type: ignore[no-untyped-call]
    assert torch.isclose(loss(restored, clean, clean), expected, rtol=1e-4)
    optimiser = torch.optim.Adam(loss.parameters(), lr=0.1)
    for _ in range(300):
        optimiser.zero_grad()
        loss(restored, clean, clean).backward()
        optimiser.step()
    assert math.isclose(math.exp(0.5 * loss.log_variance.item()), 0.05, rel_tol=0.1)
