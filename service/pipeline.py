"""The one path of an image: inspect -> admit -> decode -> tile -> batch -> run -> join -> encode.

Everything that computes runs in threads: codecs in a pool of their own, inference in the batcher's
lanes. The event loop only passes things on. HTTP and gRPC come in here, and nowhere else.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np

from model_store import ModelCard, ModelStore
from service import codec, metrics, tiling
from service.admission import Admission, Place
from service.batcher import Batcher, Ran, step_back
from service.codec import Picture, Pixels
from service.engine import Engine, Samples
from service.engines import Engines
from service.errors import BadImageError, BadParameterError, DeadlineError
from service.fitting import fitted, is_gray, luma
from service.header import Limits, inspect
from service.noise import noise_sigma
from service.order import Denoised, Order
from service.settings import ImageFormat, Settings
from service.tiling import Tile
from service.told import told
from service.tracing import trace_stages

T = TypeVar("T")


@dataclass(frozen=True)
class _Source:
    """An image that has passed the checks of its size: what it will take, and how to get its pixels."""

    pixels: int
    format: ImageFormat | Literal["raw"]
    decode: Callable[[], Picture]


class Pipeline:
    """Loads the default model and that of gray images, serves until `close`; blocks for seconds when made.

    Raises:
        StoreError, StartError: one of these models cannot be loaded.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.store = ModelStore(settings.model_store)
        self._limits = Limits(settings.formats, settings.max_pixels, settings.max_side)
        threads = settings.threads_per_worker
        lanes = settings.lanes_per_worker
        self.engines = Engines(
            self.store,
            settings.default_model,
            settings.device,
            threads,
            lanes,
            settings.precision,
            settings.max_models,
        )
        if settings.gray_model:
            self.engines.load(settings.gray_model)
        self.admission = Admission(
            settings.max_buffered_bytes,
            settings.max_queue_requests,
            settings.max_queue_pixels,
            settings.max_queue_wait_s,
        )
        self._batcher = Batcher(settings.max_batch_pixels, lanes, settings.max_queue_delay_ms / 1000)
        self._codecs = ThreadPoolExecutor(threads, thread_name_prefix="codec", initializer=step_back)
        # Of their own, so that a refusal does not wait behind large images, nor they behind a model.
        self._headers = ThreadPoolExecutor(2, thread_name_prefix="header")
        self._models = ThreadPoolExecutor(1, thread_name_prefix="model")

    async def close(self) -> None:
        """Finish what runs, drop what waits."""
        self.admission.open = False
        await self._batcher.close()
        for pool in (self._codecs, self._headers, self._models):
            await asyncio.to_thread(pool.shutdown, wait=True, cancel_futures=True)

    @asynccontextmanager
    async def request(self, timeout_s: float | None = None) -> AsyncIterator[Place]:
        """A place in the queue and a deadline; `timeout_s` may shorten the server's, not lengthen it.

        Raises:
            QueueFullError, DrainingError: there is no place.
            DeadlineError: the work inside took too long and was dropped.
        """
        limit = min(timeout_s or self.settings.timeout_s, self.settings.timeout_s)
        with self.admission.request() as place:
            try:
                async with asyncio.timeout(limit):
                    yield place
            except TimeoutError:
                raise DeadlineError(
                    f"Not done within {limit:g} s; send a smaller image or try again"
                ) from None

    async def denoise(self, image: bytes | Pixels, order: Order, place: Place | None = None) -> Denoised:
        """Clean or enlarge one encoded image, or uint8 `[H, W, C]` with C = 3 or 1.

        Args:
            place: of the request it belongs to; without one the caller bounds what it asks for.

        Raises:
            ServiceError: see the classes; cancelling the call drops the work that has not begun.
        """
        engine = await self._image_engine(order.model, order)
        source = await self._checked(image, engine.card.scale)
        # What is removed at less than full strength is rounded to whole levels, so it is no measure.
        strengths = [order.strength, 1.0] if order.noise and order.strength < 1 else [order.strength]
        with self._admitted(place, len(strengths) * source.pixels):
            begun = time.perf_counter()
            engine, picture, frame = await self._decoded(source, engine, order)
            card = engine.card
            arrived = time.perf_counter()
            tiles = self._tiles(frame, card)
            runs = await together(self._run(engine, frame, tiles, strength) for strength in strengths)
            format = order.format or source.format
            quality = order.quality or self.settings.jpeg_quality
            pixels, data = await self.in_thread(
                lambda: _encode(tiles, runs[0], picture, card, format, quality)
            )
            sigma = await self.in_thread(lambda: _noise(tiles, runs[-1], frame)) if order.noise else None
        seconds = _measured(card, begun, arrived, [each for ran in runs for each in ran])
        return Denoised(pixels, data, format, card, seconds, sigma)

    async def convert(self, given: bytes | Samples, order: Order, place: Place | None = None) -> Denoised:
        """Run a model of codes or points on one input: an image to its code, a code to its image, or a point.

        Args:
            given: an encoded image, uint8 `[H, W, C]`, or float32 `[k]`, as the model takes it.
            place: of the request it belongs to.

        Returns:
            uint8 `[H, W, C]` (and the file where a format is ordered) or float32 `[k]` as its pixels.

        Raises:
            ServiceError: see the classes; cancelling the call drops the work that has not begun.
        """
        engine = await self.engine(order.model)
        card = engine.card
        order.check(card)
        source = await self._checked(given) if card.takes_image else _numbers(given, card)
        with self._admitted(place, source.pixels):
            begun = time.perf_counter()
            _, sample = await self.in_thread(lambda: _decode(source, card))
            arrived = time.perf_counter()
            ran = await self._batcher.run(engine, sample, order.strength)
        format = order.format or "raw"
        quality = order.quality or self.settings.jpeg_quality
        data = b""
        if card.gives_image and format != "raw":
            data = await self.in_thread(lambda: codec.encode(Picture(ran.pixels), format, quality))
        return Denoised(ran.pixels, data, format, card, _measured(card, begun, arrived, [ran]))

    async def _image_engine(self, reference: str | None, order: Order) -> Engine:
        engine = await self.engine(reference)
        card = engine.card
        if not (card.takes_image and card.gives_image):
            raise BadParameterError(
                f"Model {card.label} does {card.task}, not image to image; ask it over /v2"
            )
        order.check(card)
        return engine

    async def _decoded(self, source: _Source, engine: Engine, order: Order) -> tuple[Engine, Picture, Pixels]:
        """The picture, the frame that the engine takes, and the engine: another where gray has its own."""
        picture, frame = await self.in_thread(lambda: _decode(source, engine.card))
        if order.model or not self.settings.gray_model:
            return engine, picture, frame
        if await self.in_thread(lambda: is_gray(picture.pixels)):
            engine = await self._image_engine(self.settings.gray_model, order)
            frame = await self.in_thread(lambda: fitted(picture.pixels, engine.card))
        return engine, picture, frame

    async def engine(self, reference: str | None) -> Engine:
        """The engine of `name`, `name:version` or (None) the default model, loaded if it is not yet.

        Raises:
            UnknownModelError: there is no such model or version.
            ModelBrokenError: it is there and cannot be loaded.
        """
        reference = reference or self.settings.default_model
        engine = self.engines.use(reference)
        if engine:
            return engine
        with told(reference):
            return await self.with_models(lambda: self.engines.load(reference))

    async def with_models(self, work: Callable[[], T]) -> T:
        """Run what may wait for a model to load, outside the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._models, work)

    async def with_headers(self, work: Callable[[], T]) -> T:
        """Run what only reads messages and headers, outside the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._headers, work)

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Run what computes outside the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._codecs, work)

    async def _checked(self, image: bytes | Samples, scale: int = 1) -> _Source:
        """What is enlarged by `scale` has to keep within the limits when it is."""
        if isinstance(image, bytes):
            header = await self.with_headers(lambda: inspect(image, self._limits))
            self._limits.check(scale * header.width, scale * header.height)
            return _Source(scale**2 * header.pixels, header.format, lambda: codec.decode(image, header))
        height, width = _sides(image)
        self._limits.check(scale * width, scale * height)
        return _Source(scale**2 * height * width, "raw", lambda: Picture(image))

    def _admitted(self, place: Place | None, pixels: int) -> AbstractContextManager[None]:
        if place is None:
            return nullcontext()
        return self.admission.pixels(place, pixels, self._batcher.pixels_per_s)

    def _tiles(self, frame: Pixels, card: ModelCard) -> list[Tile]:
        height, width = frame.shape[:2]
        return tiling.plan(height, width, self.settings.max_tile_pixels, card.tile_overlap, card.alignment)

    async def _run(self, engine: Engine, frame: Pixels, tiles: list[Tile], strength: float) -> list[Ran]:
        if len(tiles) == 1:  # which need not wait for a thread
            return [await self._batcher.run(engine, frame, strength)]
        pieces = await self.in_thread(lambda: tiling.cut(frame, tiles))
        return await together(self._batcher.run(engine, piece, strength) for piece in pieces)


