"""A camera's stream of frames: ordered answers, few frames in flight, live video may skip."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Generic, TypeVar

Frame = TypeVar("Frame")
Answer = TypeVar("Answer")
_UNREAD = 8  # windows of answers to dropped frames that nobody has read yet


@dataclass(eq=False)
class _Slot(Generic[Frame, Answer]):
    frame: Frame | None  # until it has begun, or has been dropped
    dropped: bool = False
    answer: "asyncio.Future[Answer]" = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class FrameStream(Generic[Frame, Answer]):
    """Runs `work` on frames as they come and yields the answers in the order the frames came.

    At most `window` frames are held, also as answers that nobody has read yet. When they are, reading
    stops, so that the sender feels it; frames that `may_drop` push out the oldest one that has not
    begun instead, and so stay live.

    Args:
        work: makes an answer of a frame; errors are answers too, it does not raise.
        drop: makes the answer of a frame that has been pushed out.
        may_drop: whether a frame may push out older ones.
        window: frames held.
        running: how many of them run at once.
    """

    def __init__(
        self,
        work: Callable[[Frame], Awaitable[Answer]],
        drop: Callable[[Frame], Answer],
        may_drop: Callable[[Frame], bool],
        window: int,
        running: int,
    ) -> None:
        self._work = work
        self._drop = drop
        self._may_drop = may_drop
        self._window = window
        self._running = running
        self._slots: deque[_Slot[Frame, Answer]] = deque()  # not yielded yet, in order
        self._waiting: deque[_Slot[Frame, Answer]] = deque()  # of them, not begun
        self._changed = asyncio.Condition()
        self._ended = False

    async def answers(self, frames: AsyncIterator[Frame]) -> AsyncGenerator[Answer, None]:
        """One answer for each frame; closing the iterator drops what has not been answered."""
        reading = asyncio.create_task(self._read(frames))
        tasks = [reading, *(asyncio.create_task(self._run()) for _ in range(self._running))]
        try:
            while slot := await self._oldest():
                answer = await slot.answer
                async with self._changed:
                    self._slots.popleft()
                    self._changed.notify_all()
                yield answer
            await reading  # raises what reading has raised
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _read(self, frames: AsyncIterator[Frame]) -> None:
        try:
            async for frame in frames:
                async with self._changed:
                    await self._changed.wait_for(partial(self._has_room, frame))
                    slot: _Slot[Frame, Answer] = _Slot(frame)
                    self._slots.append(slot)
                    self._waiting.append(slot)
                    self._changed.notify_all()
        finally:
            async with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _has_room(self, frame: Frame) -> bool:
        if len(self._slots) >= _UNREAD * self._window:
            return False
        if sum(not slot.dropped for slot in self._slots) < self._window:
            return True
        if not self._may_drop(frame) or not self._waiting:
            return False
        oldest = self._waiting.popleft()
        oldest.dropped = True
        oldest.answer.set_result(self._drop(_taken(oldest)))
        return True

    async def _run(self) -> None:
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda: bool(self._waiting))
                slot = self._waiting.popleft()
            try:
                slot.answer.set_result(await self._work(_taken(slot)))
            except Exception as error:  # a bug; it ends the stream rather than letting it hang
                slot.answer.set_exception(error)

    async def _oldest(self) -> "_Slot[Frame, Answer] | None":
        async with self._changed:
            await self._changed.wait_for(lambda: bool(self._slots) or self._ended)
            return self._slots[0] if self._slots else None


def _taken(slot: _Slot[Frame, Answer]) -> Frame:
    """The frame of a slot, which lets go of it."""
    frame, slot.frame = slot.frame, None
    assert frame is not None
    return frame
