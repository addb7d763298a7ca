"""What makes ONNX Runtime compute in a precision: the same for who measures it and who serves it."""

import json

from model_store.card import Precision

OPENVINO = "OpenVINOExecutionProvider"
CUDA = "CUDAExecutionProvider"

Provider = str | tuple[str, dict[str, str]]

# EXHAUSTIVE, the default, searches 0.6 s for each new shape.
CUDA_PROVIDERS: list[Provider] = [(CUDA, {"cudnn_conv_algo_search": "HEURISTIC"}), "CPUExecutionProvider"]


def cpu_providers(precision: Precision, threads: int) -> list[Provider]:
    """The `providers` of an InferenceSession.

    fp32, int8 and fp16 are what the file says; bf16 is model.onnx, whose convolutions OpenVINO rounds to
    bfloat16 and sums in float32. ONNX Runtime goes on without a provider that it does not have, so
    `session.get_providers()` is to be asked.

    Args:
        threads: of one run; 0 is all cores.
    """
    if precision != "bf16":
        return ["CPUExecutionProvider"]
    cpu = {
        "INFERENCE_PRECISION_HINT": "bf16",
        "NUM_STREAMS": "1",
        "ENABLE_CPU_PINNING": "NO",  # sessions beside each other would be pinned to the same cores
        **({"INFERENCE_NUM_THREADS": str(threads)} if threads else {}),
    }
    return [
        (OPENVINO, {"device_type": "CPU", "load_config": json.dumps({"CPU": cpu})}),
        "CPUExecutionProvider",
    ]
