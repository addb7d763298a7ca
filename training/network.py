"""What every network of the room says of itself, and what it costs."""

from torch import Tensor, nn


class Network(nn.Module):
    """A denoiser r: float `[N, C, H, W]` in 0..1, corrupted, to the clean image of the same scale.

    Attributes:
        shape: (C, H, W) of an input; None where any side will do.
        alignment: H and W are multiples of this.
        scale: sides of the output by those of the input.
    """

    shape: tuple[int, int | None, int | None]
    alignment: int = 1
    scale: int = 1

    def training_pass(self, noisy: Tensor, clean: Tensor, progress: float) -> tuple[Tensor, Tensor]:
        """What is restored from a batch, and what it should have been, `progress` (0..1) through training."""
        return self(noisy), clean


class Means(nn.Module):
    """Means of Bernoulli values, sigmoid(x), in float32.

    In bfloat16, as inside of autocast, all above 0.998 are 1, and cross-entropy has no gradient there.
    """

    def forward(self, logits: Tensor) -> Tensor:
        return logits.float().sigmoid()


def count_parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())
