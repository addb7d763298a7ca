"""gRPC: the Open Inference Protocol, health and reflection; thin over `oip` and the pipeline."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, aclosing
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from service import control, oip, oip_models
from service.admission import Buffer
from service.auth import Tokens
from service.errors import NotSupportedError, QueueFullError, ServiceError
from service.grpc_call import FRAMING, Calls, Context, abort, headers_of, refusal
from service.grpc_wire import parse_infer_request, small
from service.pipeline import Pipeline
from service.record import Recorder
from service.settings import Settings
from service.streams import FrameStream

SERVICE = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
INFERENCES = (f"/{SERVICE}/ModelInfer", f"/{SERVICE}/ModelStreamInfer")
_MOST_WATCHERS = 32
_BESIDE_INFERENCE = _MOST_WATCHERS + 32  # calls that ask about health and models, while the house is full
_CALLS_OF_A_CONNECTION = 128
_OPEN_TO_ALL = (f"/{HEALTH}/", f"/{SERVICE}/ServerLive", f"/{SERVICE}/ServerReady")


async def start_grpc(pipeline: Pipeline, recorder: Recorder) -> grpc.aio.Server:
    """Listen on `grpc_port`; several workers share the port, the kernel deals out connections.

    Raises:
        OSError, RuntimeError: the port cannot be had, or the certificate is not one.
    """
    settings = pipeline.settings
    options = [
        ("grpc.max_receive_message_length", settings.max_body_bytes + FRAMING),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_concurrent_streams", _CALLS_OF_A_CONNECTION),
        # Clients that have gone without a word are found out, and their calls ended.
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.so_reuseport", 1),
    ]
    if settings.grpc_connection_age_s:
        options.append(("grpc.max_connection_age_ms", round(1000 * settings.grpc_connection_age_s)))
    server = grpc.aio.server(
        interceptors=[_Guard(Tokens(settings.tokens), recorder)],
        options=options,
        # Whole messages arrive before a call is ours to refuse, so this bounds what they can take.
        # Twice, as idle streams take calls and no places, which are then there for requests.
        maximum_concurrent_rpcs=2 * settings.max_queue_requests + _BESIDE_INFERENCE,
    )
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Inference(pipeline, recorder), server)
    health_pb2_grpc.add_HealthServicer_to_server(Health(pipeline), server)
    reflection.enable_server_reflection((SERVICE, HEALTH, reflection.SERVICE_NAME), server)
    address = f"[{settings.host}]" if ":" in settings.host else settings.host
    _listen(server, f"{address}:{settings.grpc_port}", settings)
    await server.start()
    return server


def _listen(server: grpc.aio.Server, address: str, settings: Settings) -> None:
    if settings.tls_key and settings.tls_cert:
        pair = (settings.tls_key.read_bytes(), settings.tls_cert.read_bytes())
        server.add_secure_port(address, grpc.ssl_server_credentials([pair]))
    else:
        server.add_insecure_port(address)


class Inference(service_pb2_grpc.GRPCInferenceServiceServicer):
    """inference.GRPCInferenceService; what is not here answers UNIMPLEMENTED."""

    def __init__(self, pipeline: Pipeline, recorder: Recorder) -> None:
        self._pipeline = pipeline
        self._calls = Calls(pipeline, recorder)

    async def ServerLive(self, request: Any, context: Context) -> Any:
        return pb.ServerLiveResponse(live=True)

    async def ServerReady(self, request: Any, context: Context) -> Any:
        return pb.ServerReadyResponse(ready=self._pipeline.admission.open)

    async def ModelReady(self, request: Any, context: Context) -> Any:
        ready = await control.is_ready(self._pipeline, request.name, request.version)
        return pb.ModelReadyResponse(ready=ready)

    async def ServerMetadata(self, request: Any, context: Context) -> Any:
        return oip_models.server_metadata()

    async def ModelMetadata(self, request: Any, context: Context) -> Any:
        async def answer() -> Any:
            return oip_models.model_metadata(
                *await control.describe(self._pipeline, request.name, request.version)
            )

        return await self._calls.answered("ModelMetadata", answer(), context)

    async def ModelConfig(self, request: Any, context: Context) -> Any:
        async def answer() -> Any:
            card, _ = await control.describe(self._pipeline, request.name, request.version)
            return pb.ModelConfigResponse(config=oip_models.model_config(card))

        return await self._calls.answered("ModelConfig", answer(), context)

    async def ModelStatistics(self, request: Any, context: Context) -> Any:
        work = control.statistics(self._pipeline, request.name, request.version)
        return await self._calls.answered("ModelStatistics", work, context)

    async def RepositoryIndex(self, request: Any, context: Context) -> Any:
        work = control.repository_index(self._pipeline, request.ready)
        return await self._calls.answered("RepositoryIndex", work, context)

    async def RepositoryModelLoad(self, request: Any, context: Context) -> Any:
        work = control.load(self._pipeline, request.model_name)
        await self._calls.answered("RepositoryModelLoad", work, context)
        return pb.RepositoryModelLoadResponse()

    async def RepositoryModelUnload(self, request: Any, context: Context) -> Any:
        work = control.unload(self._pipeline, request.model_name)
        await self._calls.answered("RepositoryModelUnload", work, context)
        return pb.RepositoryModelUnloadResponse()

    async def ModelInfer(self, request: Any, context: Context) -> Any:
        try:
            response = await self._calls.infer(request, context)
        except ServiceError as error:
            await abort(context, error)
        self._calls.hold_until_sent(response.ByteSize(), context)
        return response

    async def ModelStreamInfer(self, requests: AsyncIterator[Any], context: Context) -> AsyncIterator[Any]:
        """One answer for each frame, in order; an error is the answer to its frame and ends nothing."""
        admission = self._pipeline.admission
        with ExitStack() as held:
            try:
                waiting = held.enter_context(admission.stream())
            except QueueFullError as error:
                await self._calls.refuse("ModelStreamInfer", error, context)
            frames = _counted(requests, waiting)
            # Left alone, it would go on for a moment after a client has gone, and count on a closed buffer.
            async with aclosing(self._stream(waiting, context).answers(frames)) as answers:
                async for answer in answers:
                    waiting.add(-answer.ByteSize())
                    with admission.answer(answer.ByteSize()):
                        yield answer

    def _stream(self, waiting: Buffer, context: Context) -> FrameStream[Any, Any]:
        """Frames leave `waiting` when they begin; their answers are in it until they are sent."""

        async def work(frame: Any) -> Any:
            waiting.add(-frame.ByteSize())
            try:
                response = await self._calls.infer(frame, context)
                answer = pb.ModelStreamInferResponse(infer_response=response)
            except ServiceError as error:
                answer = refusal(frame, error)
            waiting.add(answer.ByteSize())
            return answer

        def drop(frame: Any) -> Any:
            answer = refusal(frame, self._calls.dropped())
            waiting.add(answer.ByteSize() - frame.ByteSize())
            return answer

        settings = self._pipeline.settings
        return FrameStream(work, drop, _may_drop, settings.stream_window, settings.lanes_per_worker + 1)


class Health(health_pb2_grpc.HealthServicer):
    """grpc.health.v1: `` and the inference service are SERVING while the models are warm."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._watchers = 0

    async def Check(self, request: Any, context: Context) -> Any:
        if request.service not in ("", SERVICE):
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no such service; there is {SERVICE}")
        return self._state()

    async def Watch(self, request: Any, context: Context) -> AsyncIterator[Any]:
        if self._watchers >= _MOST_WATCHERS:
            await abort(context, QueueFullError(f"{_MOST_WATCHERS} watch already; use Check"))
        known = request.service in ("", SERVICE)
        last = None
        self._watchers += 1
        try:
            while True:
                now = self._state() if known else health_pb2.HealthCheckResponse(status="SERVICE_UNKNOWN")
                if now != last:
                    yield now
                last = now
                await asyncio.sleep(0.25)
        finally:
            self._watchers -= 1

    def _state(self) -> Any:
        serving = self._pipeline.admission.open
        return health_pb2.HealthCheckResponse(status="SERVING" if serving else "NOT_SERVING")


