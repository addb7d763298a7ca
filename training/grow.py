"""A larger U-Net that begins as a smaller one, so that no training is lost (Net2Net, Chen et al. 2016).

Where Net2Net copies units to keep the function, new channels and blocks here begin with weights of
their own and with nothing to say: zeros stand between them and the channels there were before.
"""

import torch
from torch import Tensor, nn

from training.errors import RecipeError
from training.networks import ResidualBlock, ResidualUNet


@torch.no_grad()
def grow(small: ResidualUNet, large: ResidualUNet) -> None:
    """Overwrite the weights of `large` so that it computes what `small` does.

    Raises:
        RecipeError: they fold the image differently, have other levels, `large` is narrower or
            shallower somewhere, or `small` has gates and `large` none or other widths.
    """
    _refuse_what_cannot_grow(small, large)
    known = dict(small.named_modules())
    for name, module in large.named_modules():
        if isinstance(module, ResidualBlock) and name not in known:
            module.second.weight[: _width(known[name.rpartition(".")[0]])] = 0
        elif isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and name in known:
            before, after = _outputs_first(known[name]), _outputs_first(module)
            after[: len(before)] = 0
            after[: len(before), : before.shape[1]] = before
            if module.bias is not None:
                module.bias.copy_(known[name].bias)


def _refuse_what_cannot_grow(small: ResidualUNet, large: ResidualUNet) -> None:
    if (small.unshuffle, len(small.encoder)) != (large.unshuffle, len(large.encoder)):
        raise RecipeError("only a network of the same levels and unshuffle can begin as the earlier one")
    for before, after in zip(small.encoder, large.encoder, strict=True):
        if _width(before) > _width(after) or _depth(before) > _depth(after):
            raise RecipeError("a network narrower or shallower than the earlier one cannot begin as it")
        # New channels would change the root mean square that gates are computed from.
        if small.gates and not (large.gates and _width(before) == _width(after)):
            raise RecipeError(
                "only a network with gates and of the same widths can begin as one with gates; "
                "begin a wider one with one that has none"
            )


def _width(level: nn.Module) -> int:
    return next(block.second.out_channels for block in level.modules() if isinstance(block, ResidualBlock))


def _depth(level: nn.Module) -> int:
    return sum(isinstance(block, ResidualBlock) for block in level.modules())


def _outputs_first(module: nn.Module) -> Tensor:
    """The kernel as a view `[out, in, h, w]`."""
    assert isinstance(module, nn.Conv2d | nn.ConvTranspose2d)
    return module.weight.transpose(0, 1) if isinstance(module, nn.ConvTranspose2d) else module.weight
