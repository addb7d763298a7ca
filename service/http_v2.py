"""Open Inference Protocol over REST: JSON and binary tensors to the messages of `oip`, and back."""

import base64
import binascii
import json
import re
from typing import Any

import numpy as np
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from google.protobuf import json_format
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, ValidationError
from tritonclient.grpc import service_pb2 as pb

from service import control, oip
from service.answer import Answer
from service.body import client_timeout, read_body, while_connected
from service.errors import BadParameterError, BodyTooLargeError, DrainingError, ServiceError
from service.pipeline import Pipeline

HEADER_LENGTH = "inference-header-content-length"
# Reading and writing JSON holds the interpreter, and with it every other request.
_MOST_JSON = 4 * 2**20  # bytes in
_MOST_VALUES = 2**18  # pixel values out
health = APIRouter(prefix="/v2/health", tags=["Open Inference Protocol"])
router = APIRouter(prefix="/v2", tags=["Open Inference Protocol"])

Scalar = bool | int | float | str


class _Tensor(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)

    name: str
    datatype: str = ""
    shape: list[NonNegativeInt] = Field(default=[], max_length=8)
    parameters: dict[str, Scalar] = {}
    data: Any = None


class _Infer(BaseModel):
    """The JSON part of an infer request; strangers' extra fields are not ours to judge."""

    model_config = ConfigDict(extra="ignore", strict=True)

    id: str = ""
    parameters: dict[str, Scalar] = {}
    inputs: list[_Tensor] = Field(max_length=8)
    outputs: list[_Tensor] = Field(default=[], max_length=8)


def pipeline_of(request: Request) -> Pipeline:
    """Raises DrainingError while there is none yet."""
    pipeline: Pipeline | None = request.app.state.pipeline
    if pipeline is None:
        raise DrainingError
    return pipeline


@router.get("")
async def server_metadata() -> Response:
    return _message(oip.server_metadata())


@health.get("/live")
async def live() -> Response:
    return Response()


@health.get("/ready")
async def ready(request: Request) -> Response:
    pipeline: Pipeline | None = request.app.state.pipeline
    return Response(status_code=200 if pipeline and pipeline.admission.open else 503)


@router.get("/models/stats")
async def all_statistics(request: Request) -> Response:
    return _message(await control.statistics(pipeline_of(request), "", ""))


@router.get("/models/{name}/ready")
@router.get("/models/{name}/versions/{version}/ready")
async def model_ready(request: Request, name: str, version: str = "") -> Response:
    is_ready = await control.is_ready(pipeline_of(request), name, version)
    return Response(status_code=200 if is_ready else 503)


@router.get("/models/{name}")
@router.get("/models/{name}/versions/{version}")
async def model_metadata(request: Request, name: str, version: str = "") -> Response:
    card, versions = await control.describe(pipeline_of(request), name, version)
    return _message(oip.model_metadata(card, versions))


@router.get("/models/{name}/config")
@router.get("/models/{name}/versions/{version}/config")
async def model_config(request: Request, name: str, version: str = "") -> Response:
    card, _ = await control.describe(pipeline_of(request), name, version)
    return _message(oip.model_config(card))


@router.get("/models/{name}/stats")
@router.get("/models/{name}/versions/{version}/stats")
async def model_statistics(request: Request, name: str, version: str = "") -> Response:
    return _message(await control.statistics(pipeline_of(request), name, version))


@router.post("/repository/index")
async def repository_index(request: Request) -> Response:
    pipeline = pipeline_of(request)
    with pipeline.admission.body() as buffer:
        asked = _json(await read_body(request, pipeline.settings, buffer) or b"{}")
    index = await pipeline.in_thread(
        lambda: oip.repository_index(pipeline, isinstance(asked, dict) and asked.get("ready") is True)
    )
    return JSONResponse([json_format.MessageToDict(model) for model in index.models])


