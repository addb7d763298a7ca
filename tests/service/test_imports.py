"""Who may import whom, proved in fresh interpreters and by reading the code."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize(
    "module",
    ["service.app", "service.cli", "service.files", "service.bench", "service.video", "service.archive.run"],
)
def test_serving_needs_no_training_library(module: str) -> None:
    check = f"import {module}, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True, cwd=ROOT)
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert module.split(".")[0] in loaded
    assert not loaded & {"torch", "pytorch_lightning", "training", "onnx", "cv2", "skimage", "scipy"}


def imports_of(file: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


def test_the_rooms_keep_their_doors() -> None:
    for file in (ROOT / "service").rglob("*.py"):
        assert "training" not in imports_of(file), file
        assert file.name in ("app.py", "supervisor.py") or "bentoml" not in imports_of(file), file
    for file in (ROOT / "training").rglob("*.py"):
        assert "service" not in imports_of(file), file
    for file in (ROOT / "model_store").rglob("*.py"):
        assert not imports_of(file) & {"service", "training", "torch", "onnxruntime"}, file
    for name in ("header", "codec", "tiling", "engine", "batcher"):
        assert not imports_of(ROOT / "service" / f"{name}.py") & {"fastapi", "starlette", "grpc"}, name
