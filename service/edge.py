"""The edge of HTTP: every request is recorded, every answer carries the request's name."""

from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.record import REQUEST_ID, Recorder


class Edge:
    """Wraps the application; its routes say `model` and `reason` in `request.state`.

    While `closing` says so each answer ends its connection, so that none is cut under a request.
    """

    def __init__(self, app: ASGIApp, recorder: Recorder, closing: Callable[[], bool]) -> None:
        self._app = app
        self._recorder = recorder
        self._closing = closing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        state = scope.setdefault("state", {})
        path = scope["path"]
        with self._recorder.record("http", f"{scope['method']} {path[:200]}", headers) as record:

            async def watched(message: Message) -> None:
                if message["type"] == "http.response.start":
                    counted = path == "/v1/denoise" or path.endswith("/infer")
                    reason, model = state.get("reason"), state.get("model")
                    record.answered(message["status"], reason, model, counted=counted)
                    added = [(REQUEST_ID.encode(), record.request_id.encode())]
                    if self._closing():
                        added.append((b"connection", b"close"))
                    message["headers"] = [*message.get("headers", ()), *added]
                record.bytes = (record.bytes or 0) + len(message.get("body", b""))
                await send(message)

            await self._app(scope, receive, watched)
