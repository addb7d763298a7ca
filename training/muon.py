"""Muon for convolutions: torch.optim.Muon takes matrices, so each kernel is held as one.

Muon (Jordan et al. 2024) orthogonalises the momentum of a weight matrix. A convolution's natural
matrix is `[out, in * k * k]` (for a transposed one `[in, out * k * k]`): what it multiplies a patch by.
"""

from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.optim import AdamW, Muon


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
    """Muon on the matrices, AdamW on everything else if there is any, one learning rate for both.

    Muon's updates are scaled to the size of AdamW's, and its weights decay: without that they grow
    until units saturate (Liu et al. 2025, section 2.2).
    """
    matrices = [weight for weight in network.parameters() if weight.ndim == 2]
    others = [weight for weight in network.parameters() if weight.ndim != 2]
    muon = Muon(matrices, lr=rate, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    return [muon, AdamW(others, lr=rate, weight_decay=0.0)] if others else [muon]
