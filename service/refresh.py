"""Comes to new model versions by itself, where `poll_models_s` says so."""

import asyncio
import logging

from service.pipeline import Pipeline

log = logging.getLogger(__name__)


async def refresh_for_ever(pipeline: Pipeline) -> None:
    """Look for new versions every `poll_models_s` seconds, in a thread; nothing ends it but cancelling."""
    period = pipeline.settings.poll_models_s
    while period:
        await asyncio.sleep(period)
        try:
            await asyncio.to_thread(pipeline.engines.refresh)
        except Exception:
            log.exception("looking for new models failed; trying again in %g s", period)
