"""Muon for convolutions: it takes matrices, so each kernel is held as one.

Muon (Jordan et al. 2024) orthogonalises the momentum of a weight matrix. A convolution's natural
matrix is `[out, in * k * k]` (for a transposed one `[in, out * k * k]`): what it multiplies a patch by.
"""

from collections.abc import Iterable
from typing import cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.optim import AdamW, Optimizer


class Muon(Optimizer):
    """torch.optim.Muon (Nesterov momentum of 0.95, steps scaled to AdamW's size) in float32.

    That one orthogonalises in bfloat16, which CPUs without instructions for it emulate: there its
    step takes over twice as long as the forward and backward pass of `frames-balanced` in float32.

    It does so inside of autocast, too, where Lightning steps: powers of the Gram matrix, rounded to
    bfloat16, grow until the weights are no numbers.

    Its weights decay: without that they grow until units saturate (Liu et al. 2025, section 2.2).
    """

    def __init__(self, matrices: Iterable[Tensor], lr: float) -> None:
        super().__init__(matrices, {"lr": lr, "momentum": 0.95, "weight_decay": 0.1})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            # Others have no gradient: of layers whose turn has not come.
            matrices = [matrix for matrix in group["params"] if matrix.grad is not None]
            averages = [self._averaged_gradient(matrix, group["momentum"]) for matrix in matrices]
            for matrix, update in zip(matrices, _all_orthogonalised(averages), strict=True):
                matrix.mul_(1 - group["lr"] * group["weight_decay"])
                matrix.sub_(update, alpha=group["lr"] * 0.2 * max(matrix.shape) ** 0.5)

    def _averaged_gradient(self, matrix: Tensor, share: float) -> Tensor:
        if matrix not in self.state:
            self.state[matrix]["momentum"] = torch.zeros_like(matrix)
        momentum: Tensor = self.state[matrix]["momentum"]
        gradient = cast(Tensor, matrix.grad)
        momentum.lerp_(gradient, 1 - share)
        return gradient.lerp(momentum, share)


def _all_orthogonalised(matrices: list[Tensor]) -> list[Tensor]:
    """Each one `orthogonalised`; processes that train together do a part each and exchange them.

    On two cores with two processes it took a fifth of a step of `frames-balanced` when each did all.
    """
    world, rank = (dist.get_world_size(), dist.get_rank()) if dist.is_initialized() else (1, 0)
    mine = [orthogonalised(matrix) for matrix in matrices[rank::world]]
    if world == 1:
        return mine
    done = list(matrices)
    for source in range(min(world, len(matrices))):
        theirs = matrices[source::world]
        flat = torch.cat([matrix.flatten() for matrix in (mine if source == rank else theirs)])
        dist.broadcast(flat, source)
        parts = torch.split(flat, [matrix.numel() for matrix in theirs])
        done[source::world] = [part.view_as(matrix) for part, matrix in zip(parts, theirs, strict=True)]
    return done


def orthogonalised(matrix: Tensor) -> Tensor:
    """About U V^T of the matrix U S V^T: five Newton-Schulz steps give lengths of 0.7 to 1.2, tiny ones less.

    The quintic and its coefficients are Jordan et al.'s. Its steps are polynomials in the Gram
    matrix, which are multiplied with one another before the (longer) matrix is.
    """
    with torch.autocast(matrix.device.type, enabled=False):
        wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
        wide = wide / wide.norm().clamp_min(1e-7)
        gram = wide @ wide.T
        product = None
        for _ in range(5):
            factor = torch.addmm(gram, gram, gram, beta=-4.7750, alpha=2.0315)
            factor.diagonal().add_(3.4445)
            product = factor if product is None else factor @ product
            gram = factor @ gram @ factor
        long: Tensor = product @ wide
        return long if matrix.shape[0] <= matrix.shape[1] else long.T


class _Kernel(nn.Module):
    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, matrix: Tensor) -> Tensor:
        return matrix.view(self.shape)

    def right_inverse(self, kernel: Tensor) -> Tensor:
        return kernel.flatten(1)


def hold_kernels_as_matrices(network: nn.Module) -> None:
    """Parametrise every convolution weight by its matrix, in place."""
    for module in list(network.modules()):
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            parametrize.register_parametrization(module, "weight", _Kernel(tuple(module.weight.shape)))


def hold_kernels_as_kernels(network: nn.Module) -> None:
    """Undo `hold_kernels_as_matrices`, in place, keeping the values."""
    for module in list(network.modules()):
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and parametrize.is_parametrized(module):
            parametrize.remove_parametrizations(module, "weight")


def muon_and_adamw(network: nn.Module, rate: float) -> list[Muon | AdamW]:
    """Muon on the matrices, AdamW on everything else if there is any, one learning rate for both."""
    trained = [weight for weight in network.parameters() if weight.requires_grad]
    matrices = [weight for weight in trained if weight.ndim == 2]
    others = [weight for weight in trained if weight.ndim != 2]
    muon = Muon(matrices, rate)
    return [muon, AdamW(others, lr=rate, weight_decay=0.0)] if others else [muon]
