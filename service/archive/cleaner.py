"""What runs on each engine of the cluster: the same pipeline as that of `quietframe denoise` and `video`."""

import asyncio
import json
import logging
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal

import click
import numpy as np

from model_store import StoreError
from service.archive.folders import Folder, in_one_line
from service.archive.plan import Terms, is_video, target_of
from service.codec import Pixels
from service.errors import BadImageError, ServiceError, StartError
from service.order import Order
from service.pipeline import Pipeline
from service.settings import ImageFormat, Settings
from service.suffixes import format_of

log = logging.getLogger(__name__)
_TELL_S = 1.0
_BYTES_A_PIXEL = 8  # of the largest file that can be an image: 16 bits, four channels, not compressed

Row = dict[str, str]


@dataclass(frozen=True)
class Work:
    """What an engine must know; it travels to other machines, so there are no secrets in it."""

    source: str
    dest: str
    run: str
    terms: Terms
    settings: Settings


@dataclass
class Told:
    """What an engine tells of a share, about each second: how each of `errors` ended, "" is well.

    `frames` counts images and frames of videos, `seconds` the time since the share began. `trouble` is
    what keeps the engine from any work.
    """

    errors: dict[str, str] = field(default_factory=dict)
    frames: int = 0
    seconds: float = 0.0
    trouble: str = ""


class Cleaner:
    """An engine in a process of its own; Ray makes it, and calls it with one share after the other."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._source, self._dest = Folder(work.source), Folder(work.dest, work.run)
        self._runner = asyncio.Runner()
        self._trouble = ""
        try:
            self._pipeline = Pipeline(work.settings)
            self._runner.run(self._check())
        except (StartError, StoreError, ServiceError) as error:
            self._trouble = str(error)

    def __call__(self, row: Row) -> Iterator[Row]:
        """Clean a share: `names` is a JSON list, `again` says whether some may have been done before.

        In JSON, as Arrow takes no strings that are not Unicode, and file names need not be.
        """
        begun = time.monotonic()
        for told in self._clean(json.loads(row["names"]), bool(row["again"])):
            told.seconds = time.monotonic() - begun
            yield {"told": json.dumps(asdict(told))}

    def close(self) -> None:
        """Ray ends the process instead."""
        self._runner.close()

    def _clean(self, names: list[str], again: bool) -> Iterator[Told]:
        if self._trouble:
            yield Told(trouble=self._trouble)
            return
        images = [name for name in names if not is_video(name)]
        if images:
            yield from self._images(images, again)
        for name in names:
            if is_video(name):
                yield from self._video(name, again)

    async def _check(self) -> None:
        """One small frame shows that the model is that of the other engines, runs, and takes the order."""
        card = (await self._pipeline.engine(None)).card
        if card.sha256 != self._work.terms.sha256:
            raise StartError(f"{card.label} differs between machines; copy one model store to all of them")
        await self._pipeline.denoise(np.zeros((16, 16, 3), np.uint8), self._order("raw"))

    def _images(self, names: list[str], again: bool) -> Iterator[Told]:
        waiting = self._runner.run(self._begin(names, again))
        while waiting:
            done, waiting = self._runner.run(asyncio.wait(waiting, timeout=_TELL_S))
            errors = dict(task.result() for task in done)
            yield Told(errors, frames=sum(not error for error in errors.values()))

    async def _begin(self, names: list[str], again: bool) -> "set[asyncio.Task[tuple[str, str]]]":
        settings = self._pipeline.settings
        # As in files.py: enough that decoding goes on beside inference, and no more in memory.
        most = settings.max_queue_pixels // settings.max_pixels
        places = asyncio.Semaphore(max(1, min(settings.threads_per_worker + 1, most)))
        return {asyncio.create_task(self._image(name, again, places)) for name in names}

    async def _image(self, name: str, again: bool, places: asyncio.Semaphore) -> tuple[str, str]:
        target = target_of(name, self._work.terms.format)
        async with places:
            try:
                if not (again and await asyncio.to_thread(self._dest.exists, target)):
                    content = await asyncio.to_thread(self._read, name)
                    clean = await self._pipeline.denoise(
                        content, self._order(format_of(PurePosixPath(target)))
                    )
                    await asyncio.to_thread(self._dest.write, target, clean.data)
            except Exception as error:  # one bad file must not stop the rest
                return name, _told(name, error)
        return name, ""

    def _read(self, name: str) -> bytes:
        limit = _BYTES_A_PIXEL * self._pipeline.settings.max_pixels
        content = self._source.read(name, limit + 1)
        if len(content) > limit:
            raise BadImageError(f"over {limit} bytes, so not an image of the pixels that are allowed")
        return content

    def _video(self, name: str, again: bool) -> Iterator[Told]:
        tally = _Tally()
        with ThreadPoolExecutor(1) as pool:
            cleaning = pool.submit(self._clean_video, name, again, tally)
            seen = 0
            while wait([cleaning], timeout=_TELL_S).not_done:
                now = tally.frames
                yield Told(frames=now - seen)
                seen = now
            yield Told({name: cleaning.result()}, frames=tally.frames - seen)

    def _clean_video(self, name: str, again: bool, tally: "_Tally") -> str:
        try:
            if again and self._dest.exists(name):
                return ""
            with tempfile.TemporaryDirectory(dir=self._dest.scratch) as folder:
                return self._transcode(name, Path(folder), tally)
        except Exception as error:  # as in _image
            return _told(name, error)

    def _transcode(self, name: str, scratch: Path, tally: "_Tally") -> str:
        from service.frame_cleaners import clean_here
        from service.video import clean_video

        inner = clean_here(self._pipeline, self._order("raw"))

        async def counted(frames: AsyncIterator[Pixels]) -> AsyncIterator[Pixels | str]:
            async for outcome in inner(frames):
                tally.count(outcome)
                yield outcome

        clean = scratch / PurePosixPath(name).name
        source = self._source.path_of(name, scratch)
        if not clean_video(str(source), clean, counted, None):
            return tally.reason or "damaged frames, or an early end; `quietframe video` keeps what there is"
        self._dest.put(name, clean)
        return ""

    def _order(self, format: ImageFormat | Literal["raw"] | None) -> Order:
        return Order(None, self._work.terms.strength, format, self._work.terms.quality)


@dataclass
class _Tally:
    frames: int = 0
    reason: str = ""

    def count(self, outcome: Pixels | str) -> None:
        self.frames += 1
        if isinstance(outcome, str):
            self.reason = outcome


def _told(name: str, error: Exception) -> str:
    """What goes into the report; a bug also goes into the log, with its trace."""
    if isinstance(error, click.ClickException):
        return error.message
    if not isinstance(error, ServiceError | OSError):
        log.error("a bug met %s", name, exc_info=error)
        return f"{type(error).__name__}: {in_one_line(error)}"
    return in_one_line(error)
