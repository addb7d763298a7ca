"""The edge of HTTP: a name for each request, its outcome counted once, one line in the access log."""

import json
import logging
import re
import sys
import time
import uuid
from collections.abc import Callable
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import metrics

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
_TRACE_PARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")


class Edge:
    """Wraps the application; its routes say `model` and `reason` in `request.state`.

    While `closing` says so each answer ends its connection, so that none is cut under a request.
    """

    def __init__(self, app: ASGIApp, access_log: bool, closing: Callable[[], bool]) -> None:
        self._app = app
        self._closing = closing
        self._log = access_logger() if access_log else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = time.perf_counter()
        headers = dict(scope["headers"])
        request_id = name_request(headers.get(b"x-request-id", b"").decode("latin-1"))
        state = scope.setdefault("state", {})
        sent: dict[str, int] = {"bytes": 0}

        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start":
                sent["status"] = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id.encode())]
                if self._closing():
                    message["headers"].append((b"connection", b"close"))
                if "reason" in state:
                    metrics.REQUESTS.labels("http", state.get("model", ""), state["reason"]).inc()
            sent["bytes"] += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            if self._log:
                log_access(
                    self._log,
                    protocol="http",
                    request_id=request_id,
                    trace_id=trace_of(headers.get(b"traceparent", b"").decode("latin-1")),
                    method=f"{scope['method']} {scope['path'][:200]}",
                    status=sent.get("status"),
                    reason=state.get("reason"),
                    model=state.get("model"),
                    bytes=sent["bytes"],
                    ms=round(1000 * (time.perf_counter() - begun), 1),
                )


def name_request(given: str) -> str:
    """The client's own id, where it is one that can stand in a header and a log; else a new one."""
    return given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex


def trace_of(parent: str) -> str | None:
    """The trace id of a W3C traceparent."""
    found = _TRACE_PARENT.fullmatch(parent)
    return found[1] if found else None


def access_logger() -> logging.Logger:
    """Writes bare lines to standard output, whatever else is configured."""
    logger = logging.getLogger("quietframe.access")
    if not logger.handlers:
        logger.addHandler(logging.StreamHandler(sys.stdout))
        logger.setLevel(logging.INFO)
        logger.propagate = False
    return logger


def log_access(logger: logging.Logger, **fields: Any) -> None:
    """One JSON object; fields that are None are left out."""
    known = {key: value for key, value in fields.items() if value is not None}
    logger.info(json.dumps({"time": round(time.time(), 3), **known}))
