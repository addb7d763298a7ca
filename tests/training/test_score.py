"""Against a density whose score is known: a mixture of Gaussians, smoothed by the same noise."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from training.score import Level, denoising_score_matching, langevin

SIGMA = 0.4


@dataclass(frozen=True)
class Mixture:
    """Isotropic Gaussians in the plane."""

    means: Tensor
    weights: Tensor
    deviation: float

    def smoothed(self, sigma: float) -> "Mixture":
        return Mixture(self.means, self.weights, (self.deviation**2 + sigma**2) ** 0.5)

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        which = torch.multinomial(self.weights, count, replacement=True, generator=generator)
        return self.means[which] + self.deviation * torch.randn(count, 2, generator=generator)

    def log_density(self, x: Tensor) -> Tensor:
        squares = (x[:, None] - self.means).square().sum(2) / self.deviation**2
        return torch.logsumexp(self.weights.log() - squares / 2, 1) - 2 * torch.tensor(self.deviation).log()

    def score(self, x: Tensor) -> Tensor:
        away = self.means - x[:, None]
        shares = torch.softmax(self.weights.log() - away.square().sum(2) / (2 * self.deviation**2), 1)
        return (shares[..., None] * away).sum(1) / self.deviation**2


DATA = Mixture(torch.tensor([[-1.5, 0.0], [1.0, 1.2], [0.8, -1.4]]), torch.tensor([0.5, 0.2, 0.3]), 0.3)


@pytest.fixture(scope="module")
def trained() -> Level:
    """A DAE of a few hundred units, trained on samples alone."""
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(2, 64), nn.GELU(), nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 2))
    level = Level(network, SIGMA)
    steps = 1500
    optimiser = torch.optim.Adam(network.parameters(), lr=4e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        clean = DATA.sample(256, generator)
        noisy = clean + SIGMA * torch.randn(clean.shape, generator=generator)
        loss = denoising_score_matching(level.score(noisy), clean, noisy, SIGMA)
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
        schedule.step()
    return level


def test_the_trained_score_is_that_of_the_smoothed_density(trained: Level) -> None:
    smoothed = DATA.smoothed(SIGMA)
    axis = torch.linspace(-4, 4, 81)
    grid = torch.cartesian_prod(axis, axis)
    density = smoothed.log_density(grid).exp()
    inside = grid[density > 0.01 * density.max()]
    with torch.no_grad():
        estimate = trained.score(inside)
    truth = smoothed.score(inside)
    assert torch.cosine_similarity(estimate, truth).mean() > 0.98
    assert torch.cosine_similarity(estimate.flatten(), truth.flatten(), dim=0) > 0.98
    assert (estimate - truth).norm() < 0.2 * truth.norm(), "and so is its length"


def test_langevin_samples_have_the_moments_of_the_smoothed_density(trained: Level) -> None:
    generator = torch.Generator().manual_seed(1)
    start = 3 * torch.randn(1000, 2, generator=generator)
    drawn = langevin([trained], start, steps=400, step=0.2, generator=generator)
    expected = DATA.smoothed(SIGMA).sample(100_000, generator)
    assert (drawn.mean(0) - expected.mean(0)).abs().max() < 0.15
    assert (drawn.T.cov() - expected.T.cov()).abs().max() < 0.2


def test_annealing_finds_modes_that_plain_langevin_cannot_reach() -> None:
    far = Mixture(torch.tensor([[-4.0, 0.0], [4.0, 0.0]]), torch.tensor([0.25, 0.75]), 0.1)

    def exact(sigma: float) -> Level:
        smoothed = far.smoothed(sigma)
        return Level(lambda x: x + sigma**2 * smoothed.score(x), sigma)

    generator = torch.Generator().manual_seed(0)
    start = far.means[0].expand(1000, 2)
    shares = []
    for sigmas in ([0.2], [8.0, 4.0, 2.0, 1.0, 0.5, 0.2]):
        drawn = langevin([exact(s) for s in sigmas], start, steps=80, step=0.2, generator=generator)
        shares.append((drawn[:, 0] > 0).float().mean().item())
    plain, annealed = shares
    assert plain == 0
    assert abs(annealed - 0.75) < 0.1
    assert start[0, 0] == -4


def test_the_objective_is_the_scaled_reconstruction_error() -> None:
    clean, noise = torch.randn(2, 16, 3, generator=torch.Generator().manual_seed(0))
    level = Level(torch.tanh, 0.5)
    noisy = clean + 0.5 * noise
    objective = denoising_score_matching(level.score(noisy), clean, noisy, 0.5)
    error = (torch.tanh(noisy) - clean).square().sum(1).mean()
    assert torch.isclose(objective, error / (2 * 0.5**4))


def test_impossible_levels_are_refused() -> None:
    with pytest.raises(ValueError, match="positive"):
        Level(torch.tanh, 0.0)
    with pytest.raises(ValueError, match="from the largest"):
        langevin([Level(torch.tanh, 1.0), Level(torch.tanh, 2.0)], torch.zeros(1, 2), steps=1, step=0.1)
