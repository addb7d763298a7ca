"""The graphs a network is served as: what stands around it, and what torch says each should compute."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from model_store import Task, Tensor
from training import shells
from training.classic import Latent2
from training.network import Network
from training.networks import ResidualUNet, denoise_uint8

Feed = dict[str, npt.NDArray[np.generic]]
_SIZES = ((1, 1, 1), (2, 7, 5), (1, 37, 53), (3, 64, 64), (1, 101, 240))
_POINT = (2, 1, 1)


@dataclass(frozen=True)
class Part:
    """One graph: the whole network, its encoder or its decoder.

    Attributes:
        suffix: what is added to the model's name.
        core: the part that is exported from torch, of one input and one output.
        example: an input of `core`; its first side may vary.
        free: further sides that may, and what they are multiples of.
        pixels: those of one image of `example`; 1 where there is no image.
        edges: the names of input and output of `core` in `shell`.
        shell: ONNX text around `core`; see `shells`.
        reference: what the graph should answer to a feed, by torch.
    """

    suffix: str
    task: Task
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    core: nn.Module
    example: torch.Tensor
    free: dict[int, int]
    pixels: int
    edges: tuple[str, str]
    shell: str
    reference: Callable[[Feed], torch.Tensor]

    @property
    def macs_per_pixel(self) -> float:
        """Multiply-adds of all convolutions and matrix products for each pixel, counted while running."""
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            self.core(self.example)
        return float(counter.get_total_flops() / 2 / (len(self.example) * self.pixels))

    def feeds(self) -> Iterator[Feed]:
        """Seeded inputs of the sizes it takes, odd ones among them; the last of several images is gray."""
        rng = np.random.default_rng(0)
        for n, height, width in _SIZES:
            yield {each.name: _drawn(each, n, height, width, rng) for each in self.inputs}


def parts(network: Network) -> list[Part]:
    """The graphs that are published of a network; the first is the network as a whole."""
    if isinstance(network, ResidualUNet):
        return [_residual(network)]
    if network.shape == _POINT:
        return [_points(network)]
    if isinstance(network, Latent2):
        return [_restoring(network), _encoder(network), _decoder(network)]
    return [_restoring(network)]


def restore_uint8(network: Network, image: torch.Tensor) -> torch.Tensor:
    """What the graph of a network that gives the clean image computes: uint8 `[N, H, W, C]` in and out."""
    _, height, width, _ = image.shape
    clean = network(_planes(image, network.alignment))
    return _bytes(clean[:, :, : height * network.scale, : width * network.scale])


def _residual(network: ResidualUNet) -> Part:
    multiple = network.alignment // network.unshuffle
    dtype = network.head.weight.dtype
    half = dtype == torch.float16
    return Part(
        suffix="",
        task="denoise",
        inputs=(_image("image", network.shape), Tensor(name="strength", dtype="float32", shape=("N",))),
        outputs=(_image("denoised", network.shape),),
        core=_Calling(network.folded_noise, network),
        example=torch.zeros(2, 3 * network.unshuffle**2, 4 * multiple, 6 * multiple, dtype=dtype),
        free={2: multiple, 3: multiple},
        pixels=24 * network.alignment**2,
        edges=("folded_half", "noise_half") if half else ("folded", "noise"),
        shell=shells.residual(network.alignment, network.unshuffle, half=half),
        reference=lambda feed: denoise_uint8(
            network, torch.from_numpy(feed["image"]), torch.from_numpy(feed["strength"])
        ),
    )


def _restoring(network: Network) -> Part:
    channels, height, width = network.shape
    multiple = network.alignment
    free = {2 + axis: multiple for axis, side in enumerate((height, width)) if side is None}
    example = torch.zeros(2, channels, height or 4 * multiple, width or 6 * multiple)
    image = _image("image", network.shape)
    denoised = _image("denoised", network.shape, network.scale)
    return Part(
        suffix="",
        task="denoise" if network.scale == 1 else "super-resolution",
        inputs=(image,),
        outputs=(denoised,),
        core=network,
        example=example,
        free=free,
        pixels=example[0, 0].numel(),
        edges=("scaled", "clean"),
        shell=shells.restoring(image, denoised, multiple, network.scale),
        reference=lambda feed: restore_uint8(network, torch.from_numpy(feed["image"])),
    )


def _encoder(network: Latent2) -> Part:
    image, latent = _image("image", network.shape), _numbers("latent")
    return Part(
        suffix="-encoder",
        task="encode",
        inputs=(image,),
        outputs=(latent,),
        core=_Calling(network.encode, network.encoder),
        example=torch.zeros(2, *network.sides),
        free={},
        pixels=network.sides[1] * network.sides[2],
        edges=("scaled", "latent"),
        shell=shells.encoder(image, latent),
        reference=lambda feed: network.encode(_planes(torch.from_numpy(feed["image"]), 1)),
    )


def _decoder(network: Latent2) -> Part:
    latent, denoised = _numbers("latent"), _image("denoised", network.shape)
    return Part(
        suffix="-decoder",
        task="decode",
        inputs=(latent,),
        outputs=(denoised,),
        core=_Calling(network.decode, network.decoder),
        example=torch.zeros(2, 2),
        free={},
        pixels=network.sides[1] * network.sides[2],
        edges=("latent", "clean"),
        shell=shells.decoder(latent, denoised),
        reference=lambda feed: _bytes(network.decode(torch.from_numpy(feed["latent"]))),
    )


def _points(network: Network) -> Part:
    points, restored = _numbers("points"), _numbers("restored")
    return Part(
        suffix="",
        task="denoise-points",
        inputs=(points,),
        outputs=(restored,),
        core=network,
        example=torch.zeros(2, 2),
        free={},
        pixels=1,
        edges=("points", "restored"),
        shell=shells.bare(points, restored),
        reference=lambda feed: network(torch.from_numpy(feed["points"])),
    )


class _Calling(nn.Module):
    """A method of a network as a module of the weights it needs, which is what torch exports."""

    def __init__(self, method: Callable[[torch.Tensor], torch.Tensor], weights: nn.Module) -> None:
        super().__init__()
        self.weights = weights
        self.method = method

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.method(x)


def _image(name: str, shape: tuple[int, int | None, int | None], scale: int = 1) -> Tensor:
    channels, *sides = shape
    stretched = f"*{scale}" if scale > 1 else ""
    height, width = (
        side * scale if side else name + stretched for name, side in zip("HW", sides, strict=True)
    )
    return Tensor(name=name, dtype="uint8", shape=("N", height, width, channels))


def _numbers(name: str) -> Tensor:
    return Tensor(name=name, dtype="float32", shape=("N", 2))


def _planes(image: torch.Tensor, multiple: int) -> torch.Tensor:
    _, height, width, _ = image.shape
    extra = (0, -width % multiple, 0, -height % multiple)
    return functional.pad(image.permute(0, 3, 1, 2).float() / 255, extra, mode="replicate")


def _bytes(clean: torch.Tensor) -> torch.Tensor:
    return (clean.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)


def _drawn(
    tensor: Tensor, n: int, height: int, width: int, rng: np.random.Generator
) -> npt.NDArray[np.generic]:
    sizes = {"N": n, "H": height, "W": width}
    shape = [sizes[side] if isinstance(side, str) else side for side in tensor.shape]
    if tensor.name == "strength":
        return np.linspace(1, 0, n, dtype=np.float32)
    if tensor.dtype == "uint8":
        images = rng.integers(0, 256, shape, np.uint8)
        if n > 1:
            images[-1] = images[-1, ..., :1]
        return images
    return rng.standard_normal(shape, np.float32)
