"""From the network table of a recipe to the network."""

from training import recipe_parts as parts
from training.classic import Conv, Dense, Latent2, Linear, Sr2, Stochastic
from training.network import Network
from training.networks import ResidualUNet
from training.recipe import Recipe
from training.stacked import Stacked


def build_network(recipe: Recipe) -> Network:
    """The network of a recipe, for samples of its data, with fresh weights."""
    shape = recipe.data.shape
    match recipe.network:
        case parts.UNetRecipe() as unet:
            return ResidualUNet(
                unet.widths,
                unet.blocks,
                unet.unshuffle,
                gates=unet.gates,
                clipped=unet.clipped,
                gray_rank=unet.gray_rank,
            )
        case parts.LinearRecipe(code=code, tied=tied):
            return Linear(shape, code, tied)
        case parts.DenseRecipe(hidden=hidden, output=output):
            return Dense(shape, hidden, output)
        case parts.ConvRecipe(widths=widths, blocks=blocks):
            return Conv(shape[0], widths, blocks)
        case parts.Latent2Recipe(hidden=hidden):
            return Latent2(shape, hidden)
        case parts.StochasticRecipe(code=code, noise=noise):
            return Stochastic(shape, code, noise)
        case parts.Sr2Recipe(width=width, stages=stages):
            return Sr2(shape[0], width, stages)
        case parts.StackedRecipe(hidden=hidden, masked=masked):
            return Stacked(shape, hidden, masked)
