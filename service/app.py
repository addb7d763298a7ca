"""The BentoML service: wiring, start-up, shutdown; nothing else."""

import asyncio

import bentoml
import grpc
from bentoml._internal.server.http import traffic
from starlette.types import Receive, Scope, Send

from service.drain import Drain
from service.edge import Edge
from service.grpc_server import start_grpc
from service.http import build_app
from service.pipeline import Pipeline
from service.record import Recorder
from service.refresh import refresh_for_ever
from service.settings import load_settings
from service.tracing import stop_tracing


class NoTimer(traffic.TimeoutMiddleware):
    """Stands in for BentoML's request timer, which can neither be switched off nor is ever cancelled.

    It keeps some 10 kB of every request, answered or not, until it runs out: under overload that was
    50 MB a minute. Body, work and answer have deadlines of their own: body.py, admission.py, answer.py.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


traffic.TimeoutMiddleware = NoTimer  # type: ignore[misc]

settings = load_settings()
http_app = build_app(settings)
recorder = Recorder(settings.access_log)
edge = Edge(http_app, recorder, closing=lambda: not is_ready())


def is_ready() -> bool:
    pipeline = http_app.state.pipeline
    return pipeline is not None and pipeline.admission.open


async def every_path(scope: Scope, receive: Receive, send: Send) -> None:
    """Not a Starlette app, so that BentoML hands over unknown paths too."""
    await edge(scope, receive, send)


@bentoml.service(
    name="quietframe",
    workers=settings.workers,
    # BentoML labels its series with the raw path, so a scanner could fill the memory; see metrics.py.
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},  # see edge.py
    # Traces are tracing.py's. BentoML's own would make a span of every request, which its timer then holds.
    tracing={"excluded_urls": [".*"]},
)
@bentoml.asgi_app(every_path, path="/")
class Quietframe:
    @bentoml.on_startup
    async def start(self) -> None:
        self.pipeline = await asyncio.to_thread(Pipeline, settings)
        self.refreshing = asyncio.create_task(refresh_for_ever(self.pipeline))
        self.grpc: grpc.aio.Server | None = (
            await start_grpc(self.pipeline, recorder) if settings.grpc_port else None
        )
        http_app.state.pipeline = self.pipeline
        self.drain = Drain(self.pipeline, self.grpc)

    @bentoml.on_shutdown
    async def stop(self) -> None:
        self.refreshing.cancel()
        if self.grpc:
            await self.grpc.stop(grace=1)
        await self.pipeline.close()
        await asyncio.to_thread(stop_tracing)

    async def __is_ready__(self) -> bool:
        return is_ready()
