import itertools

import numpy as np
import onnx
import onnx.reference
import pytest
import torch
from torch import nn

from training.build import build_network
from training.classic import Conv, Latent2, Linear, Sr2, Stochastic
from training.errors import RecipeError
from training.grow import grow
from training.losses import bce
from training.muon import (
    Muon,
    hold_kernels_as_kernels,
    hold_kernels_as_matrices,
    muon_and_adamw,
    orthogonalised,
)
from training.network import Network, count_parameters
from training.networks import ResidualUNet, denoise_uint8, depth_to_space, space_to_depth
from training.recipe import RECIPES, load_recipe
from training.served import parts
from training.stacked import Stacked


@pytest.fixture
def network() -> ResidualUNet:
    torch.manual_seed(0)
    return ResidualUNet((8, 12), (1, 1), unshuffle=2).eval()


@pytest.mark.parametrize(
    ("gates", "gated"), [(False, False), (False, True), (True, True)], ids=["plain", "gated anew", "gated"]
)
def test_a_grown_network_begins_as_the_smaller_one_and_all_of_it_can_learn(gates: bool, gated: bool) -> None:
    torch.manual_seed(0)
    small = ResidualUNet((8, 12), (1, 1), unshuffle=2, gates=gates)
    large = ResidualUNet((12, 20), (2, 3), unshuffle=2, gates=gated)
    for gate in small.gates:
        nn.init.normal_(gate.get_parameter("conv.weight"), std=0.3)
    grow(small, large)
    image = torch.rand(1, 3, 32, 32)
    assert torch.allclose(large(image), small(image), atol=1e-5)
    optimiser = torch.optim.SGD(large.parameters(), lr=1e-2)
    for _ in range(2):  # the first opens the ways that were zero
        optimiser.zero_grad()
        large(image).square().sum().backward()
        optimiser.step()
    for name, weight in large.named_parameters():
        assert weight.grad is not None
        # Of every output, or new channels would stay silent for ever.
        outputs = weight.grad.transpose(0, 1) if name.startswith("up.") else weight.grad
        assert outputs.flatten(1).any(1).all() if weight.ndim > 1 else outputs.all(), name


@pytest.mark.parametrize("small", [((16, 12), (1, 1)), ((8, 12), (2, 1)), ((8,), (1,))])
def test_a_network_grows_only_larger(
    network: ResidualUNet, small: tuple[tuple[int, ...], tuple[int, ...]]
) -> None:
    with pytest.raises(RecipeError, match="begin as"):
        grow(ResidualUNet(*small, unshuffle=2), network)


def test_gates_begin_as_none_and_are_the_same_for_twice_the_image(network: ResidualUNet) -> None:
    gated = ResidualUNet((8, 12), (2, 1), unshuffle=2, gates=True)
    grow(network, gated)
    image = torch.rand(1, 3, 32, 32)
    assert torch.allclose(gated(image), network(image), atol=1e-6)
    nn.init.normal_(gated.get_parameter("gates.0.conv.weight"), std=0.3)
    assert not torch.allclose(gated(image), network(image), atol=1e-3)
    assert torch.allclose(gated(2 * image), 2 * gated(image), atol=1e-4)
    with pytest.raises(RecipeError, match=r"set network\.gates = true"):
        grow(gated, ResidualUNet((8, 12), (2, 1), unshuffle=2))


def test_white_begins_as_nothing_and_can_be_learned(network: ResidualUNet) -> None:
    told = ResidualUNet((8, 12), (1, 1), unshuffle=2, clipped=True).eval()
    grow(network, told)
    dark = 0.9 * torch.rand(1, 3, 32, 32)
    bright = dark.clone()
    bright[:, 1, 8:10, 8:12] = 1  # green, two blocks
    assert torch.allclose(told(bright), network(bright), atol=1e-6)
    head = told.get_parameter("head.weight")
    told(bright).square().sum().backward()
    assert head.grad is not None
    assert head.grad[:, 13].any(), "green white is learned from"
    assert not head.grad[:, (12, 14)].any(), "there is no red or blue"
    with torch.no_grad():
        head[:, 12:] = 0.1
    assert torch.allclose(told(dark), network(dark), atol=1e-6)
    changed = (told(bright) - network(bright)).abs().amax((0, 1)) > 1e-4
    assert changed[8:10, 8:12].all()
    with pytest.raises(RecipeError, match=r"set network\.clipped = true"):
        grow(told, network)


