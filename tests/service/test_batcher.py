"""The batcher with an engine whose runs can be held and seen; the real one is in test_http."""

import asyncio
import threading
from types import SimpleNamespace
from typing import cast

import numpy as np
import numpy.typing as npt
import pytest

from model_store import StoredModel
from service.batcher import Batcher
from service.engine import Engine

Pixels = npt.NDArray[np.uint8]


class HeldEngine:
    """Inverts images; refuses any that begins with a 13; waits for `gate` before each run."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.batches: list[int] = []
        self.lanes: list[int | None] = []
        self.card = SimpleNamespace(label="held/1", scale=1)

    def run(self, images: Pixels, strength: npt.NDArray[np.float32], lane: int | None) -> Pixels:
        self.gate.wait()
        self.batches.append(len(images))
        self.lanes.append(lane)
        if (images[:, 0, 0, 0] == 13).any():
            raise ValueError("unlucky image")
        return 255 - images


def picture(first: int, side: int = 4) -> Pixels:
    pixels = np.full((side, side, 3), 100, np.uint8)
    pixels[0, 0, 0] = first
    return pixels


async def start_and_hold(
    batcher: Batcher, engine: Engine, images: list[Pixels]
) -> list[asyncio.Task[Pixels]]:
    """Begin a first run that holds the lane, then queue `images` behind it."""

    async def run(image: Pixels) -> Pixels:
        return (await batcher.run(engine, image, 1.0)).pixels

    first = asyncio.create_task(run(picture(0)))
    await asyncio.sleep(0.02)
    tasks = [asyncio.create_task(run(image)) for image in images]
    await asyncio.sleep(0.02)
    return [first, *tasks]


def test_waiting_images_of_one_shape_run_together() -> None:
    async def main() -> None:
        held, batcher = HeldEngine(), Batcher(max_batch_pixels=16 * 4)
        images = [picture(n) for n in range(1, 6)] + [picture(9, side=5)]
        tasks = await start_and_hold(batcher, cast(Engine, held), images)
        held.gate.set()
        results = await asyncio.gather(*tasks)
        for result, image in zip(results[1:], images, strict=True):
            assert np.array_equal(result, 255 - image)
        assert held.batches == [1, 4, 1, 1]
        await batcher.close()

    asyncio.run(main())


def test_one_bad_image_fails_alone() -> None:
    async def main() -> None:
        held, batcher = HeldEngine(), Batcher(max_batch_pixels=10_000)
        tasks = await start_and_hold(batcher, cast(Engine, held), [picture(n) for n in (1, 13, 3)])
        held.gate.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(results[2], ValueError)
        for place, first in ((0, 0), (1, 1), (3, 3)):
            assert np.array_equal(cast(Pixels, results[place]), 255 - picture(first))
        await batcher.close()

    asyncio.run(main())


def test_cancelled_work_never_runs() -> None:
    async def main() -> None:
        held, batcher = HeldEngine(), Batcher(max_batch_pixels=0)
        tasks = await start_and_hold(batcher, cast(Engine, held), [picture(1), picture(2)])
        tasks[1].cancel()
        held.gate.set()
        with pytest.raises(asyncio.CancelledError):
            await tasks[1]
        assert np.array_equal(await tasks[2], 255 - picture(2))
        assert held.batches == [1, 1]
        await batcher.close()

    asyncio.run(main())


def test_one_alone_has_all_cores_and_two_have_a_lane_each() -> None:
    async def main() -> None:
        held, batcher = HeldEngine(), Batcher(max_batch_pixels=0, lanes=2)
        held.gate.set()
        await batcher.run(cast(Engine, held), picture(1), 1.0)
        assert held.lanes == [None]
        await asyncio.gather(*(batcher.run(cast(Engine, held), picture(n), 1.0) for n in (1, 2)))
        assert set(held.lanes[1:]) == {0, 1}
        await batcher.close()

    asyncio.run(main())


def test_a_delay_waits_for_a_fuller_batch_and_no_longer() -> None:
    async def main() -> None:
        held, batcher = HeldEngine(), Batcher(max_batch_pixels=16 * 3, max_delay_s=0.05)
        held.gate.set()
        first = asyncio.create_task(batcher.run(cast(Engine, held), picture(1), 1.0))
        await asyncio.sleep(0.01)
        assert not held.batches
        rest = [asyncio.create_task(batcher.run(cast(Engine, held), picture(n), 1.0)) for n in (2, 3, 4)]
        await asyncio.gather(first, *rest)
        assert held.batches == [3, 1]
        await batcher.close()

    asyncio.run(main())


@pytest.mark.parametrize("ends", ["before", "meanwhile"])
def test_a_loop_that_ends_early_does_not_keep_its_lane(ends: str) -> None:
    """Videos have a loop each, and that of one that fails ends while its frames are computed."""
    held, batcher = HeldEngine(), Batcher(max_batch_pixels=0)

    async def give_up() -> None:
        task = asyncio.create_task(batcher.run(cast(Engine, held), picture(1), 1.0))
        await asyncio.sleep(0.02)
        assert not task.done()

    async def go_on() -> None:
        if ends == "before":
            held.gate.set()
            await asyncio.sleep(0.1)
        task = asyncio.create_task(batcher.run(cast(Engine, held), picture(2), 1.0))
        await asyncio.sleep(0.02)
        held.gate.set()
        async with asyncio.timeout(10):
            assert np.array_equal((await task).pixels, 255 - picture(2))
        await batcher.close()

    asyncio.run(give_up())
    asyncio.run(go_on())


def test_no_shape_starves() -> None:
    """A stream of one shape does not keep an image of another waiting: the oldest goes first."""

    async def main() -> None:
        held, batcher = HeldEngine(), Batcher(max_batch_pixels=16 * 2)
        images = [picture(1), picture(2, side=5), *(picture(n) for n in range(3, 8))]
        tasks = await start_and_hold(batcher, cast(Engine, held), images)
        held.gate.set()
        await asyncio.gather(*tasks)
        assert held.batches == [1, 2, 1, 2, 2]
        await batcher.close()

    asyncio.run(main())


@pytest.mark.parametrize("lane", [None, 0, 1])
def test_together_is_bit_equal_to_alone(shipped: StoredModel, lane: int | None) -> None:
    engine = Engine(shipped, "cpu", threads=2, lanes=2)
    images = np.random.default_rng(0).integers(0, 256, (5, 40, 56, 3), np.uint8)
    strengths = np.linspace(0, 1, 5, dtype=np.float32)
    together = engine.run(images, strengths, lane)
    for index in range(5):
        alone = engine.run(images[index : index + 1], strengths[index : index + 1])
        assert np.array_equal(together[index], alone[0])
    assert np.array_equal(together[0], images[0]), "strength 0 changes nothing"