class _Guard(grpc.aio.ServerInterceptor):
    """Asks for a token before anything else, except from those who ask for health; bounds what is parsed."""

    def __init__(self, tokens: Tokens, recorder: Recorder) -> None:
        self._tokens = tokens
        self._recorder = recorder

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], call: grpc.HandlerCallDetails
    ) -> Any:
        handler = await continuation(call)
        if handler is None:
            return None
        parse = parse_infer_request if call.method in INFERENCES else small(handler.request_deserializer)
        handler = handler._replace(request_deserializer=parse)
        if call.method.startswith(_OPEN_TO_ALL):
            return handler
        metadata = headers_of(call.invocation_metadata)
        try:
            self._tokens.check(metadata.get("authorization"))
        except ServiceError as error:
            with self._recorder.record("grpc", call.method, metadata) as record:
                record.answered(error.grpc, error.reason, None, counted=call.method in INFERENCES)
            return _refusing(handler, error)
        if _is_lacking(call.method):
            lacking = NotSupportedError(f"{call.method[1:].replace('/', '.')} is not supported")
            with self._recorder.record("grpc", call.method, metadata) as record:
                record.answered(lacking.grpc, lacking.reason, None, counted=False)
            return _refusing(handler, lacking)
        return handler


def _is_lacking(method: str) -> bool:
    """Whether the protocol has it and `Inference` has not: grpcio would log a traceback."""
    service, _, name = method.lstrip("/").partition("/")
    return service == SERVICE and name not in vars(Inference)


def _refusing(handler: Any, error: ServiceError) -> Any:
    """A handler of the same kind that only says no."""

    async def unary(_request: Any, context: Context) -> None:
        await abort(context, error)

    async def stream(_requests: Any, context: Context) -> AsyncIterator[Any]:
        await abort(context, error)
        yield

    kind = "stream" if handler.request_streaming else "unary"
    if handler.response_streaming:
        return getattr(grpc, f"{kind}_stream_rpc_method_handler")(stream)
    return getattr(grpc, f"{kind}_unary_rpc_method_handler")(unary)


async def _counted(frames: AsyncIterator[Any], waiting: Buffer) -> AsyncIterator[Any]:
    async for frame in frames:
        waiting.add(frame.ByteSize())
        yield frame


def _may_drop(frame: Any) -> bool:
    return bool("drop_oldest" in frame.parameters and oip.parameter(frame.parameters["drop_oldest"]))
