"""Fine-tuning on a camera's noisy frames alone, without any clean image.

Recorrupted-to-Recorrupted (Pang et al. 2021): of a noisy frame y = x + n, n ~ N(0, S), and a draw
m ~ N(0, S) make the pair y + a m and y - m / a. Their noises are uncorrelated, S - S = 0, so being
Gaussian they are independent, and the second is as good a target as x: the expected squared error
differs from that to x by a constant. The noise may be correlated between pixels, as that of every
camera with a colour mosaic is, where Neighbor2Neighbor (Huang et al. 2021) takes it to be white.
It needs S, which `noise_model` measures on the same frames.

Whether it helped is asked of frames that were not trained on, by Stein's unbiased estimate of the
squared error (Stein 1981; for correlated noise Eldar 2009; by Monte Carlo Ramani et al. 2008), which
needs no clean image either. Its limits: it is unbiased for noise that is Gaussian with mean zero and
has the measured S. Noise that is no longer there to be measured (clipped shadows and lights), that
moves with the scene (compression) or is wider than `noise_model.REACH` pixels is not seen by it, and
an S that is too small makes removing less look better than it is. So the frames are asked a second
question, which S has no part in: what is left to see where the scene is flat. Frames that look like
the training ones say nothing of other scenes or another gain.
"""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from training.corruption import Photo
from training.data import to_tensor
from training.errors import DataError, DivergedError
from training.networks import ResidualUNet, denoise_uint8
from training.noise_model import FAINTEST, NoiseModel, estimate_noise, left_in_flat

MIXING = 0.5  # the a of the pairs: y + a m has 1.12 times the frame's deviation
HELD_OUT = 4  # every fourth frame is kept for validation
MOST_FRAMES = 32  # of more, so many are taken, evenly
LARGEST = 1024  # pixels a side; of a larger frame the middle is taken
TILE = 32
_PROBE = 0.1  # step of the derivative in Stein's estimate, in deviations of the noise


@dataclass(frozen=True)
class Tuning:
    """The optimisation: Adam, its rate falling to zero by a cosine.

    Attributes:
        patch: pixels a side, a multiple of the network's alignment.
    """

    steps: int = 120
    rate: float = 2e-4
    batch: int = 8
    patch: int = 96
    seed: int = 0


@dataclass(frozen=True)
class Outcome:
    """A fine-tuned network, and what the held-out noisy frames say of it.

    Attributes:
        before: PSNR in dB of the network given, of the mean squared error estimated without clean images.
        after: the same of `network`. Both are to be compared, not quoted: see the limits above.
        error: standard error of `after - before`, dB, from the spread between tiles of 32 pixels.
        left_before: deviation in grey levels of what the network given leaves where the scene is flat.
        left_after: the same of `network`.
        learned_from: how many frames `network` learned from: neither held out nor left aside as too many.
    """

    network: ResidualUNet
    before: float
    after: float
    error: float
    left_before: float
    left_after: float
    learned_from: int

    @property
    def improved(self) -> bool:
        """Whether it is better by more than two standard errors, and leaves no more noise in sight."""
        return self.after - self.before > 2 * self.error and not self.leaves_more

    @property
    def leaves_more(self) -> bool:
        """Whether more noise than before is left in flat places, and enough of it to be seen."""
        return self.left_after > max(self.left_before, FAINTEST)


@dataclass(frozen=True)
class Frame:
    """A noisy frame and the deviation of its noise, float `[C, H, W]` in 0..1."""

    noisy: Tensor
    deviation: Tensor


def fine_tune(
    network: ResidualUNet,
    frames: Sequence[Photo],
    tuning: Tuning | None = None,
    each_step: Callable[[int, float], None] = lambda step, loss: None,
) -> Outcome:
    """Adapt a copy of a network to the noise of a camera.

    Args:
        network: trained for noise of many kinds; it is left as it was.
        frames: uint8 `[H, W, 3]` of one camera, as it stores them; sides of at least a patch.
        each_step: is told the number of the step, from 1, and the loss.

    Raises:
        DataError: fewer than two frames, frames smaller than a patch, or hardly any noise in them.
        DivergedError: the loss is no number.
    """
    tuning = tuning or Tuning()
    if len(frames) < 2:
        raise DataError("one frame is held out to see whether it helped, so two noisy frames are the least")
    if min(min(frame.shape[:2]) for frame in frames) < tuning.patch:
        raise DataError(f"every frame has to be at least {tuning.patch} pixels a side")
    frames = [_middle(frame) for frame in frames[:: math.ceil(len(frames) / MOST_FRAMES)]]
    apart = min(HELD_OUT, len(frames))
    held_out = frames[apart - 1 :: apart]
    learning = [frame for number, frame in enumerate(frames, 1) if number % apart]
    tuned = copy.deepcopy(network).train()
    _train(tuned, *_measured(network, learning), tuning, each_step)
    validation, noise = _measured(network, held_out)
    before, after = (stein_risk(each.eval(), validation, noise, tuning.seed) for each in (network, tuned))
    left_before, left_after = (_left(each, network, held_out) for each in (network, tuned))
    return Outcome(tuned, *_compare(before, after), left_before, left_after, len(learning))


