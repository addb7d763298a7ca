"""NVIDIA's own client, unmodified, over both protocols; and the standard gRPC services."""

import asyncio
import base64
import json
import re
import subprocess
from collections.abc import Iterator
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.grpc.aio
import tritonclient.http
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from PIL import Image
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from model_store import ModelStore, StoredModel, default_root
from tests.conftest import Server
from tests.contract.triton import MODEL, Pixels, denoised_by_v1, file_input, opened, raw_input
from tests.service.test_codec import file_of


@pytest.fixture(scope="module")
def over_http(server: Server) -> Iterator[Any]:
    with tritonclient.http.InferenceServerClient(f"127.0.0.1:{server.port}", concurrency=8) as client:
        yield client


@pytest.fixture(scope="module")
def over_grpc(server: Server) -> Iterator[Any]:
    with tritonclient.grpc.InferenceServerClient(server.grpc) as client:
        yield client


@pytest.fixture(params=["http", "grpc"])
def triton(request: pytest.FixtureRequest, over_http: Any, over_grpc: Any) -> tuple[Any, Any]:
    """A connected client and its module, for each protocol."""
    if request.param == "http":
        return over_http, tritonclient.http
    return over_grpc, tritonclient.grpc


def test_health_and_metadata(triton: tuple[Any, Any]) -> None:
    client, module = triton
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(MODEL)
    assert client.is_model_ready(MODEL, "1")
    assert not client.is_model_ready("nobody")
    as_json = {} if module is tritonclient.http else {"as_json": True}
    server = client.get_server_metadata(**as_json)
    assert server["name"] == "quietframe"
    model = client.get_model_metadata(MODEL, **as_json)
    assert {tensor["name"] for tensor in model["inputs"]} == {"IMAGE", "image", "strength"}
    assert {tensor["name"] for tensor in model["outputs"]} == {"DENOISED", "denoised"}
    config = client.get_model_config(MODEL, **as_json)
    assert config.get("config", config)["name"] == MODEL
    index = client.get_model_repository_index(**as_json)
    assert MODEL in json.dumps(index)


def test_raw_pixels_are_those_of_v1(triton: tuple[Any, Any], frames: Pixels, expected: Pixels) -> None:
    client, module = triton
    result = client.infer(MODEL, [raw_input(module, frames)], request_id=256 * "7")
    assert np.array_equal(result.as_numpy("denoised"), expected)
    answer = result.get_response()
    assert (answer["id"] if isinstance(answer, dict) else answer.id) == 256 * "7"


def test_files_are_those_of_v1(triton: tuple[Any, Any], frames: Pixels, expected: Pixels) -> None:
    client, module = triton
    files = [file_of(Image.fromarray(frame), "png") for frame in frames]
    result = client.infer(MODEL, [file_input(module, files)])
    assert np.array_equal([opened(data) for data in result.as_numpy("DENOISED")], expected)
    both = [module.InferRequestedOutput("denoised"), module.InferRequestedOutput("DENOISED")]
    result = client.infer(MODEL, [file_input(module, files)], outputs=both, parameters={"format": "webp"})
    assert np.array_equal(result.as_numpy("denoised"), expected)
    assert bytes(result.as_numpy("DENOISED")[0]).startswith(b"RIFF")


def test_the_type_of_files_is_told_where_they_have_one(triton: tuple[Any, Any], frames: Pixels) -> None:
    client, module = triton
    for kinds, told in ((("png", "png"), "image/png"), (("jpeg", "png"), None)):
        files = [file_of(Image.fromarray(frame), kind) for frame, kind in zip(frames, kinds, strict=True)]
        output = client.infer(MODEL, [file_input(module, files)]).get_output("DENOISED")
        parameters = output["parameters"] if isinstance(output, dict) else output.parameters
        found = parameters.get("media_type")
        assert (found.string_param if isinstance(found, pb.InferParameter) else found) == told


def test_an_input_sent_twice_is_refused(triton: tuple[Any, Any], frames: Pixels) -> None:
    client, module = triton
    with pytest.raises(tritonclient.utils.InferenceServerException, match="each input once"):
        client.infer(MODEL, [raw_input(module, frames), raw_input(module, frames)])


