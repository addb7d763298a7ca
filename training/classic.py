"""The denoising autoencoders of the literature, each as small as its paper makes it.

All take float `[N, C, H, W]` and give the same shape (`Sr2`: twice the sides). Weights begin by
Glorot & Bengio (2010), biases at zero, as in the notebooks these networks are known from.
Convolutions run over channels_last: on a CPU in half the time.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.network import Means, Network

Shape = tuple[int, int, int]


class Linear(Network):
    """x^ = V (W x + b) + c with `code` numbers between; `tied` has V = W^T (Vincent et al. 2008, sec. 2.2).

    Without a non-linearity the best it can learn is a Wiener filter of rank `code` (Baldi & Hornik 1989).
    """

    def __init__(self, shape: Shape, code: int, tied: bool) -> None:
        super().__init__()
        self.shape = shape
        size = shape[0] * shape[1] * shape[2]
        self.encoder = nn.Linear(size, code)
        self.decoder = None if tied else nn.Linear(code, size)
        self.bias = nn.Parameter(torch.zeros(size)) if tied else None
        begin_by_glorot(self)

    def forward(self, image: Tensor) -> Tensor:
        code = self.encoder(image.flatten(1))
        if self.decoder is None:
            return functional.linear(code, self.encoder.weight.T, self.bias).view_as(image)
        restored: Tensor = self.decoder(code).view_as(image)
        return restored


class Dense(Network):
    """Fully connected layers with ReLU between: 784-128-64-32-64-128-784 in the notebooks of Keras.

    Args:
        hidden: units of each layer between input and output.
        output: `sigmoid` gives the means of Bernoulli pixels, `linear` any number.
    """

    def __init__(self, shape: Shape, hidden: Sequence[int], output: str) -> None:
        super().__init__()
        self.shape = shape
        size = shape[0] * shape[1] * shape[2]
        self.layers = _layers([size, *hidden, size])
        self.output: nn.Module = Means() if output == "sigmoid" else nn.Identity()
        begin_by_glorot(self)

    def forward(self, image: Tensor) -> Tensor:
        restored: Tensor = self.output(self.layers(image.flatten(1))).view_as(image)
        return restored


class Conv(Network):
    """Two strided convolutions down, two transposed up, one out (Masci et al. 2011); any size.

    Args:
        widths: channels at half and at a quarter of the sides.
        blocks: residual convolutions at the quarter, x + relu(conv(x)), which let a pixel see further.
    """

    def __init__(self, channels: int, widths: tuple[int, int], blocks: int) -> None:
        super().__init__()
        self.shape = (channels, None, None)
        self.alignment = 4
        half, quarter = widths
        self.down = nn.Sequential(
            nn.Conv2d(channels, half, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.Conv2d(half, quarter, 5, stride=2, padding=2),
            nn.ReLU(),
        )
        self.blocks = nn.ModuleList(nn.Conv2d(quarter, quarter, 3, padding=1) for _ in range(blocks))
        self.up = nn.Sequential(
            nn.ConvTranspose2d(quarter, half, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(half, half // 2, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(half // 2, channels, 3, padding=1),
            Means(),
        )
        begin_by_glorot(self)

    def forward(self, image: Tensor) -> Tensor:
        code = self.down(image.contiguous(memory_format=torch.channels_last))
        for block in self.blocks:
            code = code + block(code).relu()
        restored: Tensor = self.up(code)
        return restored


class Latent2(Network):
    """An image through two numbers: 32x32 becomes 512 times smaller (after Hinton & Salakhutdinov 2006).

    Args:
        hidden: units of the encoder's layers; the decoder has them the other way round.
    """

    def __init__(self, shape: Shape, hidden: Sequence[int]) -> None:
        super().__init__()
        self.shape = shape
        self.sides = shape
        size = shape[0] * shape[1] * shape[2]
        self.encoder = _layers([size, *hidden, 2])
        self.decoder = _layers([2, *reversed(hidden), size])
        self.means = Means()
        begin_by_glorot(self)

    def encode(self, image: Tensor) -> Tensor:
        """Float `[N, C, H, W]` to the code, float `[N, 2]`."""
        code: Tensor = self.encoder(image.flatten(1))
        return code

    def decode(self, code: Tensor) -> Tensor:
        """Float `[N, 2]` to the image, float `[N, C, H, W]` of 0..1."""
        image: Tensor = self.means(self.decoder(code)).view(-1, *self.sides)
        return image

    def forward(self, image: Tensor) -> Tensor:
        return self.decode(self.encode(image))


class Stochastic(Network):
    """Noise in the code as well: sigmoid(V (tanh(W x) + noise)), as in a GSN (Bengio et al. 2014).

    Args:
        code: units of the code.
        noise: deviation of the Gaussian noise that is added to the code while training; none after.
    """

    def __init__(self, shape: Shape, code: int, noise: float) -> None:
        super().__init__()
        self.shape = shape
        self.noise = noise
        size = shape[0] * shape[1] * shape[2]
        self.encoder = nn.Linear(size, code)
        self.decoder = nn.Linear(code, size)
        self.means = Means()
        begin_by_glorot(self)

    def forward(self, image: Tensor) -> Tensor:
        code = self.encoder(image.flatten(1)).tanh()
        if self.training:
            code = code + self.noise * torch.randn_like(code)
        restored: Tensor = self.means(self.decoder(code)).view_as(image)
        return restored


class Sr2(Network):
    """Twice the sides by `stages` stacked denoisers: what bilinear enlarging lacks is their noise; any size.

    Each stage estimates what is still wrong with the image of the one before it, as the cascades
    of SRCNN and its followers do (Dong et al. 2016; Wang et al. 2015, "Deep networks for image
    super-resolution with sparse prior", section 3.3).
    """

    scale = 2

    def __init__(self, channels: int, width: int, stages: int) -> None:
        super().__init__()
        self.shape = (channels, None, None)
        self.stages = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(channels, width, 5, padding=2),
                nn.ReLU(),
                nn.Conv2d(width, width, 3, padding=1),
                nn.ReLU(),
                nn.Conv2d(width, channels, 3, padding=1),
            )
            for _ in range(stages)
        )
        begin_by_glorot(self)

    def forward(self, image: Tensor) -> Tensor:
        large = functional.interpolate(image, scale_factor=2.0, mode="bilinear", align_corners=False)
        large = large.contiguous(memory_format=torch.channels_last)
        for stage in self.stages:
            large = large + stage(large)
        return large


def _layers(sizes: Sequence[int]) -> nn.Sequential:
    """Fully connected layers with ReLU between them."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.ReLU(), nn.Linear(inputs, outputs)]
    return nn.Sequential(*layers[1:])


def begin_by_glorot(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            nn.init.xavier_uniform_(module.weight)
            assert module.bias is not None
            nn.init.zeros_(module.bias)
