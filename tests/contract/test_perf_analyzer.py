"""NVIDIA's load generator over both protocols, where it is installed; CONTRIBUTING.md says how to get it."""

import base64
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from tests.conftest import Server
from tests.service.test_codec import file_of

pytestmark = pytest.mark.skipif(
    shutil.which("perf_analyzer") is None, reason="perf_analyzer is not installed"
)


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_perf_analyzer_measures_us(
    protocol: str, server: Server, photo: npt.NDArray[np.uint8], tmp_path: Path
) -> None:
    file = file_of(Image.fromarray(photo[:64, :64]), "jpeg")
    frame = base64.b64encode(len(file).to_bytes(4, "little") + file).decode()  # its base64 is the raw tensor
    data = tmp_path / "frames.json"
    data.write_text(json.dumps({"data": [{"IMAGE": {"content": {"b64": frame}, "shape": [1]}}]}))
    address = server.grpc if protocol == "grpc" else f"127.0.0.1:{server.port}"
    report = tmp_path / "report.csv"
    command = ["perf_analyzer", "-m", "frames-balanced", "-i", protocol, "-u", address]
    command += ["--input-data", str(data), "--shape", "IMAGE:1", "--concurrency-range", "2"]
    command += ["--measurement-interval", "1000", "--stability-percentage", "90", "-f", str(report)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    header, values = (line.split(",") for line in report.read_text().splitlines()[:2])
    assert float(dict(zip(header, values, strict=True))["Inferences/Second"]) > 1