def test_strength_by_parameter_and_by_tensor(triton: tuple[Any, Any], frames: Pixels) -> None:
    client, module = triton
    untouched = client.infer(MODEL, [raw_input(module, frames)], parameters={"strength": 0})
    assert np.array_equal(untouched.as_numpy("denoised"), frames)
    strength = module.InferInput("strength", [2], "FP32")
    strength.set_data_from_numpy(np.array([0, 1], np.float32))
    mixed = client.infer(MODEL, [raw_input(module, frames), strength]).as_numpy("denoised")
    assert np.array_equal(mixed[0], frames[0])
    assert not np.array_equal(mixed[1], frames[1])


def test_the_noise_of_each_image_is_that_of_v1(
    server: Server, triton: tuple[Any, Any], frames: Pixels
) -> None:
    client, module = triton
    asked = {"noise": "auto", "strength": 0.5}
    response = client.infer(MODEL, [raw_input(module, frames)], parameters=asked).get_response()
    if isinstance(response, dict):
        told = response["parameters"]["noise_sigma"]
    else:
        told = response.parameters["noise_sigma"].string_param
    url = f"{server.url}/v1/denoise?noise=auto"
    alone = [httpx.post(url, content=file_of(Image.fromarray(frame), "png"), timeout=60) for frame in frames]
    assert told.split(", ") == [answer.headers["x-noise-sigma"] for answer in alone]


def test_equal_errors_over_both(over_http: Any, over_grpc: Any, frames: Pixels) -> None:
    cases: list[tuple[dict[str, Any], tuple[str, str]]] = [
        ({"model_name": "nobody"}, ("404", "StatusCode.NOT_FOUND")),
        ({"model_version": "999"}, ("404", "StatusCode.NOT_FOUND")),
        ({"parameters": {"strenght": 1}}, ("422", "StatusCode.INVALID_ARGUMENT")),
        ({"parameters": {"strength": 2}}, ("422", "StatusCode.INVALID_ARGUMENT")),
        ({"request_id": 257 * "x"}, ("422", "StatusCode.INVALID_ARGUMENT")),
        ({"parameters": {"noise": "yes"}}, ("422", "StatusCode.INVALID_ARGUMENT")),
        ({"files": [b"no image"]}, ("422", "StatusCode.INVALID_ARGUMENT")),
        ({"files": []}, ("422", "StatusCode.INVALID_ARGUMENT")),
    ]
    for arguments, statuses in cases:
        told = []
        for client, module in ((over_http, tritonclient.http), (over_grpc, tritonclient.grpc)):
            given = dict(arguments)
            files = given.pop("files", None)
            tensor = raw_input(module, frames) if files is None else file_input(module, files)
            with pytest.raises(tritonclient.utils.InferenceServerException) as caught:
                client.infer(**{"model_name": MODEL, **given}, inputs=[tensor])
            told.append((caught.value.status(), caught.value.message()))
        assert tuple(status for status, _ in told) == statuses
        assert told[0][1] == told[1][1]


def test_more_than_two_outputs_are_still_two(over_grpc: Any, frames: Pixels) -> None:
    asked = [tritonclient.grpc.InferRequestedOutput("denoised")] * 1000
    answer = over_grpc.infer(MODEL, [raw_input(tritonclient.grpc, frames)], outputs=asked).get_response()
    assert [output.name for output in answer.outputs] == ["denoised"]


def test_what_triton_reserves_is_let_through(server: Server, frames: Pixels) -> None:
    """perf_analyzer adds such a parameter; tritonclient does not let its users do so."""
    request = pb.ModelInferRequest(model_name=MODEL, raw_input_contents=[frames.tobytes()])
    request.inputs.add(name="image", datatype="UINT8", shape=frames.shape)
    request.parameters["triton_enable_empty_final_response"].bool_param = True
    with grpc.insecure_channel(server.grpc) as channel:
        answer = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=30)
    assert list(answer.outputs[0].shape) == list(frames.shape)


