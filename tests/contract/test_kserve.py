"""KServe's objects by the schema of its CRDs, and a store that Triton and OpenVINO Model Server can serve."""

import json
import shutil
from pathlib import Path
from typing import Any

import onnxruntime as ort
import pytest
import yaml
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from model_store import ModelStore, StoredModel, default_root
from service.settings import Settings
from tests.conftest import ROOT
from tests.contract.test_helm import validate

FOLDER = ROOT / "deploy" / "kserve"
RUNTIME: dict[str, Any] = yaml.safe_load((FOLDER / "servingruntime.yaml").read_text("utf-8"))
SERVICES: list[dict[str, Any]] = list(
    yaml.safe_load_all((FOLDER / "inferenceservice.yaml").read_text("utf-8"))
)


@pytest.mark.parametrize("document", [RUNTIME, *SERVICES], ids=lambda each: each["metadata"]["name"])
def test_kserve_takes_it(document: dict[str, Any]) -> None:
    validate(document)
    broken = json.loads(json.dumps(document))
    broken["spec"]["protocolVersion"] = "v2"
    with pytest.raises(Exception, match="protocolVersion"):
        validate(broken)


def test_the_runtime_serves_what_the_services_ask_for(monkeypatch: pytest.MonkeyPatch) -> None:
    (container,) = RUNTIME["spec"]["containers"]
    for each in container["env"]:
        monkeypatch.setenv(each["name"], each.get("value", "2"))  # or what is requested
    settings = Settings()
    assert (settings.threads, container["resources"]["requests"]["cpu"]) == (2, "2")
    assert RUNTIME["spec"]["annotations"]["prometheus.kserve.io/port"] == str(settings.port)
    assert settings.model_store == Path("/mnt/models")  # where KServe puts what storageUri names
    ports = {"v2": settings.port, "grpc-v2": settings.grpc_port}
    (model_format,) = RUNTIME["spec"]["supportedModelFormats"]
    for service in SERVICES:
        annotations = service["metadata"]["annotations"]
        assert annotations["serving.kserve.io/enable-prometheus-scraping"] == "true"
        predictor = service["spec"]["predictor"]
        model = predictor["model"]
        assert model["runtime"] == RUNTIME["metadata"]["name"]
        assert model["modelFormat"]["name"] == model_format["name"]
        (port,) = model.get("ports", container["ports"])
        assert port["containerPort"] == ports[model["protocolVersion"]]
        wait = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
        longest = max(settings.grace_s, settings.timeout_s)
        assert predictor["terminationGracePeriodSeconds"] >= wait + longest + 5


def test_the_store_is_a_repository_for_triton_and_openvino(shipped: StoredModel, tmp_path: Path) -> None:
    """Versions by number, `model.onnx` in each; quietframe does not mind a config.pbtxt beside them."""
    for model in default_root().iterdir():
        assert all(version.name.isdecimal() for version in model.iterdir() if version.is_dir()), model
        assert all((version / "model.onnx").is_file() for version in model.iterdir() if version.is_dir())
    copy = tmp_path / "models"
    shutil.copytree(default_root(), copy)
    shutil.copy(FOLDER / "config.pbtxt", copy / shipped.card.name)
    assert [stored.card for stored in ModelStore(copy)] == [
        stored.card for stored in ModelStore(default_root())
    ]
    (listed,) = json.loads((FOLDER / "ovms.json").read_text("utf-8"))["model_config_list"]
    assert listed["config"]["base_path"] == f"/models/{listed['config']['name']}"
    assert (copy / listed["config"]["name"]).is_dir()


def test_tritons_configuration_is_that_of_the_graph(shipped: StoredModel) -> None:
    config = text_format.Parse((FOLDER / "config.pbtxt").read_text("utf-8"), model_config_pb2.ModelConfig())
    assert config.name == shipped.card.name
    session = ort.InferenceSession(shipped.read_verified(), providers=["CPUExecutionProvider"])
    types = {"tensor(uint8)": model_config_pb2.TYPE_UINT8, "tensor(float)": model_config_pb2.TYPE_FP32}
    for graph, ours in ((session.get_inputs(), config.input), (session.get_outputs(), config.output)):
        assert [each.name for each in graph] == [each.name for each in ours]
        for wanted, found in zip(graph, ours, strict=True):
            shape = found.reshape.shape if found.HasField("reshape") else found.dims
            assert list(shape) == [side if isinstance(side, int) else -1 for side in wanted.shape[1:]]
            assert found.data_type == types[wanted.type]