def test_only_gray_images_see_what_is_learned_for_them(network: ResidualUNet) -> None:
    told = ResidualUNet((8, 12), (1, 1), unshuffle=2, gates=True, gray_rank=2).eval()
    grow(network, told)
    images = torch.rand(3, 3, 32, 32)
    images[1] = images[1, :1]
    images[2] = images[1]
    images[2, 0, 5, 5] += 1 / 255  # one level in one pixel
    before = told(images)
    assert torch.allclose(before, network(images), atol=1e-6)
    before.square().sum().backward()
    added = told.get_parameter("gates.0.gray.1.weight")
    assert added.grad is not None
    assert added.grad.all()
    nn.init.normal_(added, std=0.3)
    assert torch.equal(told(images)[::2], before[::2])
    assert not torch.allclose(told(images)[1], before[1], atol=1e-3)
    assert torch.allclose(told(2 * images), 2 * told(images), atol=1e-4)
    more = ResidualUNet((12, 16), (1, 1), unshuffle=2, gates=True, gray_rank=3).eval()
    grow(told, more)
    assert torch.allclose(more(images), told(images), atol=1e-5)
    with pytest.raises(RecipeError, match="only a network of gray_rank 2 or more"):
        grow(told, ResidualUNet((8, 12), (1, 1), unshuffle=2, gates=True, gray_rank=1))


@pytest.mark.parametrize("block", [1, 2, 4])
def test_folding_is_onnx_space_to_depth_and_back(block: int) -> None:
    image = torch.rand(2, 3, 8, 16)
    folded = space_to_depth(image, block)
    assert torch.equal(depth_to_space(folded, block), image)
    node = onnx.helper.make_node("SpaceToDepth", ["x"], ["y"], blocksize=block)
    (expected,) = onnx.reference.ReferenceEvaluator(node).run(None, {"x": image.numpy()})
    assert np.array_equal(folded.numpy(), expected)


@pytest.mark.parametrize(
    ("tier", "kmacs", "parameters"),
    [("fast", 10, 250_000), ("balanced", 32, 900_000), ("camera", 32, 900_000), ("high", 125, 2_800_000)],
)
def test_a_tier_keeps_its_budget(tier: str, kmacs: float, parameters: int) -> None:
    network = build_network(load_recipe(f"frames-{tier}"))
    assert 0.9 * kmacs < parts(network)[0].macs_per_pixel / 1000 <= kmacs
    assert count_parameters(network) < parameters


def test_macs_of_one_convolution_are_counted_by_hand() -> None:
    network = ResidualUNet((8,), (1,), unshuffle=2)
    convolutions = 12 * 8 * 9 + 2 * 8 * 8 * 9 + 8 * 12 * 9
    assert parts(network)[0].macs_per_pixel == convolutions / 4


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