def test_a_shape_without_end_is_refused_at_once(server: Server) -> None:
    request = pb.ModelInferRequest(model_name=MODEL)
    request.inputs.add(name="image", datatype="UINT8", shape=[2**62] * 200_000)
    with grpc.insecure_channel(server.grpc) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        with pytest.raises(grpc.RpcError, match="at most 8 sides"):
            stub.ModelInfer(request, timeout=5)
        request.inputs[0].shape[:] = [2**62, 0, 4, 3]
        with pytest.raises(grpc.RpcError, match="1 to 64 images"):
            stub.ModelInfer(request, timeout=5)
        for name in ("", f"{MODEL}:1", "../etc"):
            with pytest.raises(grpc.RpcError, match="NOT_FOUND"):
                stub.ModelMetadata(pb.ModelMetadataRequest(name=name), timeout=5)


def test_requests_that_cannot_be_represented(server: Server, photo: Pixels) -> None:
    small = {"name": "image", "datatype": "UINT8", "shape": [1, 1, 1, 3], "data": [1, 2, 3]}
    strength = {"name": "strength", "datatype": "FP32", "shape": [1]}
    large = {"name": "IMAGE", "datatype": "BYTES", "shape": [1]}
    file = base64.b64encode(file_of(Image.fromarray(np.tile(photo, (2, 2, 1))), "jpeg")).decode()
    large["data"] = [file]
    three = {**large, "shape": [3], "data": 3 * [file]}  # as BMP 4.6 MiB
    for status, said, body, headers in (
        (200, "", {"inputs": [small]}, {}),
        (422, "represented", {"inputs": [small], "id": "\ud800"}, {}),
        (422, "represented", {"inputs": [{**small, "shape": [2**64]}]}, {}),
        (422, "length of the JSON", {"inputs": [small]}, {"Inference-Header-Content-Length": "9" * 5000}),
        (422, "binary_data", {"inputs": [large], "outputs": [{"name": "denoised"}]}, {}),
        (200, "", {"inputs": [large], "parameters": {"format": "bmp"}}, {}),
        (200, "", {"inputs": [{**large, "shape": [1, 1], "data": [[file]]}]}, {}),
        (415, "compressed", {"inputs": [small]}, {"Content-Encoding": "gzip"}),
        (422, "binary_data", {"inputs": [three], "parameters": {"format": "bmp"}}, {}),
        (413, "binary", {"inputs": [small], "padding": "x" * 2**23}, {}),
        (422, "JSON", "{", {}),
        (422, "dictionary", [], {}),
        (422, "at most 64", {"inputs": [small], "parameters": {f"triton_{n}": 1 for n in range(65)}}, {}),
        (422, "levels|hold", {"inputs": [{**small, "data": [1, 2, 256]}]}, {}),
        (422, "hold UINT8", {"inputs": [{**small, "data": [0.2, 0.99, 1]}]}, {}),
        (422, "hold UINT8", {"inputs": [{**small, "data": [True, 2, 3]}]}, {}),
        (422, "hold UINT8", {"inputs": [{**small, "data": ["1", 2, 3]}]}, {}),
        (422, "hold FP32", {"inputs": [small, {**strength, "data": [True]}]}, {}),
        (422, "hold FP32", {"inputs": [small, {**strength, "data": [None]}]}, {}),
        (200, "", {"inputs": [small, {**strength, "data": [1]}]}, {}),
        (422, "data", {"inputs": [{**small, "data": None}]}, {}),
        (422, "inputs: Field required", {"inputs": None}, {}),
        (200, "", {"inputs": [{**small, "parameters": None}], "id": None, "outputs": None}, {}),
        (501, "Shared memory", {"inputs": [{**small, "parameters": {"shared_memory_region": "a"}}]}, {}),
    ):
        content = body if isinstance(body, str) else json.dumps(body)
        url = f"{server.url}/v2/models/{MODEL}/infer"
        answer = httpx.post(url, content=content, headers=headers, timeout=60)
        assert answer.status_code == status, (said, answer.text[:300])
        assert status == 200 or re.search(said, answer.json()["error"])
    for path in (f"models/{MODEL}:1", f"models/{MODEL}:1/config", "models/nobody", "models/..%2fx/stats"):
        assert httpx.get(f"{server.url}/v2/{path}").status_code == 404