def _left(network: ResidualUNet, guide: ResidualUNet, frames: list[Photo]) -> float:
    """What a network leaves in the flat places that the guide sees, mean over frames."""
    return float(np.mean([left_in_flat(denoise(network, frame), denoise(guide, frame)) for frame in frames]))


def _middle(frame: Photo) -> Photo:
    top, left = (max(0, side - LARGEST) // 2 for side in frame.shape[:2])
    return frame[top : top + LARGEST, left : left + LARGEST]


def _measured(network: ResidualUNet, frames: list[Photo]) -> tuple[list[Frame], NoiseModel]:
    guides = [denoise(network, frame) for frame in frames]
    noise = estimate_noise(frames, guides)
    deviations = [curve.of(to_tensor(guide)) for curve, guide in zip(noise.curves, guides, strict=True)]
    return [Frame(to_tensor(f), deviation) for f, deviation in zip(frames, deviations, strict=True)], noise


@torch.no_grad()
def denoise(network: ResidualUNet, frame: Photo) -> Photo:
    """uint8 `[H, W, 3]`, as the exported graph would."""
    image = torch.from_numpy(np.array(frame[None]))
    restored: Photo = denoise_uint8(network, image, torch.ones(1))[0].numpy()
    return restored


def _train(
    network: ResidualUNet,
    frames: list[Frame],
    noise: NoiseModel,
    tuning: Tuning,
    each_step: Callable[[int, float], None],
) -> None:
    rng, generator = np.random.default_rng(tuning.seed), torch.Generator().manual_seed(tuning.seed)
    optimiser = torch.optim.Adam(network.parameters(), tuning.rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, tuning.steps)
    for step in range(1, tuning.steps + 1):
        noisy, deviation = _patches(frames, tuning, rng)
        drawn = noise.draw(deviation, generator)
        error = (network(noisy + MIXING * drawn) - (noisy - drawn / MIXING)).square()
        # By the variance of its noise, or the noisiest frames would be all that counts.
        # A black frame has none, and must not be all that counts either.
        variance = deviation.square().mean((1, 2, 3), keepdim=True).clamp_min((FAINTEST / 255) ** 2)
        loss = (error / variance).mean()
        if not torch.isfinite(loss):
            raise DivergedError(f"loss is {loss.item()} at step {step} (seed {tuning.seed}); lower the rate")
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        each_step(step, loss.item())


def _patches(frames: list[Frame], tuning: Tuning, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Random patches, mirrored at random: noisy and deviation, `[batch, C, patch, patch]`."""
    noisy: list[Tensor] = []
    deviation: list[Tensor] = []
    patch = tuning.patch
    for number in rng.integers(len(frames), size=tuning.batch):
        frame = frames[number]
        top, left = (int(rng.integers(side - patch + 1)) for side in frame.noisy.shape[1:])
        axes = [axis for axis in (1, 2) if rng.random() < 0.5]
        for planes, patches in ((frame.noisy, noisy), (frame.deviation, deviation)):
            patches.append(planes[:, top : top + patch, left : left + patch].flip(axes))
    return torch.stack(noisy), torch.stack(deviation)


@torch.no_grad()
def stein_risk(network: ResidualUNet, frames: list[Frame], noise: NoiseModel, seed: int) -> Tensor:
    """Estimated mean squared error of each tile, by Stein: |r(y) - y|^2 - tr S + 2 tr(S dr/dy)."""
    generator = torch.Generator().manual_seed(seed)
    tiles = []
    for frame in frames:
        height, width = (side // TILE * TILE for side in frame.noisy.shape[1:])
        noisy, deviation = frame.noisy[None, :, :height, :width], frame.deviation[None, :, :height, :width]
        restored = network(noisy)
        drawn = noise.draw(deviation, generator)
        slope = (network(noisy + _PROBE * drawn) - restored) / _PROBE
        risk = (restored - noisy).square() - deviation.square() + 2 * drawn * slope
        tiles.append(torch.nn.functional.avg_pool2d(risk.mean(1), TILE).flatten())
    return torch.cat(tiles)


def _compare(before: Tensor, after: Tensor) -> tuple[float, float, float]:
    """PSNR before and after, and the standard error of their difference, dB."""
    old, new = (max(risk.mean().item(), 1e-8) for risk in (before, after))
    spread = (after - before).std().item() / math.sqrt(len(before))
    decibels = 10 / math.log(10)
    return -decibels * math.log(old), -decibels * math.log(new), decibels * spread / min(old, new)
