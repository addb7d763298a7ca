"""One call over gRPC: its inference, its record, its errors in the words of the protocol."""

import asyncio
import logging
from collections.abc import Awaitable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, TypeAlias

import grpc
from tritonclient.grpc import service_pb2 as pb

from service import metrics, oip
from service.errors import ClientGoneError, DeadlineError, FrameDroppedError, ServiceError
from service.pipeline import Pipeline
from service.record import Recorder

log = logging.getLogger(__name__)

FRAMING = 64 * 2**10  # names, shapes and parameters around the bytes of an image
Context: TypeAlias = Any  # grpc.aio.ServicerContext; grpcio has no types


class Calls:
    """The inferences of one worker."""

    def __init__(self, pipeline: Pipeline, recorder: Recorder) -> None:
        self._pipeline = pipeline
        self._recorder = recorder

    async def infer(self, request: Any, context: Context) -> Any:
        """Answer a ModelInferRequest by the client's deadline or the server's, the sooner.

        Raises:
            ServiceError: whatever went wrong, recorded already.
        """
        headers = headers_of(context.invocation_metadata())
        with self._recorder.record("grpc", "ModelInfer", headers) as record:
            try:
                response = await self._infer(request, context.time_remaining())
            except asyncio.CancelledError:
                left = context.time_remaining()
                error: ServiceError = DeadlineError() if left is not None and left <= 0 else ClientGoneError()
                record.answered(error.grpc, error.reason, None)
                raise
            except ServiceError as error:
                record.answered(error.grpc, error.reason, None)
                raise
            record.bytes = sum(map(len, response.raw_output_contents))
            record.answered("OK", "ok", f"{response.model_name}/{response.model_version}")
            return response

    async def answered(self, name: str, work: Awaitable[Any], context: Context) -> Any:
        """The result of `work`, or the status of its error, recorded; for what is no inference."""
        with self._recorder.record("grpc", name, headers_of(context.invocation_metadata())) as record:
            try:
                with _bugs_kept(name):
                    result = await work
            except ServiceError as error:
                record.answered(error.grpc, error.reason, None, counted=False)
                await abort(context, error)
            record.answered("OK", None, None, counted=False)
            return result

    async def refuse(self, name: str, error: ServiceError, context: Context) -> None:
        """End an inference that has not begun with the status of an error, recorded."""
        with self._recorder.record("grpc", name, headers_of(context.invocation_metadata())) as record:
            record.answered(error.grpc, error.reason, None)
        await abort(context, error)

    def hold_until_sent(self, size: int, context: Context) -> None:
        """Count an answer until the call is over, so that a drain waits for it."""
        held = ExitStack()
        held.enter_context(self._pipeline.admission.answer(size))
        context.add_done_callback(lambda _: held.close())

    def dropped(self) -> ServiceError:
        """The error of a frame that a newer one has pushed out, counted."""
        error = FrameDroppedError()
        metrics.REQUESTS.labels("grpc", "", error.reason).inc()
        return error

    async def _infer(self, request: Any, timeout_s: float | None) -> Any:
        with (
            _bugs_kept(f"an infer of {request.model_name[:64]}"),
            self._pipeline.admission.body() as buffer,
        ):
            buffer.grow(request.ByteSize())
            return await oip.infer(self._pipeline, request, timeout_s)


@contextmanager
def _bugs_kept(doing: str) -> Iterator[None]:
    """What nobody expected goes to the log; clients are not told, as its text may name files."""
    try:
        yield
    except ServiceError:
        raise
    except Exception:
        log.exception("unexpected error in %s", doing)
        raise ServiceError from None


def headers_of(metadata: Iterable[tuple[str, str | bytes]] | None) -> dict[str, str]:
    """Call metadata that is text."""
    return {name: value for name, value in metadata or () if isinstance(value, str)}


async def abort(context: Context, error: ServiceError) -> None:
    """End the call with the status, the text and, where there is one, the `retry-after` of an error."""
    metadata = tuple((name.lower(), value) for name, value in error.headers.items() if name == "Retry-After")
    await context.abort(grpc.StatusCode[error.grpc], error.detail, metadata)


def refusal(frame: Any, error: ServiceError) -> Any:
    """The answer to one frame of a stream that goes on; what it repeats of an unread frame is cut short."""
    answer = pb.ModelStreamInferResponse(error_message=f"{error.grpc}: {error.detail}")
    answer.infer_response.id = frame.id[: oip.MOST_ID]
    answer.infer_response.model_name = frame.model_name[: oip.MOST_ID]
    return answer