def test_models_are_not_unloaded_by_strangers(triton: tuple[Any, Any]) -> None:
    client, _ = triton
    with pytest.raises(tritonclient.utils.InferenceServerException, match="MODEL_CONTROL"):
        client.unload_model(MODEL)
    assert client.is_model_ready(MODEL)


def test_what_triton_has_and_we_have_not_is_said_to_be_so(triton: tuple[Any, Any]) -> None:
    client, _ = triton
    for call in (
        client.get_log_settings,
        client.get_trace_settings,
        lambda: client.get_trace_settings(MODEL),
        client.get_system_shared_memory_status,
        client.get_cuda_shared_memory_status,
        lambda: client.register_system_shared_memory("a", "/a", 64),
    ):
        with pytest.raises(tritonclient.utils.InferenceServerException, match="is not supported") as caught:
            call()
        assert caught.value.status() in ("501", "StatusCode.UNIMPLEMENTED")


def test_both_protocols_count_alike(server: Server, triton: tuple[Any, Any], frames: Pixels) -> None:
    client, module = triton
    protocol = "http" if module is tritonclient.http else "grpc"

    def counted(reason: str, model: str) -> float:
        label = f'quietframe_requests_total{{model="{model}",protocol="{protocol}",reason="{reason}"}} '
        lines = httpx.get(f"{server.url}/metrics").text.splitlines()
        return sum(float(line.removeprefix(label)) for line in lines if line.startswith(label))

    name = f"{MODEL}/{ModelStore(default_root()).resolve(MODEL).card.version}"
    before = counted("ok", name), counted("bad-image", "")
    for _ in range(3):
        client.infer(MODEL, [raw_input(module, frames)])
    with pytest.raises(tritonclient.utils.InferenceServerException):
        client.infer(MODEL, [file_input(module, [b"no image"])])
    assert (counted("ok", name), counted("bad-image", "")) == (before[0] + 3, before[1] + 1)
    statistics = client.get_inference_statistics(MODEL, **({} if protocol == "http" else {"as_json": True}))
    assert int(statistics["model_stats"][0]["inference_stats"]["success"]["count"]) >= 3


def test_async_clients(server: Server, frames: Pixels, expected: Pixels) -> None:
    async def main() -> list[Any]:
        async with tritonclient.grpc.aio.InferenceServerClient(server.grpc) as client:
            inputs = [raw_input(tritonclient.grpc, frames)]
            return await asyncio.gather(*(client.infer(MODEL, inputs) for _ in range(8)))

    for result in asyncio.run(main()):
        assert np.array_equal(result.as_numpy("denoised"), expected)


def test_health_and_reflection(server: Server) -> None:
    with grpc.insecure_channel(server.grpc) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        assert health.Check(health_pb2.HealthCheckRequest()).status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.RpcError, match="NOT_FOUND"):
            health.Check(health_pb2.HealthCheckRequest(service="nobody"))
        database = ProtoReflectionDescriptorDatabase(channel)
        assert "inference.GRPCInferenceService" in database.get_services()
        service = DescriptorPool(database).FindServiceByName("inference.GRPCInferenceService")
        assert "ModelStreamInfer" in service.methods_by_name


def test_curl_and_json(server: Server, photo: Pixels, shipped: StoredModel) -> None:
    body = {
        "inputs": [
            {"name": "image", "datatype": "UINT8", "shape": [1, 4, 5, 3], "data": photo[:4, :5].tolist()}
        ]
    }
    command = ["curl", "-sS", "-d", json.dumps(body), f"{server.url}/v2/models/{MODEL}/infer"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    answer = json.loads(done.stdout)
    assert answer["model_version"] == str(shipped.card.version)
    output = answer["outputs"][0]
    assert (output["name"], output["shape"]) == ("denoised", [1, 4, 5, 3])
    clean = denoised_by_v1(server, file_of(Image.fromarray(photo[:4, :5]), "png"))
    assert np.array_equal(np.array(output["data"], np.uint8).reshape(4, 5, 3), clean)
