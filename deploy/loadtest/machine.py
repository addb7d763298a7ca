"""Where and with what something was measured."""

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

import psutil

from deploy.loadtest.pictures import ROOT

_PACKAGES = ("quietframe", "onnxruntime", "bentoml", "grpcio", "Pillow", "numpy", "k6")


def describe_machine() -> list[tuple[str, str]]:
    """Names and values, for a table."""
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in _PACKAGES if _has(name))
    return [
        ("processor", f"{_processor()}, {len(os.sched_getaffinity(0))} cores"),
        ("memory", f"{psutil.virtual_memory().total / 2**30:.0f} GiB"),
        ("system", f"{platform.system()} {platform.release()}, Python {platform.python_version()}"),
        ("versions", versions),
        ("revision", revision(ROOT)),
        ("load average before", " ".join(f"{load:.2f}" for load in os.getloadavg())),
    ]


def revision(checkout: Path) -> str:
    """The commit of a checkout, with a mark where files differ from it."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=10"]
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "not a git checkout"


def _has(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text("utf-8").splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"
