"""What lets ONNX Runtime keep features in its own layout on CPUs, between one convolution and the next.

It convolves in NCHWc, channels in blocks of 8 or 16 (`nchwc_transformer.cc` in its source), and takes the
sums and products between convolutions along, if it can tell that both sides are equally large. So sides
of one size need one name, which torch's exporter gives them (`value_info`); and what is added must come from
a convolution. ConvTranspose is none to it: without help, the features it gives, those they are added
to, and all that is added to these later go back to the plain layout and forth again.
"""

import numpy as np
import onnx
from onnx import numpy_helper


def keep_blocked(graph: onnx.GraphProto) -> None:
    """Put a depthwise convolution by 1 between every ConvTranspose and the sum that it goes into.

    It copies into blocks, which somebody must, and takes the sum along.
    """
    kernels = {each.name: each for each in graph.initializer}
    added = {name for node in graph.node if node.op_type == "Add" for name in node.input}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        nodes.append(node)
        if node.op_type == "ConvTranspose" and node.output[0] in added:
            channels = kernels[node.input[1]].dims[1]
            wanted = node.output[0]
            plain, ones = f"{wanted}_plain", f"{wanted}_ones"
            node.output[0] = plain
            nodes.append(onnx.helper.make_node("Conv", [plain, ones], [wanted], group=channels))
            graph.initializer.append(numpy_helper.from_array(np.ones((channels, 1, 1, 1), np.float32), ones))
    del graph.node[:]
    graph.node.extend(nodes)
