"""HTTP routes: they translate requests into orders for the pipeline, and its answers back."""

import asyncio
import logging
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Query, Request, Response, Security
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse
from fastapi.security import HTTPBearer
from fastapi_offline import FastAPIOffline
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from model_store import ModelCard
from service import codec, control, http_v2, metrics
from service.accept import choose_format
from service.answer import NOISE_HEADER, Answer, pipeline_of
from service.auth import Tokens
from service.body import FIELD, client_timeout, read_image, while_connected
from service.errors import BadParameterError, ServiceError
from service.header import sniff
from service.order import Denoised, Noise, Order
from service.pipeline import Pipeline
from service.settings import ImageFormat, Settings

log = logging.getLogger(__name__)

PROBLEM = "application/problem+json"
_SIGMA_IS = "Estimated standard deviation of the input's noise, in levels of 255; with `noise=auto` only"
DESCRIPTION = "Takes noisy images, gives back clean ones."


class DenoiseQuery(BaseModel):
    """Query of /v1/denoise; anything else in the query is an error."""

    model_config = ConfigDict(extra="forbid")

    model: str | None = Field(
        None, description="`name` or `name:version`; if absent the default model, or that of gray images"
    )
    strength: float = Field(1.0, ge=0, le=1, description="share of the estimated noise to remove")
    format: ImageFormat | None = Field(
        None, description="output format; else by Accept, else that of the input"
    )
    quality: int | None = Field(None, ge=1, le=100, description="of JPEG and WebP output")
    noise: Noise | None = Field(
        None, description=f"`auto` measures the noise: the answer has `{NOISE_HEADER}`"
    )


class Models(BaseModel):
    models: list[ModelCard]


def build_app(settings: Settings) -> FastAPI:
    """The application; `app.state.pipeline` is set by whoever starts it."""
    # /docs comes from a package, because a camera network has no way to a CDN.
    app = FastAPIOffline(
        title="quietframe", description=DESCRIPTION, redoc_url=None, static_url="/docs/static"
    )
    app.state.pipeline = None
    app.state.tokens = Tokens(settings.tokens)
    guarded: Any = [Depends(authorized)]
    if settings.tokens:  # so that /docs asks for one
        guarded.append(Security(HTTPBearer(auto_error=False)))
    app.add_api_route(
        "/v1/denoise",
        denoise,
        methods=["POST"],
        response_class=Response,
        responses=_answers(),
        openapi_extra=_request_body(),
        summary="Denoise one image",
        dependencies=guarded,
    )
    app.add_api_route(
        "/v1/models", list_models, response_model=Models, summary="Every model's card", dependencies=guarded
    )
    app.add_api_route(
        "/v1/models/{name}", show_model, response_model=ModelCard, summary="One card", dependencies=guarded
    )
    app.include_router(http_v2.health)
    app.include_router(http_v2.router, dependencies=guarded)
    app.add_api_route("/metrics", expose_metrics, include_in_schema=False, dependencies=guarded)
    app.add_api_route("/", index, include_in_schema=False)
    app.add_exception_handler(ServiceError, _answer_service_error)
    app.add_exception_handler(RequestValidationError, _answer_invalid)
    app.add_exception_handler(HTTPException, _answer_http_error)
    app.add_exception_handler(Exception, _answer_bug)
    return app


async def authorized(request: Request) -> None:
    tokens: Tokens = request.app.state.tokens
    tokens.check(request.headers.get("authorization"))


async def denoise(request: Request, query: Annotated[DenoiseQuery, Query()]) -> Response:
    """Send the bytes of an image file as the body, or as the multipart field `image`.

    JPEG, PNG, WebP, BMP and TIFF. EXIF orientation is applied and metadata dropped, colours come
    back as sRGB, alpha is kept where the output format has it and else flattened on white. The
    header `X-Request-Timeout` (seconds) shortens the time the service may take.
    """
    pipeline = pipeline_of(request)
    with pipeline.admission.body() as buffer:
        data = await read_image(request, pipeline.settings, buffer)
        same = sniff(data)
        accept = ", ".join(request.headers.getlist("accept")) or None
        format = query.format or (choose_format(accept, same) if same else None)
        order = Order(query.model, query.strength, format, query.quality, query.noise)
        work = _denoised(pipeline, data, order, client_timeout(request))
        done = await while_connected(request, work)
    request.state.model, request.state.reason = done.card.label, "ok"
    return Answer(done.data, done.media_type, _headers(done), pipeline)