@router.post("/repository/models/{name}/load")
async def load(request: Request, name: str) -> Response:
    await control.load(pipeline_of(request), name)
    return Response()


@router.post("/repository/models/{name}/unload")
async def unload(request: Request, name: str) -> Response:
    await control.unload(pipeline_of(request), name)
    return Response()


@router.post("/models/{name}/infer")
@router.post("/models/{name}/versions/{version}/infer")
async def infer(request: Request, name: str, version: str = "") -> Response:
    """`IMAGE` (BYTES, encoded files) or `image` (UINT8 `[N, H, W, C]`) in; `DENOISED` or `denoised` out.

    JSON, or JSON followed by binary tensors with `Inference-Header-Content-Length`. Without the
    binary form files stand in `data` as base64.
    """
    pipeline = pipeline_of(request)
    if request.headers.get("content-encoding", "identity") != "identity":
        raise BadParameterError("Compressed bodies are not read; images are compressed already")
    with pipeline.admission.body() as buffer:
        body = await read_body(request, pipeline.settings, buffer)
        length = request.headers.get(HEADER_LENGTH)
        message, asked = await pipeline.with_headers(lambda: _to_message(body, length, name, version))
        work = oip.infer(pipeline, message, client_timeout(request))
        response = await while_connected(request, work)
        content, header_length = await pipeline.in_thread(lambda: _from_message(response, asked))
    label = f"{response.model_name}/{response.model_version}"
    request.state.model, request.state.reason = label, "ok"
    headers = {"X-Model": label, "Server-Timing": _timing(response)}
    if header_length is None:
        return Answer(content, "application/json", headers, pipeline)
    headers[HEADER_LENGTH.title()] = str(header_length)
    return Answer(content, "application/octet-stream", headers, pipeline)


def answer_error(error: ServiceError) -> JSONResponse:
    return JSONResponse({"error": error.detail}, error.status, error.headers)


def _message(message: Any) -> Response:
    content = json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return JSONResponse(_numbers(content))


def _numbers(content: Any) -> Any:
    """JSON numbers where protobuf's JSON has 64-bit integers as strings: so Triton writes them."""
    if isinstance(content, dict):
        numeric = ("shape", "dims", "count", "ns", "inference_count", "execution_count", "last_inference")
        return {
            key: _integers(value) if key in numeric else _numbers(value) for key, value in content.items()
        }
    return [_numbers(each) for each in content] if isinstance(content, list) else content


def _integers(value: Any) -> Any:
    return [int(each) for each in value] if isinstance(value, list) else int(value)


def _json(text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise BadParameterError("The body, or its JSON part, is not JSON") from None


def _to_message(body: bytes, header_length: str | None, name: str, version: str) -> tuple[Any, _Infer]:
    length = _length_of_json(body, header_length)
    try:
        asked = _Infer.model_validate(_json(body[:length]))
        return _translated(asked, body, length, name, version), asked
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))[:100] or "body"
        raise BadParameterError(f"{where}: {first['msg']}") from None
    except ValueError:  # protobuf's own, as for a number over 64 bits or text that is no Unicode
        raise BadParameterError("A number or text of the request cannot be represented") from None


def _length_of_json(body: bytes, header_length: str | None) -> int:
    length = len(body)
    if header_length is not None:
        if not re.fullmatch("[0-9]{1,9}", header_length) or int(header_length) > len(body):
            raise BadParameterError(f"{HEADER_LENGTH} is the length of the JSON part, at most {len(body)}")
        length = int(header_length)
    if length > _MOST_JSON:
        raise BodyTooLargeError(f"JSON may have {_MOST_JSON} bytes; send tensors in binary, after the JSON")
    return length


def _translated(asked: _Infer, body: bytes, length: int, name: str, version: str) -> Any:
    message = pb.ModelInferRequest(model_name=name, model_version=version, id=asked.id)
    for key, value in asked.parameters.items():
        _set(message.parameters[key], value)
    for output in asked.outputs:
        message.outputs.add(name=output.name)
    _add_inputs(message, asked.inputs, body, length)
    return message


