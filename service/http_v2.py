"""Open Inference Protocol over REST: routes; thin over `oip`, `oip_json` and `control`."""

from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from google.protobuf import json_format

from service import control, oip, oip_models
from service.answer import NOISE_HEADER, Answer, pipeline_of
from service.body import client_timeout, read_body, while_connected
from service.errors import BodyTooLargeError, NotSupportedError, ServiceError
from service.oip_json import HEADER_LENGTH, from_message, parse, to_message
from service.pipeline import Pipeline

_MOST_INDEX = 2**16  # bytes of a request for it: reading JSON holds every other request

health = APIRouter(prefix="/v2/health", tags=["Open Inference Protocol"])
router = APIRouter(prefix="/v2", tags=["Open Inference Protocol"])


@router.get("")
async def server_metadata() -> Response:
    return _message(oip_models.server_metadata())


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
    return _message(oip_models.model_metadata(card, versions))


@router.get("/models/{name}/config")
@router.get("/models/{name}/versions/{version}/config")
async def model_config(request: Request, name: str, version: str = "") -> Response:
    card, _ = await control.describe(pipeline_of(request), name, version)
    return _message(oip_models.model_config(card))


@router.get("/models/{name}/stats")
@router.get("/models/{name}/versions/{version}/stats")
async def model_statistics(request: Request, name: str, version: str = "") -> Response:
    return _message(await control.statistics(pipeline_of(request), name, version))


@router.post("/repository/index")
async def repository_index(request: Request) -> Response:
    pipeline = pipeline_of(request)
    with pipeline.admission.body() as buffer:
        body = await read_body(request, pipeline.settings, buffer)
    if len(body) > _MOST_INDEX:
        raise BodyTooLargeError(f"A request for the index has at most {_MOST_INDEX} bytes")
    asked = parse(body or b"{}")
    ready_only = isinstance(asked, dict) and asked.get("ready") is True
    index = await control.repository_index(pipeline, ready_only)
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
    binary form files stand in `data` as base64. `id`, which the answer repeats, has at most 256 characters.
    """
    pipeline = pipeline_of(request)
    with pipeline.admission.body() as buffer:
        body = await read_body(request, pipeline.settings, buffer)
        length = request.headers.get(HEADER_LENGTH)
        message, asked = await pipeline.with_headers(lambda: to_message(body, length, name, version))
        work = oip.infer(pipeline, message, client_timeout(request))
        response = await while_connected(request, work)
        with pipeline.admission.answer(0):
            content, header_length = await pipeline.in_thread(lambda: from_message(response, asked))
    label = f"{response.model_name}/{response.model_version}"
    request.state.model, request.state.reason = label, "ok"
    headers = {"X-Model": label, "Server-Timing": _timing(response)}
    if oip.NOISE_SIGMA in response.parameters:
        headers[NOISE_HEADER] = response.parameters[oip.NOISE_SIGMA].string_param
    if header_length is None:
        return Answer(content, "application/json", headers, pipeline)
    headers[HEADER_LENGTH.title()] = str(header_length)
    return Answer(content, "application/octet-stream", headers, pipeline)


async def lacking(request: Request) -> None:
    """Extensions of Triton's that are none of ours, in the words of gRPC rather than as a wrong address."""
    raise NotSupportedError(f"{request.url.path[:100]} is not supported")


for _path in (
    "/{kind}sharedmemory/{rest:path}",
    "/logging",
    "/trace/setting",
    "/models/{name}/trace/setting",
):
    router.api_route(_path, methods=["GET", "POST"], include_in_schema=False)(lacking)


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


def _timing(response: Any) -> str:
    stages = {
        name[:-3]: oip.parameter(value) for name, value in response.parameters.items() if name.endswith("_ms")
    }
    return ", ".join(f"{stage};dur={spent:.1f}" for stage, spent in stages.items())
