"""`evaluate` on a run of points, which have no PSNR."""

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.training.test_evaluate import onnx_file
from training.cli import main
from training.fit import fit
from training.recipe import Recipe


@pytest.fixture
def run(spiral: dict[str, Any], tmp_path: Path) -> Path:
    fit(Recipe.model_validate(spiral), None, tmp_path / "run")
    return tmp_path / "run"


def test_points_are_measured_by_their_distances_and_beside_nobody(run: Path, tmp_path: Path) -> None:
    measure = ["evaluate", "--run", str(run)]
    alone = CliRunner().invoke(main, measure)
    assert alone.exit_code == 0, alone.output
    assert "distance from the curve, restored" in alone.output
    peer = onnx_file(tmp_path / "peer.onnx", "float[N, 3, H, W] x", "y = Identity (x)")
    for option, name in (("--model", "toy-spiral"), ("--model", "mnist-dense"), ("--peer", str(peer))):
        beside = CliRunner().invoke(main, [*measure, option, name])
        assert beside.exit_code == 1
        assert f"small takes points and is measured alone; leave out {name}" in beside.output