async def _denoised(pipeline: Pipeline, data: bytes, order: Order, timeout_s: float | None) -> Denoised:
    async with pipeline.request(timeout_s) as place:
        return await pipeline.denoise(data, order, place)


async def list_models(request: Request) -> Models:
    return Models(models=await control.all_cards(pipeline_of(request)))


async def show_model(request: Request, name: str) -> ModelCard:
    """The version of `name` that serves, or `name:version`."""
    return await control.card_of(pipeline_of(request), name)


async def expose_metrics() -> Response:
    return Response(await asyncio.to_thread(metrics.exposition), media_type="text/plain; version=0.0.4")


async def index() -> RedirectResponse:
    return RedirectResponse("/docs")


def _headers(done: Denoised) -> dict[str, str]:
    timing = ", ".join(f"{stage};dur={1000 * seconds:.1f}" for stage, seconds in done.seconds.items())
    measured = {} if done.noise_sigma is None else {NOISE_HEADER: f"{done.noise_sigma:.1f}"}
    return {"Server-Timing": timing, "X-Model": done.card.label, "Vary": "Accept", **measured}


def _problem(status: int, reason: str, title: str, detail: str, headers: Any = None) -> JSONResponse:
    """RFC 9457."""
    body = {"type": f"urn:quietframe:{reason}", "title": title, "status": status, "detail": detail}
    return JSONResponse(body, status, headers, PROBLEM)


async def _answer_service_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ServiceError)
    request.state.reason = error.reason
    if request.url.path.startswith("/v2"):
        return http_v2.answer_error(error)
    return _problem(error.status, error.reason, error.title, error.detail, error.headers)


async def _answer_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    wrong = "; ".join(f"{each['loc'][-1]}: {_plain(each)}" for each in error.errors())
    return await _answer_service_error(request, BadParameterError(wrong))


def _plain(problem: Any) -> str:
    if problem["type"] == "extra_forbidden":
        return f"no such parameter; there are {', '.join(DenoiseQuery.model_fields)}"
    return str(problem["msg"])


async def _answer_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    reason = status.phrase.lower().replace(" ", "-")
    if request.url.path.startswith("/v2"):
        return JSONResponse({"error": f"{status.phrase}: {request.url.path}"}, status, error.headers)
    return _problem(status, reason, status.phrase, f"{request.method} {request.url.path}", error.headers)


async def _answer_bug(request: Request, error: Exception) -> Response:
    log.error("unexpected error on %s %s", request.method, request.url.path, exc_info=error)
    return await _answer_service_error(request, ServiceError())


def _request_body() -> dict[str, Any]:
    file = {"schema": {"type": "string", "format": "binary"}}
    form = {"type": "object", "required": [FIELD], "properties": {FIELD: file["schema"]}}
    raw = dict.fromkeys(codec.MEDIA_TYPES.values(), file)
    return {"requestBody": {"required": True, "content": {**raw, "multipart/form-data": {"schema": form}}}}


def _answers() -> dict[int | str, dict[str, Any]]:
    schema = {"type": "string", "format": "binary"}
    errors = (401, 404, 406, 413, 415, 422, 429, 503, 504)
    problem = {PROBLEM: {"schema": {"type": "object"}}}
    return {
        200: {
            "description": "The clean image",
            "headers": {NOISE_HEADER: {"description": _SIGMA_IS, "schema": {"type": "number"}}},
            "content": {media_type: {"schema": schema} for media_type in codec.MEDIA_TYPES.values()},
        },
        **{status: {"description": HTTPStatus(status).phrase, "content": problem} for status in errors},
    }
