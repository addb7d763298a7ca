"""A trained network as model.onnx by the graph contract, proved equal to torch."""

import copy
import logging
import re
import warnings

import numpy as np
import onnx
import onnx.compose
import onnx.parser
import onnxruntime as ort
import torch
from torch import nn

from training.blocked import keep_blocked
from training.errors import ParityError
from training.network import Network
from training.served import Part, parts
from training.shells import OPSET

# It warns that torchvision, which we do not use, is not installed.
logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)
_CLOSE = 1e-4  # of what is not bytes but numbers


def to_onnx(network: Network) -> bytes:
    """The network as a whole inside its shell as an ONNX file, checked against torch.

    Raises:
        ParityError: some pixel differs by more than one level of 255.
    """
    return export_part(parts(network)[0])


def export_part(part: Part) -> bytes:
    """One graph of a network as an ONNX file, checked against torch.

    Raises:
        ParityError: some pixel differs by more than one level of 255.
    """
    core = _export_core(part)
    if part.example.dtype != torch.float16:  # which is for GPUs, that have no such blocks
        keep_blocked(core.graph)
    model = _splice(onnx.parser.parse_model(part.shell), core)
    onnx.checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString()
    check_parity(part, content)
    return content


def _export_core(part: Part) -> onnx.ModelProto:
    sides = {axis: multiple * torch.export.Dim(f"side{axis}") for axis, multiple in part.free.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch's own use of a class it deprecates
        program = torch.onnx.export(
            part.core.eval(),
            (part.example,),
            input_names=[part.edges[0]],
            output_names=[part.edges[1]],
            opset_version=OPSET,
            dynamic_shapes=({0: torch.export.Dim("n"), **sides},),
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
    shell.graph.value_info.extend(inside.value_info)  # which sides are the same, for `blocked`
    del shell.opset_import[:]
    shell.opset_import.extend([onnx.helper.make_opsetid("", OPSET)])
    return shell


def weight_name(initializer: str) -> str:
    """What a weight of a published graph is called in its network; empty for a constant.

    The first graphs have `network.` where today's have `weights.`.
    """
    found = re.search(r"/(?:weights|network)\.(.+)", initializer)
    return found[1] if found else ""


def check_parity(part: Part, model: bytes) -> None:
    """Compare ONNX Runtime with torch on seeded noise of odd sizes.

    Raises:
        ParityError: naming the shape.
    """
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    for feed in part.feeds():
        (graph,) = session.run(None, feed)
        with torch.no_grad():
            eager = part.reference(feed).numpy()
        allowed = 1 if eager.dtype == np.uint8 else _CLOSE * max(1.0, np.abs(eager).max())
        if graph.shape != eager.shape or np.abs(graph.astype(float) - eager).max() > allowed:
            shape = next(iter(feed.values())).shape
            raise ParityError(f"the graph differs from torch by more than {allowed} level at {shape}")


def receptive_radius(network: Network) -> int:
    """How far away, in pixels, an input can change an output: the overlap tiles need.

    Found by pushing a gradient from the middle of the image through a copy of the network whose
    weights are all positive, so that nothing cancels. 0 for a network that takes one size.
    """
    channels, height, _ = network.shape
    if height is not None:
        return 0
    positive = copy.deepcopy(network).double()  # in float32 the outermost gradients underflow
    for parameter in positive.parameters():
        nn.init.constant_(parameter, 1e-3)
    side = 64 * network.alignment
    image = torch.ones(1, channels, side, side, dtype=torch.float64, requires_grad=True)
    middle = range(side // 2, side // 2 + network.alignment)
    begin, end = middle.start * network.scale, middle.stop * network.scale
    positive(image)[:, :, begin:end, begin:end].sum().backward()
    assert image.grad is not None
    touched = torch.nonzero(image.grad[0].abs().amax(dim=(0, 1)))
    radius = int(max(middle.start - touched.min(), touched.max() - middle.stop + 1))
    if radius >= middle.start:
        raise ParityError(f"the network sees over {middle.start} pixels far; tiles would be all overlap")
    return radius
