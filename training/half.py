"""A U-Net in float16, for GPUs: half the bytes to move, and tensor cores (Micikevicius et al. 2018)."""

import copy
from dataclasses import replace

from training.graph import export_part
from training.networks import ResidualUNet
from training.served import parts


def to_half(network: ResidualUNet) -> bytes:
    """The network in float16 inside its shell as an ONNX file, checked against torch in float32.

    Only the estimated noise is computed in float16: the image itself, from which it is taken, keeps
    its precision.

    Raises:
        ParityError: some pixel differs by more than one level of 255.
    """
    (whole,) = parts(network)
    (half,) = parts(copy.deepcopy(network).half())
    return export_part(replace(half, reference=whole.reference))
