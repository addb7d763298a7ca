"""What the Open Inference Protocol asks about models, and does to them: shared by REST and gRPC."""

import asyncio
from typing import Any

from model_store import InvalidNameError, ModelCard, parse_reference
from service import oip_models
from service.errors import NotSupportedError, ServiceError
from service.pipeline import Pipeline
from service.told import told, told_of_all


async def is_ready(pipeline: Pipeline, name: str, version: str) -> bool:
    """Whether an infer of this model would be taken; nothing is loaded for it."""
    try:
        reference = oip_models.reference_of(name, version)
        card = await card_of(pipeline, reference)
    except ServiceError:
        return False
    engines = pipeline.engines
    if not engines.get(reference) and await pipeline.with_headers(
        lambda: engines.is_refused(card.name, card.version)
    ):
        return False
    return pipeline.admission.open


async def card_of(pipeline: Pipeline, reference: str) -> ModelCard:
    """The card of the version that serves `name`, or of `name:version`; nothing is loaded for it.

    Raises:
        UnknownModelError, ModelBrokenError: there is none, or its card is broken.
    """
    engine = pipeline.engines.get(reference)
    if engine:
        return engine.card
    with told(reference):
        return await pipeline.with_headers(lambda: pipeline.engines.find(reference).card)


async def all_cards(pipeline: Pipeline) -> list[ModelCard]:
    """The cards of all versions that can be read.

    Raises:
        StoreUnreadableError: the store cannot be read.
    """
    with told_of_all():
        return await pipeline.with_headers(pipeline.store.readable_cards)


async def repository_index(pipeline: Pipeline, ready_only: bool) -> Any:
    """Every version that can be read, and whether it is loaded; `ready_only` leaves out those that are not.

    Raises:
        StoreUnreadableError: the store cannot be read.
    """
    with told_of_all():
        return await pipeline.with_headers(lambda: oip_models.repository_index(pipeline, ready_only))


async def describe(pipeline: Pipeline, name: str, version: str) -> tuple[ModelCard, list[int]]:
    """The card of a model and its published versions.

    Raises:
        UnknownModelError, ModelBrokenError: there is none, or its card is broken.
    """
    card = await card_of(pipeline, oip_models.reference_of(name, version))
    with told(name):
        return card, await pipeline.with_headers(lambda: pipeline.store.versions(name))


async def statistics(pipeline: Pipeline, name: str, version: str) -> Any:
    """Of one model, or of all that are loaded where `name` is empty."""
    if name:
        cards = [await card_of(pipeline, oip_models.reference_of(name, version))]
    else:
        cards = [engine.card for engine in pipeline.engines.loaded()]
    return await asyncio.to_thread(oip_models.model_statistics, cards)


async def load(pipeline: Pipeline, name: str) -> None:
    """Load a model, or its newest version; the one that serves goes on where the new one is broken.

    Raises:
        NotSupportedError: clients may not (model_control).
        UnknownModelError, ModelBrokenError: there is none, or it cannot be loaded.
    """
    _check_allowed(pipeline)
    with told(name):
        await pipeline.with_models(lambda: pipeline.engines.reload(_bare(name)))


async def unload(pipeline: Pipeline, name: str) -> None:
    """Refuse a model from now on, until it is loaded again.

    Raises:
        NotSupportedError: clients may not (model_control).
        UnknownModelError, ModelBrokenError: there is none, or whether there is cannot be read.
    """
    _check_allowed(pipeline)
    with told(name):
        await pipeline.with_models(lambda: pipeline.engines.unload(_bare(name)))


def _check_allowed(pipeline: Pipeline) -> None:
    if not pipeline.settings.model_control:
        raise NotSupportedError("Loading and unloading is switched off; set QUIETFRAME_MODEL_CONTROL=true")


def _bare(name: str) -> str:
    bare, version = parse_reference(name)
    if version is not None:
        raise InvalidNameError(f"{name!r}: models are loaded by name, without a version")
    return bare
