"""A video file or a camera through the model, frame by frame in order, here or on a server."""

import asyncio
import contextlib
import signal
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import av
import click
from av.format import Flags
from av.video.reformatter import ColorRange, Colorspace, Interpolation
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from service.clock import Clock
from service.codec import Pixels
from service.draft import draft_of
from service.frame_cleaners import Cleaner
from service.orientation import Orientation
from service.sound import Sound

_CODECS = {".webm": "libvpx-vp9"}
_OTHER_CODEC = "libx264"
_FRAME_RATE = Fraction(25)  # of a camera that does not tell
_SQUARE = Fraction(1)  # pixels are, where nothing else is said
# Without these the conversion to RGB truncates, and every frame is up to a level darker.
_EXACT = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
OPEN_S = 30  # cameras that sleep, or wait for their next key frame, take a while
STALL_S = 15  # between two packets; HLS brings them in pieces of up to ten seconds
GIVE_UP = 500  # damaged packets in a row; a camera joined between two key frames sends up to some hundred


def clean_video(source: str, target: Path, cleaner: Cleaner, frames: int | None) -> bool:
    """Write `target` from the first video stream of `source`, its audio streams with it (see `Sound`).

    Frames are turned upright, as their display matrix or EXIF says. A frame that fails stays as it was, one
    that is damaged in the source is left out. Where the source, the server or the user (Ctrl-C) ends it
    early, the video ends there, properly. A camera that keeps its connection and sends nothing for `STALL_S`
    seconds has ended, or nobody could end it: libav does not hear Ctrl-C while it waits.

    Args:
        source: anything libav opens: a file, a device, a camera's URL.
        frames: stop after so many.

    Returns:
        Whether every frame came and was cleaned; the rest has been said.

    Raises:
        click.UsageError: the target is the source, which would be lost.
        click.ClickException: the source cannot be read, takes over `OPEN_S` seconds to begin or has no whole
            frame, or the target cannot be written.
    """
    _refuse_overwriting(source, target)
    console = Console(stderr=True)
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]:.2f} frames/s"),
        TimeRemainingColumn(),
    )
    try:
        with (
            av.open(source, timeout=(OPEN_S, STALL_S)) as input,
            draft_of(target) as draft,
            av.open(str(draft), "w") as output,
            Progress(*columns, console=console) as bar,
        ):
            video = _Video(input, output, target.suffix.lower(), frames)
            task = bar.add_task("frames", total=video.expected, rate=0.0)

            def tell() -> None:
                elapsed = bar.tasks[task].elapsed or 1e-9
                bar.update(task, completed=video.written, rate=video.written / elapsed)

            asyncio.run(video.run(cleaner, tell))
    except av.ExitError:
        raise click.ClickException(f"{source} sends no video: given up after {OPEN_S} s") from None
    except (av.FFmpegError, OSError, ValueError) as error:
        raise click.ClickException(f"{source} to {target}: {error}") from None
    for reason, count in video.failures.items():
        console.print(f"{count} frames left as they were: {reason}", markup=False)
    if video.left_out:
        console.print(f"{video.left_out} frames left out: damaged in the source")
    if video.broken_off:
        console.print(f"ends early: {video.broken_off}", markup=False)
    console.print(f"{video.written} frames")
    return not (video.failures or video.left_out or video.broken_off)


def _refuse_overwriting(source: str, target: Path) -> None:
    with contextlib.suppress(OSError):  # of what is no file, as a camera's URL, or not there yet
        if target.samefile(source.removeprefix("file:")):
            raise click.UsageError(f"{target} is the input; choose another TARGET")


