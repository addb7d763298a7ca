"""In which precision a model version runs here."""

from functools import cache
from pathlib import Path
from typing import Literal

from model_store import ModelCard, Precision

PrecisionChoice = Literal["auto", "fp32", "int8"]
_VNNI = {"avx512_vnni", "avx_vnni"}


def choose_precision(card: ModelCard, device: str, wanted: PrecisionChoice) -> Precision:
    """int8 on a CPU, where the version has it and it is wanted, or pays."""
    if device != "cpu" or "int8" not in card.hashes or wanted == "fp32":
        return "fp32"
    return "int8" if wanted == "int8" or multiplies_bytes() else "fp32"


@cache
def multiplies_bytes() -> bool:
    """Whether the CPU sums products of bytes in one instruction (VNNI); False where Linux does not say so.

    Without it int8 can be slower than float32.
    """
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return False
    return any(_VNNI & set(line.split()) for line in lines if line.startswith("flags"))
