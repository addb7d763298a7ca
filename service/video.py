"""A video file or a camera through the model, frame by frame in order, here or on a server."""

import asyncio
import contextlib
import signal
import tempfile
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import av
import click
import grpc
import tritonclient.grpc
import tritonclient.grpc.aio
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from service import oip
from service.codec import Pixels
from service.errors import ServiceError
from service.pipeline import Order, Pipeline
from service.streams import FrameStream

# A frame comes back as a clean one, or as the reason why it does not.
Cleaner = Callable[[AsyncIterator[Pixels]], AsyncIterator[Pixels | str]]

_WINDOW = 4
_CODECS = {".webm": "libvpx-vp9"}
_OTHER_CODEC = "libx264"
_FRAME_RATE = Fraction(25)  # of a camera that does not tell


def clean_here(pipeline: Pipeline, order: Order) -> Cleaner:
    """Frames through a pipeline in this process."""

    async def work(frame: Pixels) -> Pixels | str:
        try:
            return (await pipeline.denoise(frame, order)).pixels
        except ServiceError as error:
            return error.detail

    def cleaned(frames: AsyncIterator[Pixels]) -> AsyncIterator[Pixels | str]:
        running = pipeline.settings.lanes_per_worker + 1
        stream: FrameStream[Pixels, Pixels | str] = FrameStream(
            work, drop=lambda _: "dropped", may_drop=lambda _: False, window=_WINDOW, running=running
        )
        return stream.answers(frames)

    return cleaned


def clean_there(server: str, model: str, strength: float, token: str | None) -> Cleaner:
    """Frames through the gRPC stream of the service at `host:port`, as raw pixels."""
    name, _, version = model.partition(":")
    headers = {"authorization": f"Bearer {token}"} if token else None

    async def cleaned(frames: AsyncIterator[Pixels]) -> AsyncIterator[Pixels | str]:
        places = asyncio.Semaphore(_WINDOW)

        async def requests() -> AsyncIterator[dict[str, Any]]:
            async for frame in frames:
                await places.acquire()
                tensor = tritonclient.grpc.InferInput(oip.PIXELS, [1, *frame.shape], "UINT8")
                tensor.set_data_from_numpy(frame[None])
                parameters = {"strength": strength}
                yield {
                    "model_name": name,
                    "model_version": version,
                    "inputs": [tensor],
                    "parameters": parameters,
                }

        async with tritonclient.grpc.aio.InferenceServerClient(server) as client:
            try:
                async for result, error in client.stream_infer(requests(), headers=headers):
                    places.release()
                    yield error.message() if error else result.as_numpy(oip.CLEAN_PIXELS)[0]
            except grpc.aio.AioRpcError as error:
                raise click.ClickException(f"{server}: {error.details()}") from None

    return cleaned


def clean_video(source: str, target: Path, cleaner: Cleaner, frames: int | None) -> int:
    """Write `target` from the first video stream of `source`, its audio streams passed through.

    A frame that fails stays as it was. Ctrl-C ends the video there, properly.

    Args:
        source: anything libav opens: a file, a device, a camera's URL.
        frames: stop after so many.

    Returns:
        The number of frames that failed.

    Raises:
        click.ClickException: the source cannot be read or the target not written.
    """
    console = Console(stderr=True)
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]:.2f} frames/s"),
        TimeRemainingColumn(),
    )
    try:
        with (
            av.open(source) as input,
            _draft_of(target) as draft,
            av.open(str(draft), "w") as output,
            Progress(*columns, console=console) as bar,
        ):
            video = _Video(input, output, target.suffix.lower(), frames)
            task = bar.add_task("frames", total=video.expected, rate=0.0)

            def tell() -> None:
                elapsed = bar.tasks[task].elapsed or 1e-9
                bar.update(task, completed=video.written, rate=video.written / elapsed)

            asyncio.run(video.run(cleaner, tell))
    except (av.FFmpegError, OSError, ValueError) as error:
        raise click.ClickException(f"{source} to {target}: {error}") from None
    for reason, count in video.failures.items():
        console.print(f"{count} frames left as they were: {reason}", markup=False)
    console.print(f"{video.written} frames")
    return sum(video.failures.values())


