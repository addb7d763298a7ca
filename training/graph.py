"""A trained network as model.onnx by the graph contract, proved equal to torch."""

import copy
import logging
import warnings

import numpy as np
import onnx
import onnx.compose
import onnx.parser
import onnxruntime as ort
import torch
from torch import nn

from training.errors import ParityError
from training.networks import ResidualUNet, denoise_uint8

OPSET = 18
# It warns that torchvision, which we do not use, is not installed.
logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)

# Everything around the network, so that every runtime gets the same pixels: bytes to 0..1, padding
# to the network's multiple, folding, and back. Layout changes run on bytes where they can.
SHELL = """
<ir_version: 10, opset_import: ["" : {opset}, "quietframe" : 1]>
denoiser (uint8[N, H, W, 3] image, float[N] strength) => (uint8[N, H, W, 3] denoised) {{
  sides = Shape <start = 1, end = 3> (image)
  alignment = Constant <value_ints = [{alignment}]> ()
  minus_sides = Neg (sides)
  extra = Mod (minus_sides, alignment)
  before = Constant <value_ints = [0, 0, 0, 0, 0]> ()
  zero = Constant <value_ints = [0]> ()
  pads = Concat <axis = 0> (before, extra, zero)
  padded = Pad <mode = "edge"> (image, pads)
  planes = Transpose <perm = [0, 3, 1, 2]> (padded)
  levels = Cast <to = 1> (planes)
  white = Constant <value_float = 255.0> ()
  scaled = Div (levels, white)
  folded = SpaceToDepth <blocksize = {unshuffle}> (scaled)
  noise = quietframe.Network (folded)
  axes = Constant <value_ints = [1, 2, 3]> ()
  share = Unsqueeze (strength, axes)
  removed = Mul (noise, share)
  clean = Sub (folded, removed)
  black = Constant <value_float = 0.0> ()
  one = Constant <value_float = 1.0> ()
  clipped = Clip (clean, black, one)
  clean_levels = Mul (clipped, white)
  rounded = Round (clean_levels)
  clean_planes = DepthToSpace <blocksize = {unshuffle}> (rounded)
  bytes = Cast <to = 2> (clean_planes)
  whole = Transpose <perm = [0, 2, 3, 1]> (bytes)
  corner = Constant <value_ints = [0, 0]> ()
  height_width = Constant <value_ints = [1, 2]> ()
  denoised = Slice (whole, corner, sides, height_width)
}}
"""

PARITY_SHAPES = ((1, 1, 1), (2, 7, 5), (1, 37, 53), (3, 64, 64), (1, 101, 240))


def to_onnx(network: ResidualUNet) -> bytes:
    """The network inside its shell as an ONNX file, checked against torch.

    Raises:
        ParityError: some pixel differs by more than one level of 255.
    """
    core = _export_core(network)
    text = SHELL.format(opset=OPSET, alignment=network.alignment, unshuffle=network.unshuffle)
    model = _splice(onnx.parser.parse_model(text), core)
    onnx.checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString()
    check_parity(network, content)
    return content


class _FoldedNoise(nn.Module):
    def __init__(self, network: ResidualUNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, folded: torch.Tensor) -> torch.Tensor:
        return self.network.folded_noise(folded)


def _export_core(network: ResidualUNet) -> onnx.ModelProto:
    multiple = network.alignment // network.unshuffle
    n, h, w = (torch.export.Dim(name) for name in "nhw")
    example = torch.zeros(2, 3 * network.unshuffle**2, 4 * multiple, 6 * multiple)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch's own use of a class it deprecates
        program = torch.onnx.export(
            _FoldedNoise(network).eval(),
            (example,),
            input_names=["folded"],
            output_names=["noise"],
            opset_version=OPSET,
            dynamic_shapes=({0: n, 2: multiple * h, 3: multiple * w},),
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    return program.model_proto


def _splice(shell: onnx.ModelProto, core: onnx.ModelProto) -> onnx.ModelProto:
    """Put the nodes and weights of `core` where the shell says quietframe.Network."""
    inside = onnx.compose.add_prefix_graph(
        core.graph, "network/", rename_inputs=False, rename_outputs=False, rename_edges=True
    )
    nodes: list[onnx.NodeProto] = []
    for node in shell.graph.node:
        nodes.extend(inside.node if node.op_type == "Network" else [node])
    for node in nodes:
        del node.metadata_props[:]  # the exporter's stack traces, with the paths of this machine
    del shell.graph.node[:]
    shell.graph.node.extend(nodes)
    shell.graph.initializer.extend(inside.initializer)
    del shell.opset_import[:]
    shell.opset_import.extend([onnx.helper.make_opsetid("", OPSET)])
    return shell


def check_parity(network: ResidualUNet, model: bytes) -> None:
    """Compare ONNX Runtime with torch on seeded noise of odd sizes.

    Raises:
        ParityError: naming the shape and the largest difference.
    """
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    for n, height, width in PARITY_SHAPES:
        image = rng.integers(0, 256, (n, height, width, 3), np.uint8)
        strength = np.linspace(1, 0, n, dtype=np.float32)
        (graph,) = session.run(None, {"image": image, "strength": strength})
        with torch.no_grad():
            eager = denoise_uint8(network, torch.from_numpy(image), torch.from_numpy(strength)).numpy()
        if graph.shape != eager.shape or np.abs(graph.astype(int) - eager).max() > 1:
            raise ParityError(f"the graph differs from torch by more than 1 level at {image.shape}")


def receptive_radius(network: ResidualUNet) -> int:
    """How far away, in pixels, an input can change an output: the overlap tiles need.

    Found by pushing a gradient from the middle of the image through a copy of the network whose
    weights are all positive, so that nothing cancels.
    """
    positive = copy.deepcopy(network).double()  # in float32 the outermost gradients underflow
    for parameter in positive.parameters():
        nn.init.constant_(parameter, 1e-3)
    side = 64 * network.alignment
    image = torch.ones(1, 3, side, side, dtype=torch.float64, requires_grad=True)
    middle = range(side // 2, side // 2 + network.alignment)
    noise = image - positive(image)
    noise[:, :, middle.start : middle.stop, middle.start : middle.stop].sum().backward()
    assert image.grad is not None
    touched = torch.nonzero(image.grad[0].abs().amax(dim=(0, 1)))
    radius = int(max(middle.start - touched.min(), touched.max() - middle.stop + 1))
    if radius >= middle.start:
        raise ParityError(f"the network sees over {middle.start} pixels far; tiles would be all overlap")
    return radius