@pytest.mark.parametrize("shape", [(24, 200), (200, 24), (31, 31)])
def test_muon_steps_as_the_one_of_torch_does_in_bfloat16(shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    begun = torch.randn(shape, generator=generator)
    ours, theirs = nn.Parameter(begun.clone()), nn.Parameter(begun.clone())
    idle = nn.Parameter(begun.clone())
    optimisers = (
        Muon([ours, idle], 0.02),
        torch.optim.Muon([theirs], lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
    )
    for _ in range(5):
        gradient = torch.randn(shape, generator=generator)
        for weight, optimiser in zip((ours, theirs), optimisers, strict=True):
            weight.grad = gradient.clone()
            optimiser.step()
    moved = (theirs - begun).norm()
    assert (ours - theirs).norm() < 0.03 * moved
    assert torch.equal(idle, begun)


def test_more_processes_than_matrices_have_nothing_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    gradient = torch.randn(24, 200, generator=torch.Generator().manual_seed(0))
    alone, together = (nn.Parameter(torch.zeros(24, 200)) for _ in range(2))
    alone.grad, together.grad = gradient.clone(), gradient.clone()
    Muon([alone], 0.02).step()
    for name, answer in (
        ("is_initialized", True),
        ("get_world_size", 3),
        ("get_rank", 0),
        ("broadcast", None),
    ):
        monkeypatch.setattr(f"torch.distributed.{name}", lambda *_, answer=answer: answer)
    Muon([together], 0.02).step()
    assert torch.equal(alone, together)


def test_muon_steps_in_float32_inside_of_autocast_too() -> None:
    generator = torch.Generator().manual_seed(0)
    gradient = torch.randn((24, 200), generator=generator) * torch.logspace(0, -4, 24)[:, None]
    inside, outside = (nn.Parameter(torch.zeros(24, 200)) for _ in range(2))
    inside.grad, outside.grad = gradient.clone(), gradient.clone()
    with torch.autocast("cpu", torch.bfloat16):
        Muon([inside], 0.02).step()
    Muon([outside], 0.02).step()
    assert torch.equal(inside, outside)


def test_a_sure_error_is_still_learnt_from_inside_of_autocast() -> None:
    network = Latent2((1, 8, 8), (16,))
    last = list(network.decoder.parameters())[-1]
    with torch.no_grad():
        last.add_(7)
    with torch.autocast("cpu", torch.bfloat16):
        restored, target = network.training_pass(torch.rand(2, 1, 8, 8), torch.zeros(2, 1, 8, 8), 0.0)
    (gradient,) = torch.autograd.grad(bce(restored, target, target), last)
    assert (gradient > 0.9 / 64).all()


@pytest.mark.parametrize("shape", [(24, 200), (200, 24)])
@pytest.mark.parametrize("size", [1e-4, 1.0, 1e4])
def test_an_orthogonalised_matrix_keeps_its_directions_and_has_lengths_of_about_one(
    shape: tuple[int, int], size: float
) -> None:
    matrix = size * torch.randn(shape, generator=torch.Generator().manual_seed(0))
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    along = left.T @ orthogonalised(matrix) @ right.T
    assert (along - along.diag().diag()).abs().max() < 1e-3
    assert 0.65 < along.diag().min() <= along.diag().max() < 1.25


def test_twice_the_image_gives_twice_the_noise(network: ResidualUNet) -> None:
    image = torch.rand(1, 3, 32, 32)
    assert torch.allclose(network(2 * image), 2 * network(image), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [file.stem for file in RECIPES.glob("*.toml")])
def test_every_recipe_has_a_network_that_keeps_its_shape_and_learns(name: str) -> None:
    recipe = load_recipe(name)
    network = build_network(recipe)
    channels, height, width = recipe.data.shape
    image = torch.rand(3, channels, height, width)
    small = image[..., :: network.scale, :: network.scale]
    assert network(small).shape == image.shape
    if recipe.fit.loss == "bce":
        assert 0 <= network(5 * small).min() <= network(5 * small).max() <= 1
    for progress in (0.0, 0.99):
        restored, target = network.training_pass(small, image, progress)
        assert restored.shape == target.shape
        torch.autograd.backward((restored - target).square().mean())
    assert all(weight.grad is not None for weight in network.parameters())


def test_mnist_dense_is_the_network_of_the_notebooks() -> None:
    sizes = [784, 128, 64, 32, 64, 128, 784]
    expected = sum(a * b + b for a, b in itertools.pairwise(sizes))
    assert count_parameters(build_network(load_recipe("mnist-dense"))) == expected


def test_tied_weights_are_one_matrix() -> None:
    tied, untied = Linear((1, 4, 4), 3, tied=True), Linear((1, 4, 4), 3, tied=False)
    assert count_parameters(tied) == 16 * 3 + 3 + 16
    assert count_parameters(untied) == 2 * 16 * 3 + 3 + 16
    image = torch.rand(2, 1, 4, 4)
    code = image.flatten(1) @ tied.encoder.weight.T
    assert torch.allclose(tied(image).flatten(1), code @ tied.encoder.weight, atol=1e-6)


def test_only_training_draws_noise_in_the_code() -> None:
    network, image = Stochastic((1, 4, 4), 8, noise=0.5), torch.rand(2, 1, 4, 4)
    assert not torch.equal(network(image), network(image))
    network.eval()
    assert torch.equal(network(image), network(image))


def test_latent2_is_its_encoder_and_its_decoder() -> None:
    network, image = Latent2((1, 8, 8), (16,)), torch.rand(3, 1, 8, 8)
    assert network.encode(image).shape == (3, 2)
    assert torch.equal(network.decode(network.encode(image)), network(image))


@pytest.mark.parametrize("network", [Conv(1, (4, 6), 1), Sr2(1, 4, 2)], ids=["conv", "sr2"])
def test_convolutions_see_an_image_the_same_wherever_it_stands(network: Network) -> None:
    image = torch.rand(1, 1, 64, 64)
    shifted = image.roll(network.alignment, 3)
    inside = slice(24 * network.scale, 40 * network.scale)
    here = network(image)[..., inside, inside]
    there = network(shifted).roll(-network.alignment * network.scale, 3)[..., inside, inside]
    assert torch.allclose(here, there, atol=1e-5)


def test_stacked_layers_are_trained_one_after_the_other() -> None:
    network, image = Stacked((1, 4, 4), (8, 6), masked=0.25), torch.rand(5, 1, 4, 4)
    trained = []
    for progress in (0.1, 0.4, 0.9):
        network.zero_grad()
        restored, target = network.training_pass(image, image, progress)
        torch.autograd.backward((restored - target).square().mean())
        trained.append([each.weight.grad is not None for each in (*network.encoders, *network.decoders)])
    assert trained == [[True, False, True, False], [False, True, False, True], [True] * 4]
