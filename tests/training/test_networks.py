import numpy as np
import onnx
import onnx.reference
import pytest
import torch
from torch import nn

from training.fit import build_network
from training.muon import hold_kernels_as_kernels, hold_kernels_as_matrices, muon_and_adamw
from training.networks import (
    ResidualUNet,
    count_parameters,
    denoise_uint8,
    depth_to_space,
    macs_per_pixel,
    space_to_depth,
)
from training.recipe import load_recipe


@pytest.fixture
def network() -> ResidualUNet:
    torch.manual_seed(0)
    return ResidualUNet((8, 12), (1, 1), unshuffle=2).eval()


@pytest.mark.parametrize("block", [1, 2, 4])
def test_folding_is_onnx_space_to_depth_and_back(block: int) -> None:
    image = torch.rand(2, 3, 8, 16)
    folded = space_to_depth(image, block)
    assert torch.equal(depth_to_space(folded, block), image)
    node = onnx.helper.make_node("SpaceToDepth", ["x"], ["y"], blocksize=block)
    (expected,) = onnx.reference.ReferenceEvaluator(node).run(None, {"x": image.numpy()})
    assert np.array_equal(folded.numpy(), expected)


def test_frames_balanced_keeps_its_budget() -> None:
    network = build_network(load_recipe("frames-balanced").network)
    assert 31_000 < macs_per_pixel(network) <= 32_000
    assert count_parameters(network) < 900_000


def test_macs_of_one_convolution_are_counted_by_hand() -> None:
    network = ResidualUNet((8,), (1,), unshuffle=2)
    convolutions = 12 * 8 * 9 + 2 * 8 * 8 * 9 + 8 * 12 * 9
    assert macs_per_pixel(network) == convolutions / 4


def test_any_size_keeps_its_size_and_strength_scales_the_change(network: ResidualUNet) -> None:
    image = torch.randint(0, 256, (2, 13, 7, 3), dtype=torch.uint8)
    with torch.no_grad():
        none = denoise_uint8(network, image, torch.zeros(2))
        full = denoise_uint8(network, image, torch.ones(2))
    assert torch.equal(none, image)
    assert full.shape == image.shape
    assert not torch.equal(full, image)


def test_kernels_as_matrices_compute_the_same_and_come_back(network: ResidualUNet) -> None:
    image = torch.rand(1, 3, 16, 16)
    before, names = network(image), set(network.state_dict())
    hold_kernels_as_matrices(network)
    assert torch.equal(network(image), before)
    (alone,) = muon_and_adamw(network, 1e-3)
    assert len(alone.param_groups[0]["params"]) == len(list(network.parameters()))
    biased = nn.Sequential(network, nn.Linear(3, 3))
    muon, adamw = muon_and_adamw(biased, 1e-3)
    held = [weight for group in muon.param_groups for weight in group["params"]]
    rest = [weight for group in adamw.param_groups for weight in group["params"]]
    assert all(weight.ndim == 2 for weight in held)
    assert [weight.ndim for weight in rest] == [1]
    assert len(held) + len(rest) == len(list(biased.parameters()))
    hold_kernels_as_kernels(network)
    assert torch.equal(network(image), before)
    assert set(network.state_dict()) == names


def test_twice_the_image_gives_twice_the_noise(network: ResidualUNet) -> None:
    image = torch.rand(1, 3, 32, 32)
    assert torch.allclose(network(2 * image), 2 * network(image), rtol=1e-4, atol=1e-5)