async def together(works: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Run all at once; the first failure is raised as it is (a TaskGroup would wrap it) and ends the rest."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


def _measured(card: ModelCard, begun: float, arrived: float, ran: list[Ran]) -> dict[str, float]:
    """Seconds of each stage up to now, told to metrics and traces."""
    started, ended = min(each.started for each in ran), max(each.ended for each in ran)
    seconds = {
        "decode": arrived - begun,
        "queue": started - arrived,
        "infer": ended - started,
        "encode": time.perf_counter() - ended,
    }
    trace_stages(seconds)
    for stage, spent in seconds.items():
        metrics.STAGE_SECONDS.labels(card.label, stage).observe(spent)
    return seconds


def _noise(tiles: list[Tile], ran: list[Ran], frame: Pixels) -> float:
    return noise_sigma(
        (tiling.part(frame, tile.core), tiling.core(tile, each.pixels))
        for tile, each in zip(tiles, ran, strict=True)
    )


def _sides(image: Samples) -> tuple[int, int]:
    if image.ndim != 3 or image.shape[2] not in (1, 3) or not image.size:
        raise BadImageError(f"Raw pixels have the shape [H, W, 3] or [H, W, 1], not {list(image.shape)}")
    return image.shape[0], image.shape[1]


def _numbers(given: bytes | Samples, card: ModelCard) -> _Source:
    first = card.inputs[0]
    if isinstance(given, bytes) or given.shape != first.shape[1:] or not np.isfinite(given).all():
        raise BadParameterError(f"Model {card.label} takes finite numbers, {first.name} {list(first.shape)}")
    return _Source(given.size, "raw", lambda: Picture(given))


def _decode(source: _Source, card: ModelCard) -> tuple[Picture, Pixels]:
    picture = source.decode()
    if not card.takes_image:
        return picture, picture.pixels
    return picture, fitted(picture.pixels, card)


def _encode(
    tiles: list[Tile],
    ran: list[Ran],
    picture: Picture,
    card: ModelCard,
    format: ImageFormat | Literal["raw"],
    quality: int,
) -> tuple[Pixels, bytes]:
    height, width, channels = picture.pixels.shape
    cleaned = [each.pixels for each in ran]
    if channels == 1 and cleaned[0].shape[2] == 3:
        cleaned = [luma(each) for each in cleaned]  # before they are joined, which then takes a third
    pixels = tiling.join(tiles, cleaned, height, width, card.scale)
    if format == "raw":
        return pixels, b""
    alpha = picture.alpha
    if alpha is not None and card.scale > 1:
        alpha = alpha.repeat(card.scale, axis=0).repeat(card.scale, axis=1)
    return pixels, codec.encode(Picture(pixels, alpha), format, quality)
