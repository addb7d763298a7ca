"""The production network family: a residual U-Net over the pixel-unshuffled image.

Full-resolution convolutions with few channels waste a CPU; half-resolution ones with 32 or more
run at its peak. So the image is first folded, `unshuffle` x `unshuffle` pixels into channels (Shi
et al. 2016; FFDNet, Zhang et al. 2018), and only then convolved.
"""

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.network import Network

_TINY = 1e-4  # for features that are all 0; others are about as large as pixel values


def space_to_depth(image: Tensor, block: int) -> Tensor:
    """`[N, C, H, W]` to `[N, block*block*C, H/block, W/block]` in ONNX SpaceToDepth's order."""
    n, c, h, w = image.shape
    split = image.reshape(n, c, h // block, block, w // block, block)
    return split.permute(0, 3, 5, 1, 2, 4).reshape(n, block * block * c, h // block, w // block)


def depth_to_space(folded: Tensor, block: int) -> Tensor:
    """The inverse of `space_to_depth`."""
    n, c, h, w = folded.shape
    split = folded.reshape(n, block, block, c // block**2, h, w)
    return split.permute(0, 3, 4, 1, 5, 2).reshape(n, c // block**2, h * block, w * block)


def _white(folded: Tensor) -> Tensor:
    """Share of each block's pixels that are at 1 or above: `[N, 3*u*u, h, w]` to `[N, 3, h, w]`."""
    n, channels, height, width = folded.shape
    white = (folded >= 1).to(folded.dtype)
    return white.reshape(n, channels // 3, 3, height, width).mean(1)


def _gray(folded: Tensor) -> Tensor:
    """1 for each image whose three channels are equal, else 0: `[N, 3*u*u, h, w]` to `[N, 1, 1, 1]`."""
    red, green, blue = (folded[:, colour::3] for colour in range(3))
    unlike = torch.maximum((red - green).abs(), (green - blue).abs())
    return (unlike.amax((1, 2, 3), keepdim=True) == 0).to(folded.dtype)


class ResidualBlock(nn.Module):
    """x + conv(leaky_relu(conv(x))): no normalisation, as in EDSR (Lim et al. 2017).

    Leaky, because with ReLU every unit of the coarsest level died in a long run and none came back.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.second = nn.Conv2d(width, width, 3, padding=1, bias=False)

    def forward(self, x: Tensor, gate: Tensor | None = None) -> Tensor:
        hidden = functional.leaky_relu(self.first(x), 0.1)
        out: Tensor = x + self.second(hidden if gate is None else hidden * gate)
        return out


class Gate(nn.Module):
    """A factor for each feature and pixel of a level, from the features of the next coarser one; 1 at first.

    The coarser level sees farther and knows what noise is there, and turns on what is for it: so one
    network is many, at the price of a 1x1 convolution at the coarser resolution. As a spatial feature
    transform (Wang et al. 2018, "Recovering Realistic Texture in Image Super-resolution by Deep Spatial
    Feature Transform", section 3.2) without its offsets. The features are divided by their root mean
    square (Zhang & Sennrich 2019), so that twice the image has the same gates, and the network stays
    homogeneous; the bias is that of the factor.

    Gray images may have other factors: what is added to the weights for them is of low rank (LoRA, Hu et al.
    2022, section 4.1), and nothing at first.
    """

    def __init__(self, coarse: int, fine: int, gray_rank: int = 0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(coarse, fine, 1)
        self.length = coarse**0.5
        self.gray = nn.ModuleList()
        if gray_rank:
            self.gray.extend([nn.Conv2d(coarse, gray_rank, 1), nn.Conv2d(gray_rank, fine, 1, bias=False)])

    def forward(self, coarse: Tensor, gray: Tensor | None) -> Tensor:
        """`[N, coarse, h, w]`, and which images are gray, `[N, 1, 1, 1]`, to `[N, fine, 2h, 2w]`."""
        norm = torch.linalg.vector_norm(coarse.float(), dim=1, keepdim=True)
        even = coarse * (self.length / (norm + _TINY)).to(coarse.dtype)
        factor = self.conv(even)
        if gray is not None:
            down, up = self.gray
            factor = factor + up(gray * down(even))
        return functional.interpolate(factor, scale_factor=2, mode="nearest")


class Level(nn.Sequential):
    """The residual blocks of one level, one way."""

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__(*(ResidualBlock(width) for _ in range(blocks)))

    def forward(self, x: Tensor, gate: Tensor | None = None) -> Tensor:
        for block in self:
            x = block(x, gate)
        return x


class ResidualUNet(Network):
    """Estimates the noise of an RGB image.

    Bias-free (Mohan et al. 2020): twice the image gives twice the noise, so that a brightness or a
    noise level outside of the training range is nothing new, and no unit can drift away by its bias.
    Of where the sensor's range ends it knows nothing, then, and noise at white, of which the upper half
    is cut off, it averages to gray; unless it is told what is clipped.

    Args:
        widths: channels of each level, from the finest; each level has half the resolution.
        blocks: residual blocks of each level, on the way down and again on the way up (the
            coarsest level has its blocks once).
        unshuffle: side of the pixel block folded into channels before the first convolution.
        gates: whether the blocks on the way up are gated by the coarser level, see `Gate`.
        clipped: whether the head sees, beside each folded block, which share of it is white, by colour.
        gray_rank: rank of what is added to the gates for gray images, see `Gate`; 0 for nothing. There a
            camera's grain is one with texture, in colour it is not, and a network that is to tell them apart
            in both is worse at both.
    """

    def __init__(
        self,
        widths: tuple[int, ...],
        blocks: tuple[int, ...],
        unshuffle: int,
        *,
        gates: bool = False,
        clipped: bool = False,
        gray_rank: int = 0,
    ) -> None:
        super().__init__()
        self.unshuffle = unshuffle
        self.shape = (3, None, None)
        self.alignment = unshuffle * 2 ** (len(widths) - 1)
        folded = 3 * unshuffle**2
        steps = list(itertools.pairwise(widths))
        self.clipped = clipped
        self.head = nn.Conv2d(folded + 3 * clipped, widths[0], 3, padding=1, bias=False)
        self.encoder = nn.ModuleList(Level(*level) for level in zip(widths, blocks, strict=True))
        self.down = nn.ModuleList(nn.Conv2d(fine, coarse, 2, stride=2, bias=False) for fine, coarse in steps)
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(coarse, fine, 2, stride=2, bias=False) for fine, coarse in steps
        )
        self.decoder = nn.ModuleList(Level(*level) for level in zip(widths[:-1], blocks[:-1], strict=True))
        self.gates = nn.ModuleList(Gate(coarse, fine, gray_rank) for fine, coarse in steps if gates)
        self.gray_rank = gray_rank
        self.tail = nn.Conv2d(widths[0], folded, 3, padding=1, bias=False)
        self._start_near_identity()

    def _start_near_identity(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.orthogonal_(module.weight)
        for module in self.modules():
            if isinstance(module, ResidualBlock):
                nn.init.orthogonal_(module.second.weight, gain=0.1)
            elif isinstance(module, Gate):
                nn.init.zeros_(module.conv.weight)
                nn.init.ones_(module.conv.get_parameter("bias"))
                if self.gray_rank:
                    nn.init.zeros_(module.get_parameter("gray.0.bias"))
                    nn.init.zeros_(module.get_parameter("gray.1.weight"))
        nn.init.orthogonal_(self.tail.weight, gain=0.1)

    def folded_noise(self, x: Tensor) -> Tensor:
        """Noise of an image folded by `space_to_depth`: `[N, 3*u*u, h, w]` to the same shape.

        h and w are multiples of `alignment / unshuffle`.
        """
        gray = _gray(x) if self.gray_rank else None
        x = self.head(torch.cat([x, _white(x)], 1) if self.clipped else x)
        skips = []
        for level, down in zip(self.encoder, self.down, strict=False):
            x = level(x)
            skips.append(x)
            x = down(x)
        x = self.encoder[-1](x)
        for number in reversed(range(len(self.decoder))):
            gate = self.gates[number](x, gray) if self.gates else None
            x = self.decoder[number](self.up[number](x) + skips.pop(), gate)
        noise: Tensor = self.tail(x)
        return noise

    def forward(self, image: Tensor) -> Tensor:
        """Denoise float `[N, 3, H, W]` in 0..1; H and W are multiples of `alignment`.

        The result is not clipped, so that a loss sees every error.
        """
        folded = space_to_depth(image, self.unshuffle)
        folded = folded.contiguous(memory_format=torch.channels_last)  # what CPU convolutions like
        return image - depth_to_space(self.folded_noise(folded), self.unshuffle)


def denoise_uint8(network: ResidualUNet, image: Tensor, strength: Tensor) -> Tensor:
    """What model.onnx computes, in torch: the reference of the export's parity check.

    Args:
        image: uint8 `[N, H, W, 3]`, any size.
        strength: float `[N]`, 0..1, the share of the estimated noise that is removed.

    Returns:
        uint8 `[N, H, W, 3]`.
    """
    _, height, width, _ = image.shape
    extra = (0, -width % network.alignment, 0, -height % network.alignment)
    planes = functional.pad(image.permute(0, 3, 1, 2).float() / 255, extra, mode="replicate")
    noise = planes - network(planes)
    clean: Tensor = (planes - strength.view(-1, 1, 1, 1) * noise).clamp(0, 1) * 255
    return clean.round().to(torch.uint8)[:, :, :height, :width].permute(0, 2, 3, 1)
