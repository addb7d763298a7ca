"""`bentoml build` makes a Bento of the checkout, and it serves from anywhere else."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx

from model_store import ModelStore, default_root
from tests.conftest import ROOT, Server, free_port, wait_until_ready

BENTOML = [sys.executable, "-m", "bentoml"]


def test_a_bento_is_built_and_serves(server: Server, tmp_path: Path) -> None:
    port = free_port()
    environment = {
        **os.environ,
        "BENTOML_HOME": str(tmp_path / "home"),
        "BENTOML_DO_NOT_TRACK": "true",
        "QUIETFRAME_GRPC_PORT": str(free_port()),
    }
    environment.pop("PYTHONPATH", None)
    build = [*BENTOML, "build", "--output", "tag", "--version", "test"]
    done = subprocess.run(build, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    source = tmp_path / "home/bentos/quietframe/test/src"
    assert len(list(source.glob("model_store/models/*/*/model.onnx"))) == len(
        list(ModelStore(default_root()))
    )
    assert not [name for name in ("tests", "training", "docs", ".git") if (source / name).exists()]
    serve = [*BENTOML, "serve", "quietframe:test", "--host", "127.0.0.1", "--port", str(port)]
    with subprocess.Popen(serve, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL) as process:
        try:
            wait_until_ready(port, process)
            photograph = (ROOT / "docs" / "noisy.jpg").read_bytes()
            answers = [
                httpx.post(f"{url}/v1/denoise", content=photograph, timeout=60).raise_for_status()
                for url in (server.url, f"http://127.0.0.1:{port}")
            ]
            assert answers[0].content == answers[1].content
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
        finally:
            process.terminate()
