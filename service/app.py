"""The BentoML service: wiring, start-up, shutdown; nothing else."""

import asyncio

import bentoml
from starlette.types import Receive, Scope, Send

from service.http import build_app
from service.pipeline import Pipeline
from service.settings import load_settings

settings = load_settings()
http_app = build_app()


async def every_path(scope: Scope, receive: Receive, send: Send) -> None:
    """Not a Starlette app, so that BentoML hands over unknown paths too."""
    await http_app(scope, receive, send)


@bentoml.service(
    name="quietframe",
    workers=settings.workers,
    # The pipeline has a deadline of its own; this one is for clients that never finish sending.
    traffic={"timeout": settings.timeout_s + 30},
    # BentoML labels its series with the raw path, so a scanner could fill the memory; see metrics.py.
    metrics={"enabled": False},
)
@bentoml.asgi_app(every_path, path="/")
class Quietframe:
    @bentoml.on_startup
    async def start(self) -> None:
        http_app.state.pipeline = await asyncio.to_thread(Pipeline, settings)

    @bentoml.on_shutdown
    async def stop(self) -> None:
        await http_app.state.pipeline.close()

    async def __is_ready__(self) -> bool:
        pipeline = http_app.state.pipeline
        return pipeline is not None and pipeline.admission.open
