"""Order, window and dropping of a stream of frames, with work that can be held."""

import asyncio
from collections.abc import AsyncIterator

from service.streams import FrameStream


class Held:
    """Work that waits for `gate`, and remembers what it has begun."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.begun: list[int] = []

    async def __call__(self, frame: int) -> str:
        self.begun.append(frame)
        await self.gate.wait()
        await asyncio.sleep(0.002 * (frame % 3))  # some finish before older ones
        return f"clean {frame}"


def stream(held: Held, *, live: bool, window: int = 4, running: int = 2) -> FrameStream[int, str]:
    return FrameStream(held, lambda frame: f"dropped {frame}", lambda _frame: live, window, running)


class Camera:
    """Yields numbers, and counts how many have been taken from it."""

    def __init__(self, frames: int) -> None:
        self.taken = 0
        self.frames = frames

    async def __aiter__(self) -> AsyncIterator[int]:
        for number in range(self.frames):
            self.taken += 1
            yield number
            await asyncio.sleep(0)


async def collect(answers: AsyncIterator[str]) -> list[str]:
    return [answer async for answer in answers]


def test_every_frame_is_answered_in_order_within_the_window() -> None:
    async def main() -> None:
        held, camera = Held(), Camera(20)
        task = asyncio.create_task(collect(stream(held, live=False).answers(aiter(camera))))
        await asyncio.sleep(0.05)
        assert camera.taken == 5  # four held, one in hand: the sender feels it
        assert held.begun == [0, 1]
        held.gate.set()
        assert await task == [f"clean {n}" for n in range(20)]

    asyncio.run(main())


def test_live_video_drops_the_oldest_that_waits() -> None:
    async def main() -> None:
        held, camera = Held(), Camera(10)
        task = asyncio.create_task(collect(stream(held, live=True).answers(aiter(camera))))
        await asyncio.sleep(0.05)
        assert camera.taken == 10
        held.gate.set()
        dropped = [f"dropped {n}" for n in range(2, 8)]
        assert await task == ["clean 0", "clean 1", *dropped, "clean 8", "clean 9"]
        assert held.begun == [0, 1, 8, 9]

    asyncio.run(main())


def test_a_client_that_reads_nothing_cannot_fill_the_memory() -> None:
    async def main() -> None:
        held, camera = Held(), Camera(100_000)
        answers = stream(held, live=True).answers(aiter(camera))
        held.gate.set()
        assert await anext(answers) == "clean 0"
        await asyncio.sleep(0.1)
        assert camera.taken < 100
        await answers.aclose()

    asyncio.run(main())


def test_leaving_early_stops_what_runs() -> None:
    async def main() -> None:
        held = Held()
        task = asyncio.create_task(collect(stream(held, live=False).answers(aiter(Camera(9)))))
        await asyncio.sleep(0.02)
        task.cancel()
        await asyncio.wait([task])
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())
