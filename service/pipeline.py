"""The one path of an image: inspect -> admit -> decode -> tile -> batch -> run -> join -> encode.

Everything that computes runs in threads: codecs in a pool of their own, inference in the batcher's
lanes. The event loop only passes things on.
"""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from model_store import InvalidNameError, ModelCard, ModelNotFoundError, ModelStore
from service import codec, metrics, tiling
from service.admission import Admission
from service.batcher import Batcher, Ran
from service.codec import Header, Picture, Pixels
from service.engine import Engine, Engines
from service.errors import BadParameterError, DeadlineError, UnknownModelError
from service.settings import ImageFormat, Settings
from service.tiling import Tile

T = TypeVar("T")


@dataclass(frozen=True)
class Order:
    """What a client wants done with its image; None means the default."""

    model: str | None = None
    strength: float = 1.0
    format: ImageFormat | None = None
    quality: int | None = None


@dataclass(frozen=True)
class Denoised:
    """The encoded image, what made it, and seconds by stage."""

    data: bytes
    format: ImageFormat
    card: ModelCard
    seconds: dict[str, float]

    @property
    def media_type(self) -> str:
        return codec.MEDIA_TYPES[self.format]


class Pipeline:
    """Loads the default model and serves until `close`; blocks for some seconds when made.

    Raises:
        StoreError, StartError: the default model cannot be loaded.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.store = ModelStore(settings.model_store)
        self._limits = codec.Limits(settings.formats, settings.max_pixels, settings.max_side)
        self._engines = Engines(
            self.store, settings.default_model, settings.device, settings.threads_per_worker
        )
        self.admission = Admission(settings.max_queue_requests, settings.max_queue_pixels)
        self._batcher = Batcher(settings.max_batch_pixels)
        self._codecs = ThreadPoolExecutor(settings.threads_per_worker, thread_name_prefix="codec")

    async def close(self) -> None:
        """Finish what runs, drop what waits."""
        self.admission.open = False
        await self._batcher.close()
        await asyncio.to_thread(self._codecs.shutdown, wait=True, cancel_futures=True)

    async def denoise(self, data: bytes, order: Order) -> Denoised:
        """Clean one encoded image; the caller holds a place of `admission`.

        Raises:
            ServiceError: see the classes; cancelling the call drops the work that has not begun.
        """
        try:
            async with asyncio.timeout(self.settings.timeout_s):
                result = await self._denoise(data, order)
        except TimeoutError:
            limit = self.settings.timeout_s
            raise DeadlineError(f"Not done within {limit:g} s; send a smaller image or try again") from None
        for stage, seconds in result.seconds.items():
            metrics.STAGE_SECONDS.labels(stage).observe(seconds)
        return result

    async def _denoise(self, data: bytes, order: Order) -> Denoised:
        engine = await self._engine(order.model or self.settings.default_model)
        _check_fits(order, engine.card)
        header = await self._in_thread(lambda: codec.inspect(data, self._limits))
        with self.admission.pixels(header.pixels):
            begun = time.perf_counter()
            picture, frame = await self._in_thread(lambda: _decode(data, header, engine.card))
            decoded = time.perf_counter()
            tiles, ran = await self._run(engine, frame, order.strength)
            started, ended = min(each.started for each in ran), max(each.ended for each in ran)
            format = order.format or header.format
            quality = order.quality or self.settings.jpeg_quality
            encoded = await self._in_thread(lambda: _encode(tiles, ran, picture, format, quality))
        seconds = {
            "decode": decoded - begun,
            "queue": started - decoded,
            "infer": ended - started,
            "encode": time.perf_counter() - ended,
        }
        return Denoised(encoded, format, engine.card, seconds)

    async def _engine(self, reference: str) -> Engine:
        try:
            engine = self._engines.get(reference)
            if engine is None:
                engine = await self._in_thread(lambda: self._engines.load(reference))
        except (InvalidNameError, ModelNotFoundError) as error:
            raise UnknownModelError(str(error)) from None
        return engine

    async def _run(self, engine: Engine, frame: Pixels, strength: float) -> tuple[list[Tile], list[Ran]]:
        card = engine.card
        height, width = frame.shape[:2]
        limit = self.settings.max_tile_pixels
        tiles = tiling.plan(height, width, limit, card.tile_overlap, card.alignment)
        tasks = [
            asyncio.create_task(self._batcher.run(engine, tiling.cut(frame, tile), strength))
            for tile in tiles
        ]
        try:
            return tiles, await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._codecs, work)


def _check_fits(order: Order, card: ModelCard) -> None:
    if not 0 <= order.strength <= 1:
        raise BadParameterError(f"strength is 0 to 1, not {order.strength}")
    if card.task != "denoise":
        raise BadParameterError(f"Model {card.label} does {card.task}, not denoise; choose another")
    if order.strength != 1 and not card.takes_strength:
        raise BadParameterError(f"Model {card.label} has no strength; leave the parameter out")


def _decode(data: bytes, header: Header, card: ModelCard) -> tuple[Picture, Pixels]:
    picture = codec.decode(data, header)
    return picture, _for_model(picture.pixels, card)


def _encode(tiles: list[Tile], ran: list[Ran], picture: Picture, format: ImageFormat, quality: int) -> bytes:
    height, width, channels = picture.pixels.shape
    pixels = tiling.join(tiles, [each.pixels for each in ran], height, width)
    if channels == 1 and pixels.shape[2] == 3:
        pixels = _luma(pixels)
    return codec.encode(Picture(pixels, picture.alpha), format, quality)


def _for_model(pixels: Pixels, card: ModelCard) -> Pixels:
    channels = 3 if card.colour == "rgb" else 1
    if pixels.shape[2] == channels:
        return pixels
    return np.repeat(pixels, 3, axis=2) if channels == 3 else _luma(pixels)


def _luma(pixels: Pixels) -> Pixels:
    """ITU-R BT.601 luma of `[H, W, 3]` as `[H, W, 1]`; equal channels stay what they are."""
    wide = pixels.astype(np.uint32)
    luma = (wide[..., :1] * 19595 + wide[..., 1:2] * 38470 + wide[..., 2:] * 7471 + 32768) >> 16
    return luma.astype(np.uint8)