def _add_inputs(message: Any, inputs: list[_Tensor], body: bytes, at: int) -> None:
    """Binary tensors lie one after the other in `body`, from `at` on."""
    for tensor in inputs:
        added = message.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        if "shared_memory_region" in tensor.parameters:
            _set(added.parameters["shared_memory_region"], "")
        size = tensor.parameters.get("binary_data_size")
        if size is None:
            message.raw_input_contents.append(_raw(tensor))
            continue
        if type(size) is not int or not 0 <= size <= len(body) - at:
            raise BadParameterError(f"{tensor.name}: binary_data_size is more than what was sent")
        message.raw_input_contents.append(body[at : at + size])
        at += size
    if at != len(body):
        raise BadParameterError(f"{len(body) - at} bytes at the end of the body belong to no input")


def _set(slot: Any, value: Scalar) -> None:
    match value:
        case bool():
            slot.bool_param = value
        case int() if -(2**63) <= value < 2**63:
            slot.int64_param = value
        case int():
            raise BadParameterError(f"{str(value)[:30]} is too large a number")
        case float():
            slot.double_param = value
        case str():
            slot.string_param = value


def _raw(tensor: _Tensor) -> bytes:
    """JSON `data`, nested or flat, as the bytes of a binary tensor."""
    if not isinstance(tensor.data, list):
        raise BadParameterError(f"{tensor.name} has neither `data` nor binary data")
    if tensor.datatype == "BYTES":
        return b"".join(_file(tensor.name, each) for each in tensor.data)
    try:
        dtype = {"UINT8": "u1", "FP32": "<f4"}[tensor.datatype]
        return np.array(tensor.data, dtype).tobytes()
    except (KeyError, ValueError, TypeError, OverflowError):
        raise BadParameterError(
            f"{tensor.name}: `data` does not hold {tensor.datatype[:20]} values"
        ) from None


def _file(name: str, text: Any) -> bytes:
    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError, TypeError):
        raise BadParameterError(f"{name}: files in JSON are base64 strings") from None
    return len(content).to_bytes(4, "little") + content


def _from_message(response: Any, asked: _Infer) -> tuple[bytes, int | None]:
    """The body, and the length of its JSON part where binary tensors follow."""
    all_binary = asked.parameters.get("binary_data_output") is True
    chosen = {output.name: output.parameters.get("binary_data", all_binary) for output in asked.outputs}
    outputs, binaries = [], []
    for output, raw in zip(response.outputs, response.raw_output_contents, strict=True):
        described: dict[str, Any] = {
            "name": output.name,
            "datatype": output.datatype,
            "shape": list(output.shape),
            "parameters": {name: oip.parameter(value) for name, value in output.parameters.items()},
        }
        if chosen.get(output.name, all_binary):
            described["parameters"]["binary_data_size"] = len(raw)
            binaries.append(raw)
        elif output.datatype == "BYTES":
            described["parameters"]["content_type"] = "base64"
            described["data"] = [base64.b64encode(each).decode() for each in oip.split_bytes(raw)]
        elif len(raw) > _MOST_VALUES:
            raise BadParameterError(f"{output.name} has {len(raw)} values; ask for it with binary_data")
        else:
            described["data"] = np.frombuffer(raw, np.uint8).tolist()
        outputs.append(described)
    head = json.dumps(
        {
            "model_name": response.model_name,
            "model_version": response.model_version,
            "id": response.id,
            "outputs": outputs,
        }
    ).encode()
    return b"".join([head, *binaries]), len(head) if binaries else None


def _timing(response: Any) -> str:
    stages = {name[:-3]: oip.parameter(value) for name, value in response.parameters.items()}
    return ", ".join(f"{stage};dur={spent:.1f}" for stage, spent in stages.items())