@dataclass
class _Video:
    """The two ends of the work, and what lies between them."""

    input: Any
    output: Any
    suffix: str
    limit: int | None
    written: int = 0
    failures: dict[str, int] = field(default_factory=dict)
    left_out: int = 0
    broken_off: str = ""

    def __post_init__(self) -> None:
        if not self.input.streams.video:
            raise click.ClickException(f"{self.input.name} has no video in it")
        self._video_in = self.input.streams.video[0]
        rate = self._video_in.average_rate or _FRAME_RATE
        self._video_out = self.output.add_stream(
            _CODECS.get(self.suffix, _OTHER_CODEC), rate=rate, options={"crf": "18"}
        )
        any_rate = self.output.format.flags & Flags.variable_fps.value
        self._tick = self._video_in.time_base if any_rate else 1 / rate
        self._encoder = self._video_out.codec_context
        self._encoder.time_base = self._video_out.time_base = self._tick
        self._ticks_a_frame = max(1, round(1 / (rate * self._tick)))
        self._last_pts: int | None = None
        self._audio = {stream.index: Sound(self.output, stream) for stream in self.input.streams.audio}
        self._clock = Clock()
        self._begun = False
        self._early: list[Any] = []  # sound that came before the first frame
        self._damaged = 0  # packets since the last frame
        self._pending: deque[Any] = deque()  # decoded and not yet written
        self._libav = asyncio.Lock()  # containers are not for two threads at once
        self._stopped = False

    async def run(self, cleaner: Cleaner, tell: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(NotImplementedError, RuntimeError):  # elsewhere than in a main thread
            for each in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(each, self._stop)
        try:
            async for outcome in cleaner(self._frames()):
                await self._in_thread(partial(self._write, outcome))
                tell()
        except ConnectionError as error:
            if not self.written:
                raise
            self.broken_off = str(error)
        if not self.written:
            raise ValueError(self.broken_off or "no frame of it can be read")
        await self._in_thread(self._end)

    def _end(self) -> None:
        self.output.mux(self._video_out.encode(None))
        for sound in self._audio.values():
            self.output.mux(sound.end())

    @property
    def expected(self) -> int | None:
        """How many frames there will be, where that is known."""
        known = [count for count in (self.limit, self._video_in.frames) if count]
        return min(known, default=None)

    def _stop(self) -> None:
        self._stopped = True

    async def _frames(self) -> AsyncIterator[Pixels]:
        taken = 0
        async for frame in self._decoded():
            if taken == self.limit:
                return
            taken += 1
            self._pending.append(frame)
            yield await self._in_thread(partial(self._pixels, frame))

    async def _decoded(self) -> AsyncIterator[Any]:
        packets = self.input.demux(self._video_in, *self.input.streams.audio)
        while not self._stopped:
            try:
                packet = await self._in_thread(lambda: next(packets, None))
                if packet is None:
                    return
                frames = await self._in_thread(partial(self._take, packet))
            except av.ExitError:
                self.broken_off = f"the source sent nothing for {STALL_S} s"
                return
            except av.FFmpegError as error:
                self.broken_off = str(error)
                return
            for frame in frames:
                yield frame

    def _take(self, packet: Any) -> list[Any]:
        """The frames in a packet; sound is passed on."""
        self._clock.set_forward(packet)
        sound = self._audio.get(packet.stream.index)
        if sound:
            self._pass_on(sound.packets(packet))
            return []
        frames = self._decode(packet)
        if frames and not self._begun:
            self._begin(frames[0])
        return frames

    def _decode(self, packet: Any) -> list[Any]:
        """None of a damaged packet, so that one does not end a recording, unless nothing else comes."""
        try:
            frames: list[Any] = packet.decode()
        except av.InvalidDataError:
            self.left_out += 1
            self._damaged += 1
            if self._damaged == GIVE_UP:
                raise
            return []
        if frames:
            self._damaged = 0
        return frames

    def _begin(self, frame: Any) -> None:
        """Settle size and colours: only frames tell PyAV how a video is turned, and a header goes first.

        Colours keep their meaning, but in limited range, which every player knows. PyAV cannot tell the
        WebM writer that pixels are not square.
        """
        width, height, aspect = frame.width, frame.height, self._video_in.sample_aspect_ratio or _SQUARE
        if Orientation.of(frame).transposed:
            width, height, aspect = height, width, 1 / aspect
        encoder = self._encoder
        encoder.width, encoder.height, encoder.sample_aspect_ratio = width, height, aspect
        encoder.pix_fmt = "yuv444p" if width % 2 or height % 2 else "yuv420p"
        encoder.colorspace = frame.colorspace or Colorspace.ITU601  # 0 is RGB, and we write YUV
        encoder.color_primaries, encoder.color_trc = frame.color_primaries, frame.color_trc
        encoder.color_range = ColorRange.MPEG
        self._begun = True
        self.output.mux(self._early)
        self._early.clear()

    def _pixels(self, frame: Any) -> Pixels:
        """Upright RGB, of one size also where a camera changes its own on the way."""
        orientation = Orientation.of(frame)
        width, height = self._encoder.width, self._encoder.height
        if orientation.transposed:
            width, height = height, width
        rgb = frame.to_ndarray(format="rgb24", width=width, height=height, interpolation=_EXACT)
        return orientation.upright(rgb)

    def _pass_on(self, sound: list[Any]) -> None:
        if self._begun:
            self.output.mux(sound)
        else:
            self._early.extend(sound)

    def _write(self, outcome: Pixels | str) -> None:
        source = self._pending.popleft()
        if isinstance(outcome, str):
            self.failures[outcome] = self.failures.get(outcome, 0) + 1
            outcome = self._pixels(source)
        self._check_size(outcome)
        frame = av.VideoFrame.from_ndarray(outcome, format="rgb24")
        frame.pts, frame.time_base = self._pts(source), self._tick
        # What PyAV makes of RGB before it encodes it.
        frame.colorspace, frame.color_range = self._encoder.colorspace, self._encoder.color_range
        self.output.mux(self._video_out.encode(frame))
        self.written += 1

    def _check_size(self, clean: Pixels) -> None:
        """PyAV would scale what a model enlarges back without a word."""
        sides = self._encoder.height, self._encoder.width
        if clean.shape[:2] != sides:
            raise ValueError(
                f"the model gives frames of {list(clean.shape[:2])} for those of {list(sides)}, but videos"
                " keep their size; choose a model that does not enlarge"
            )

    def _pts(self, source: Any) -> int:
        """When to show a frame, in ticks; after the last one, also where the source repeats or tells none."""
        last = self._last_pts
        if source.pts is None:
            pts: int = 0 if last is None else last + self._ticks_a_frame
        else:
            pts = round(source.pts * self._video_in.time_base / self._tick)
            pts = pts if last is None else max(pts, last + 1)
        self._last_pts = pts
        return pts

    async def _in_thread(self, work: Callable[[], Any]) -> Any:
        async with self._libav:
            return await asyncio.to_thread(work)
