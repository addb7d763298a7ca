"""What is kept of a request: a count, a line in the access log, a span; the same for HTTP and gRPC."""

import json
import logging
import re
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from opentelemetry.trace import SpanKind, Status, StatusCode, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from service import metrics
from service.tracing import tracer

REQUEST_ID = "x-request-id"
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
_TRACE_CONTEXT = TraceContextTextMapPropagator()


@dataclass
class Record:
    """One request, filled in while it is answered."""

    protocol: str
    method: str
    request_id: str
    status: int | str | None = None
    reason: str | None = None
    model: str | None = None
    bytes: int | None = None

    def answered(
        self, status: int | str, reason: str | None, model: str | None, *, counted: bool = True
    ) -> None:
        """Note the outcome before the client can see it, and count it if this was an inference."""
        self.status, self.reason, self.model = status, reason, model
        if counted and reason:
            metrics.REQUESTS.labels(self.protocol, model or "", reason).inc()


class Recorder:
    """Makes the records of one worker."""

    def __init__(self, access_log: bool) -> None:
        self._log = _logger() if access_log else None
        self._tracer = tracer()

    @contextmanager
    def record(self, protocol: str, method: str, headers: Mapping[str, str]) -> Iterator[Record]:
        """Around the work on one request.

        Args:
            method: the method and path, or the name of the call.
            headers: of the request, or its metadata, names in small letters. `x-request-id` names the
                request where it can stand in a log, `traceparent` (W3C) places it in a trace.
        """
        given = headers.get(REQUEST_ID, "")
        record = Record(protocol, method, given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex)
        begun = time.perf_counter()
        parent = _TRACE_CONTEXT.extract(headers)
        with self._tracer.start_as_current_span(method, parent, SpanKind.SERVER) as span:
            try:
                yield record
            finally:
                span.set_attributes({"quietframe.request_id": record.request_id, "model": record.model or ""})
                if record.reason not in (None, "ok"):
                    span.set_status(Status(StatusCode.ERROR, record.reason))
                if self._log:
                    trace_id = get_current_span(parent).get_span_context().trace_id
                    self._log.info(_line(record, trace_id, time.perf_counter() - begun))


def _line(record: Record, trace_id: int, seconds: float) -> str:
    fields = {
        "time": round(time.time(), 3),
        **vars(record),
        "trace_id": f"{trace_id:032x}" if trace_id else None,
        "ms": round(1000 * seconds, 1),
    }
    return json.dumps({name: value for name, value in fields.items() if value is not None})


def _logger() -> logging.Logger:
    """Writes bare lines to standard output, whatever else is configured."""
    logger = logging.getLogger("quietframe.access")
    if not logger.handlers:
        logger.addHandler(logging.StreamHandler(sys.stdout))
        logger.setLevel(logging.INFO)
        logger.propagate = False
    return logger