@contextmanager
def _draft_of(target: Path) -> Iterator[Path]:
    """A file that becomes `target` when all went well, and is gone when not."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".quietframe-", dir=target.parent) as folder:
        draft = Path(folder) / target.name
        yield draft
        draft.replace(target)


@dataclass
class _Video:
    """The two ends of the work, and what lies between them."""

    input: Any
    output: Any
    suffix: str
    limit: int | None
    written: int = 0
    failures: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.input.streams.video:
            raise click.ClickException(f"{self.input.name} has no video in it")
        self._video_in = self.input.streams.video[0]
        self._video_out = self.output.add_stream(
            _CODECS.get(self.suffix, _OTHER_CODEC),
            rate=self._video_in.average_rate or _FRAME_RATE,
            options={"crf": "18"},
        )
        width, height = self._video_in.width, self._video_in.height
        self._video_out.width, self._video_out.height = width, height
        self._video_out.pix_fmt = "yuv444p" if width % 2 or height % 2 else "yuv420p"
        self._video_out.time_base = self._video_in.time_base
        self._audio = {
            stream.index: self.output.add_stream_from_template(stream) for stream in self.input.streams.audio
        }
        self._pending: deque[Any] = deque()  # decoded and not yet written
        self._libav = asyncio.Lock()  # containers are not for two threads at once
        self._stopped = False

    async def run(self, cleaner: Cleaner, tell: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(NotImplementedError, RuntimeError):  # elsewhere than in a main thread
            loop.add_signal_handler(signal.SIGINT, self._stop)
        async for outcome in cleaner(self._frames()):
            await self._in_thread(partial(self._write, outcome))
            tell()
        await self._in_thread(lambda: self.output.mux(self._video_out.encode(None)))

    @property
    def expected(self) -> int | None:
        """How many frames there will be, where that is known."""
        known = [count for count in (self.limit, self._video_in.frames) if count]
        return min(known, default=None)

    def _stop(self) -> None:
        self._stopped = True

    async def _frames(self) -> AsyncIterator[Pixels]:
        packets = self.input.demux(self._video_in, *self.input.streams.audio)
        taken = 0
        while not self._stopped and (packet := await self._in_thread(lambda: next(packets, None))):
            if packet.stream.index in self._audio:
                await self._in_thread(partial(self._pass_on, packet))
                continue
            for frame in await self._in_thread(packet.decode):
                if taken == self.limit:
                    return
                taken += 1
                self._pending.append(frame)
                yield await self._in_thread(partial(self._pixels, frame))

    def _pixels(self, frame: Any) -> Pixels:
        """RGB, also where a camera changes its size on the way."""
        pixels: Pixels = frame.to_ndarray(
            format="rgb24", width=self._video_out.width, height=self._video_out.height
        )
        return pixels

    def _pass_on(self, packet: Any) -> None:
        if packet.dts is not None:  # the last one of a stream only says that it has ended
            packet.stream = self._audio[packet.stream.index]
            self.output.mux(packet)

    def _write(self, outcome: Pixels | str) -> None:
        source = self._pending.popleft()
        if isinstance(outcome, str):
            self.failures[outcome] = self.failures.get(outcome, 0) + 1
            outcome = self._pixels(source)
        frame = av.VideoFrame.from_ndarray(outcome, format="rgb24")
        frame.pts, frame.time_base = source.pts, source.time_base
        self.output.mux(self._video_out.encode(frame))
        self.written += 1

    async def _in_thread(self, work: Callable[[], Any]) -> Any:
        async with self._libav:
            return await asyncio.to_thread(work)
