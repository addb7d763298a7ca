"""A larger U-Net that begins as a smaller one, so that no training is lost (Net2Net, Chen et al. 2016).

Where Net2Net copies units to keep the function, new channels here begin silent: the weights that make
them are zero, those that read them are not, so that all of them learn, each something else. New blocks
begin with nothing to add.
"""

import torch
from torch import Tensor, nn

from training.errors import RecipeError
from training.networks import Gate, ResidualBlock, ResidualUNet


@torch.no_grad()
def grow(small: ResidualUNet, large: ResidualUNet) -> None:
    """Overwrite the weights of `large` so that it computes what `small` does.

    Raises:
        RecipeError: they fold the image differently, have other levels, `large` is narrower or
            shallower somewhere, or `small` has gates, is told of white or knows gray and `large` does not.
    """
    _refuse_what_cannot_grow(small, large)
    known = dict(small.named_modules())
    for name, module in large.named_modules():
        if isinstance(module, ResidualBlock) and name not in known:
            module.second.weight.zero_()
        elif isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and name in known:
            before, after = _outputs_first(known[name]), _outputs_first(module)
            after[len(before) :] = 0
            after[: len(before), : before.shape[1]] = before
            if module is large.head:
                after[:, before.shape[1] :] = 0  # white is no silent channel
            if module.bias is not None:
                module.bias[: len(before)] = known[name].get_parameter("bias")
    for gate, wider in zip(_gates(small), _gates(large), strict=False):
        # It sees features by their root mean square, which silent channels lower.
        wider.conv.weight *= gate.length / wider.length
        if gate.gray:
            wider.get_parameter("gray.0.weight").mul_(gate.length / wider.length)


def _refuse_what_cannot_grow(small: ResidualUNet, large: ResidualUNet) -> None:
    if (small.unshuffle, len(small.encoder)) != (large.unshuffle, len(large.encoder)):
        raise RecipeError("only a network of the same levels and unshuffle can begin as the earlier one")
    if small.clipped and not large.clipped:
        raise RecipeError("only a network that is told of white can begin as one; set network.clipped = true")
    if small.gates and not large.gates:
        raise RecipeError("only a network with gates can begin as one with gates; set network.gates = true")
    if small.gray_rank > large.gray_rank:
        raise RecipeError(f"only a network of gray_rank {small.gray_rank} or more can begin as this one")
    for before, after in zip(small.encoder, large.encoder, strict=True):
        if _width(before) > _width(after) or _depth(before) > _depth(after):
            raise RecipeError("a network narrower or shallower than the earlier one cannot begin as it")


def _gates(network: nn.Module) -> list[Gate]:
    return [module for module in network.modules() if isinstance(module, Gate)]


def _width(level: nn.Module) -> int:
    return next(block.second.out_channels for block in level.modules() if isinstance(block, ResidualBlock))


def _depth(level: nn.Module) -> int:
    return sum(isinstance(block, ResidualBlock) for block in level.modules())


def _outputs_first(module: nn.Module) -> Tensor:
    """The kernel as a view `[out, in, h, w]`."""
    assert isinstance(module, nn.Conv2d | nn.ConvTranspose2d)
    return module.weight.transpose(0, 1) if isinstance(module, nn.ConvTranspose2d) else module.weight
