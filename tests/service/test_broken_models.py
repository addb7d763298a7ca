"""What clients and the log are told of models that cannot be loaded."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from model_store import default_root
from tests.conftest import running_server
from tests.service.test_codec import file_of

Pixels = npt.NDArray[np.uint8]


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[httpx.Client, Path]]:
    """A service and its folder: mnist-linear and mnist-dense are sound, a card and a graph are not."""
    folder = tmp_path_factory.mktemp("damaged")
    for name in ("mnist-linear", "mnist-dense", "mnist-conv", "toy-spiral"):
        shutil.copytree(default_root() / name, folder / "models" / name)
    (folder / "models" / "mnist-conv" / "1" / "card.json").write_text("{}")
    with (folder / "models" / "toy-spiral" / "1" / "model.onnx").open("ab") as graph:
        graph.write(b"altered")
    store = str(folder / "models")
    with (
        running_server(
            output=folder / "log", MODEL_STORE=store, DEFAULT_MODEL="mnist-linear", MODEL_CONTROL="true"
        ) as server,
        httpx.Client(base_url=server.url, timeout=60) as client,
    ):
        yield client, folder


def test_what_is_broken_is_told_to_the_log_and_not_to_clients(
    damaged: tuple[httpx.Client, Path], photo: Pixels
) -> None:
    client, folder = damaged
    small = file_of(Image.fromarray(photo[:8, :8]), "png")
    for name, method, path in (
        ("mnist-conv", "GET", "/v1/models/mnist-conv"),
        ("mnist-conv", "GET", "/v2/models/mnist-conv/versions/1"),
        ("mnist-conv", "POST", "/v1/denoise?model=mnist-conv"),
        ("toy-spiral", "POST", "/v1/denoise?model=toy-spiral"),
        ("toy-spiral", "POST", "/v1/denoise?model=toy-spiral"),  # by now it is known to be broken
        ("toy-spiral", "POST", "/v2/repository/models/toy-spiral/load"),
    ):
        answer = client.request(method, path, content=small if method == "POST" else None)
        assert answer.status_code == 503, answer.text
        told = answer.json().get("detail") or answer.json()["error"]
        assert re.fullmatch(f"{name}(:1)? cannot be loaded; see the service's log", told)
    log = (folder / "log").read_text()
    shown = [line for line in log.splitlines() if "card.json is not a valid card" in line]
    assert "mnist-conv cannot be loaded" in shown[0]
    assert f"{folder}/models/toy-spiral/1/model.onnx has sha256" in log


def test_the_index_says_why_a_model_is_not_ready(damaged: tuple[httpx.Client, Path]) -> None:
    client, _ = damaged

    def reason() -> Any:
        index = client.post("/v2/repository/index").json()
        return next(each.get("reason", "") for each in index if each["name"] == "mnist-dense")

    control = "/v2/repository/models/mnist-dense"
    assert reason() == "not asked for yet"
    assert client.post(f"{control}/unload").status_code == 200
    assert reason() == "unloaded"
    assert client.post(f"{control}/load").status_code == 200
    assert reason() == ""
