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
POINT = {"inputs": [{"name": "points", "datatype": "FP32", "shape": [1, 2], "data": [0, 0]}]}


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

    def told(name: str) -> Any:
        index = client.post("/v2/repository/index").json()
        return next((each["state"], each.get("reason")) for each in index if each["name"] == name)

    control = "/v2/repository/models/mnist-dense"
    assert told("mnist-dense") == ("UNAVAILABLE", "not asked for yet")
    assert client.post(f"{control}/unload").status_code == 200
    assert told("mnist-dense") == ("UNAVAILABLE", "unloaded")
    assert client.post(f"{control}/load").status_code == 200
    assert told("mnist-dense") == ("READY", None)
    assert client.post("/v2/models/toy-spiral/infer", json=POINT).status_code == 503
    refused = "refused when it was to be loaded; see the service's log"
    assert told("toy-spiral") == ("UNAVAILABLE", refused)


def test_what_is_refused_is_not_ready_and_the_version_before_it_is(
    damaged: tuple[httpx.Client, Path],
) -> None:
    client, folder = damaged
    newer = folder / "models" / "mnist-dense" / "2"
    shutil.copytree(newer.with_name("1"), newer)
    card = newer / "card.json"
    card.write_text(card.read_text().replace('"version": 1', '"version": 2'))
    (newer / "model.onnx").write_bytes(b"altered")
    digit = {"inputs": [{"name": "image", "datatype": "UINT8", "shape": [1, 28, 28, 1], "data": [0] * 784}]}
    assert client.post("/v2/models/mnist-dense/infer", json=digit).status_code == 200
    assert client.post("/v2/models/mnist-dense/versions/2/infer", json=digit).status_code == 503
    assert client.post("/v2/models/toy-spiral/infer", json=POINT).status_code == 503

    def status(path: str) -> int:
        return client.get(f"/v2/models/{path}/ready").status_code

    paths = ("mnist-dense", "mnist-dense/versions/1", "mnist-dense/versions/2", "toy-spiral", "mnist-linear")
    assert [status(path) for path in paths] == [200, 200, 503, 503, 200]
    shutil.rmtree(newer)


def test_a_broken_card_is_logged_once_and_again_when_it_changes(damaged: tuple[httpx.Client, Path]) -> None:
    client, folder = damaged
    card = folder / "models" / "mnist-conv" / "1" / "card.json"
    sound = (default_root() / "mnist-conv" / "1" / "card.json").read_text()

    def lines_for(text: str, status: int) -> int:
        before = (folder / "log").read_text().count("mnist-conv cannot be loaded")
        card.write_text(text)
        for _ in range(3):
            assert client.get("/v1/models/mnist-conv").status_code == status
        return (folder / "log").read_text().count("mnist-conv cannot be loaded") - before

    steps = (('{"name": 1}', 503), ("{}", 503), (sound, 200), ("{}", 503))
    assert [lines_for(*step) for step in steps] == [1, 1, 0, 1]


def test_a_store_that_has_gone_is_told_to_the_log_and_not_to_clients(
    damaged: tuple[httpx.Client, Path],
) -> None:
    client, folder = damaged
    store, elsewhere = folder / "models", folder / "elsewhere"
    store.rename(elsewhere)
    try:
        listed, index = client.get("/v1/models"), client.post("/v2/repository/index")
    finally:
        elsewhere.rename(store)
    assert listed.status_code == index.status_code == 503
    assert listed.json()["type"] == "urn:quietframe:store-unreadable"
    assert listed.json()["detail"] == index.json()["error"]
    assert "try again, or see the service's log" in listed.json()["detail"]
    assert str(folder) not in listed.text
    log = (folder / "log").read_text()
    assert log.count(f"{store} cannot be read: there is no such folder") == 1
    assert client.get("/v1/models").status_code == 200
