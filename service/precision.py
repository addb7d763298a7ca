"""In which precision a model version runs here."""

from functools import cache
from pathlib import Path
from typing import Literal

import onnxruntime as ort

from model_store import OPENVINO, ModelCard, Precision
from service.errors import StartError

PrecisionChoice = Literal["auto", "fp32", "int8", "bf16", "fp16"]
_VNNI = {"avx512_vnni", "avx_vnni"}
_BF16 = {"avx512_bf16", "amx_bf16"}
_RUNS: dict[str, tuple[Precision, ...]] = {"cpu": ("fp32", "int8", "bf16"), "cuda": ("fp32", "fp16")}
_MOST_LOSS = 0.05  # dB; what loses more is not taken unasked


def choose_precision(card: ModelCard, device: str, wanted: PrecisionChoice) -> Precision:
    """What is wanted, where the version has it and the device runs it; for `auto` the fastest of little loss.

    A CPU runs int8 and bf16, CUDA fp16; what cannot be is float32.

    Raises:
        StartError: bf16 is wanted, and this installation cannot run it.
    """
    if device == "cpu" and wanted == "bf16" and not has_openvino():
        raise StartError("bf16 needs OpenVINO: pip install 'quietframe[openvino]' in place of [cpu]")
    if wanted != "auto":
        return wanted if wanted in card.hashes and wanted in _RUNS[device] else "fp32"
    pays = [
        each
        for each in card.variants
        if each.precision in _RUNS[device]
        and _is_quicker_in(each.precision)
        and max(each.psnr_loss.values(), default=0.0) <= _MOST_LOSS
    ]
    return max(pays, key=lambda each: each.speed_ratio).precision if pays else "fp32"


def _is_quicker_in(precision: Precision) -> bool:
    match precision:
        case "int8":
            return multiplies_bytes()
        case "bf16":
            return has_openvino() and multiplies_bf16()
        case _:
            return True


def multiplies_bytes() -> bool:
    """Whether the CPU sums products of bytes in one instruction (VNNI); without, int8 can be slower."""
    return bool(_VNNI & _cpu_flags())


def multiplies_bf16() -> bool:
    """Whether the CPU sums products of bfloat16 in one instruction; without, bf16 is float32 or slower."""
    return bool(_BF16 & _cpu_flags())


def has_openvino() -> bool:
    """Whether this ONNX Runtime is the one of the extra `openvino`."""
    return OPENVINO in ort.get_available_providers()


@cache
def _cpu_flags() -> set[str]:
    """What Linux says the CPU can do; elsewhere nothing."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return set()
    return {flag for line in lines if line.startswith("flags") for flag in line.split()}
