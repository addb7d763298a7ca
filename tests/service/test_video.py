"""A real video file in and out, here and through a server."""

import asyncio
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Collection
from pathlib import Path

import av
import click
import httpx
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from service import video
from service.engine import Engine
from service.frame_cleaners import clean_here
from service.order import Order
from service.pipeline import Pipeline
from service.settings import Settings
from tests.conftest import ROOT, Server
from tests.contract.triton import denoised_by_v1, opened
from tests.service.test_codec import file_of

Pixels = npt.NDArray[np.uint8]


@pytest.fixture(scope="module")
def noisy_video(tmp_path_factory: pytest.TempPathFactory, photo: Pixels) -> Path:
    """Twelve noisy frames of 96x64 that drift over a photograph, with a tone."""
    path = tmp_path_factory.mktemp("video") / "noisy.mp4"
    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25, options={"crf": "4"})
        video.width, video.height, video.pix_fmt = 96, 64, "yuv420p"
        audio = container.add_stream("aac", rate=44100, layout="mono")
        for number in range(12):
            crop = photo[60 : 60 + 64, 100 + number : 196 + number] + rng.normal(0, 20, (64, 96, 3))
            frame = av.VideoFrame.from_ndarray(np.clip(crop, 0, 255).astype(np.uint8), format="rgb24")
            container.mux(video.encode(frame))
        for start in range(0, 20480, 1024):
            tone = np.sin(np.arange(start, start + 1024) / 10, dtype=np.float32)[None]
            sound = av.AudioFrame.from_ndarray(tone, format="fltp", layout="mono")
            sound.sample_rate, sound.pts = 44100, start
            container.mux(audio.encode(sound))
        container.mux(video.encode(None))
        container.mux(audio.encode(None))
    return path


def run(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "service.cli", "video", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


def frames_of(path: Path) -> Pixels:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def sound_of(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(audio=0) if packet.size]


def test_a_video_is_cleaned_with_its_sound_here_and_there(
    noisy_video: Path, server: Server, tmp_path: Path
) -> None:
    here, there = tmp_path / "here.mp4", tmp_path / "there.mp4"
    for done in (run(noisy_video, here), run(noisy_video, there, "--server", server.grpc)):
        assert done.returncode == 0, done.stderr
        assert "12 frames" in done.stderr
    noisy = frames_of(noisy_video)
    expected = np.stack([denoised_by_v1(server, file_of(Image.fromarray(frame), "png")) for frame in noisy])
    for clean in (here, there):
        # The codec leaves four levels on average, and not always the same; the next frame is ten away.
        assert (np.abs(frames_of(clean) - expected.astype(float)).mean((1, 2, 3)) < 6).all()
        assert sound_of(clean) == sound_of(noisy_video)


def test_a_gray_model_cleans_a_video_here_and_there(
    noisy_video: Path, server: Server, tmp_path: Path
) -> None:
    here, there = tmp_path / "here.mp4", tmp_path / "there.mp4"
    for target, where in ((here, ()), (there, ("--server", server.grpc))):
        done = run(noisy_video, target, "--model", "mnist-conv", *where)
        assert done.returncode == 0, done.stderr
    noisy = file_of(Image.fromarray(frames_of(noisy_video)[0]).convert("L"), "png")
    answer = httpx.post(f"{server.url}/v1/denoise?model=mnist-conv", content=noisy, timeout=60)
    expected = opened(answer.content)[..., None].astype(float)
    for clean in (here, there):
        assert len(frames_of(clean)) == 12
        assert np.abs(frames_of(clean)[0] - expected).mean() < 6


def test_a_model_that_enlarges_is_refused(noisy_video: Path, server: Server, tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    for where in ((), ("--server", server.grpc)):
        done = run(noisy_video, out, "--model", "fashion-sr2", *where)
        assert done.returncode == 1
        assert "the model gives frames of [128, 192] for those of [64, 96]" in done.stderr
        assert "choose a model that does not enlarge" in done.stderr
        assert "Traceback" not in done.stderr
        assert not out.exists()


def test_what_goes_wrong_is_said(noisy_video: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    text = tmp_path / "text.mp4"
    text.write_text("no video")
    for arguments, said in (
        ((text, out), "Invalid data"),
        ((tmp_path / "missing.mp4", out), "No such file"),
        ((noisy_video, tmp_path / "out.xyz"), "out.xyz"),
        ((noisy_video, out, "--server", "127.0.0.1:1"), "127.0.0.1:1"),
    ):
        done = run(*arguments)
        assert done.returncode == 1
        assert said in done.stderr
        assert "Traceback" not in done.stderr
        assert not out.exists()


def test_frames_that_fail_stay_as_they_were(noisy_video: Path, server: Server, tmp_path: Path) -> None:
    done = run(
        noisy_video, tmp_path / "out.mp4", "--server", server.grpc, "--model", "nobody", "--frames", "5"
    )
    assert done.returncode == 1
    assert "5 frames left as they were" in done.stderr
    assert len(frames_of(tmp_path / "out.mp4")) == 5


async def as_they_are(frames: AsyncIterator[Pixels]) -> AsyncIterator[Pixels | str]:
    async for frame in frames:
        yield frame


def with_orientation(source: Path, target: Path, degrees: int, mirrored: bool) -> None:
    """The same packets in an MP4 that says how to show them, as phones do."""
    with av.open(str(source)) as original, av.open(str(target), "w") as copy:
        streams = [copy.add_stream_from_template(stream) for stream in original.streams]
        copy.streams.video[0].set_display_rotation(degrees, hflip=mirrored)
        for packet in original.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                copy.mux(packet)


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("degrees", [0, 90, 180, -90])
def test_a_video_comes_out_upright(noisy_video: Path, tmp_path: Path, degrees: int, mirrored: bool) -> None:
    source, target = tmp_path / "in.mp4", tmp_path / "out.mp4"
    with_orientation(noisy_video, source, degrees, mirrored)
    assert video.clean_video(str(source), target, as_they_are, None)
    upright = np.rot90(frames_of(noisy_video), degrees // 90, axes=(1, 2))  # counter-clockwise, as in PyAV
    expected = upright[:, :, ::-1] if mirrored else upright
    with av.open(str(target)) as container:
        assert next(container.decode(video=0)).rotation == 0
    assert np.abs(frames_of(target) - expected.astype(float)).mean() < 8  # the codec's six of this noise
    assert sound_of(target) == sound_of(source)


def test_the_exif_of_a_cameras_jpegs_is_applied(noisy_video: Path, tmp_path: Path) -> None:
    source, target = tmp_path / "in.mjpeg", tmp_path / "out.mp4"
    frames = frames_of(noisy_video)
    exif = Image.Exif()
    exif[0x112] = 6  # orientation: the top is on the right
    with source.open("wb") as file:
        for frame in frames:
            Image.fromarray(frame).save(file, "jpeg", quality=95, exif=exif)
    assert video.clean_video(str(source), target, as_they_are, None)
    expected = np.rot90(frames, -1, axes=(1, 2)).astype(float)
    assert np.abs(frames_of(target) - expected).mean() < 8


def damaged_recording(path: Path, count: int, damaged: Collection[int]) -> None:
    """An AVI of a camera's JPEGs, some of which are zeros."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 32, 16, "yuvj420p"
        for number in range(count):
            frame = av.VideoFrame.from_ndarray(np.full((16, 32, 3), number % 256, np.uint8), format="rgb24")
            for packet in stream.encode(frame):
                if number in damaged:
                    packet.update(bytes(packet.size))
                container.mux(packet)


def test_a_damaged_frame_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = tmp_path / "in.avi", tmp_path / "out.mp4"
    damaged = {0, 5, 6, 11}
    damaged_recording(source, 12, damaged)
    assert not video.clean_video(str(source), target, as_they_are, None)
    assert "4 frames left out" in (said := capsys.readouterr().err)
    assert "ends early" not in said
    with av.open(str(target)) as container:
        kept = [round(frame.time * 25) for frame in container.decode(video=0)]
    whole = [number for number in range(12) if number not in damaged]
    assert np.diff(kept).tolist() == np.diff(whole).tolist()  # each at its time


def test_nothing_but_damage_ends_a_video(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = tmp_path / "in.avi", tmp_path / "out.mp4"
    damaged = range(3, 3 + video.GIVE_UP + 100)
    damaged_recording(source, damaged.stop + 3, damaged)
    assert not video.clean_video(str(source), target, as_they_are, None)
    assert len(frames_of(target)) == 3
    assert "ends early" in capsys.readouterr().err


def test_a_source_without_a_whole_frame_is_an_error(tmp_path: Path) -> None:
    source, target = tmp_path / "in.avi", tmp_path / "out.mp4"
    damaged_recording(source, 12, range(12))
    with pytest.raises(click.ClickException, match="no frame"):
        video.clean_video(str(source), target, as_they_are, None)
    assert not target.exists()


def test_a_video_that_cannot_be_written_does_not_stop_the_next(
    noisy_video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One pipeline for both, as an archive has it; each in a loop of its own."""
    pipeline = Pipeline(Settings(lanes=1, device="cpu"))
    clean = clean_here(pipeline, Order(None, 1.0, "raw"))
    run = Engine.run

    def run_slowly(*arguments: object) -> Pixels:
        time.sleep(0.2)  # so that a lane computes when the writing fails
        return run(*arguments)  # type: ignore[arg-type]

    async def unwritable(frames: AsyncIterator[Pixels]) -> AsyncIterator[Pixels | str]:
        async for number, outcome in counted(clean(frames)):
            yield np.zeros(3, np.uint8) if number == 2 else outcome

    async def in_time(frames: AsyncIterator[Pixels]) -> AsyncIterator[Pixels | str]:
        async with asyncio.timeout(30):
            async for outcome in clean(frames):
                yield outcome

    monkeypatch.setattr(Engine, "run", run_slowly)
    with pytest.raises(click.ClickException):
        video.clean_video(str(noisy_video), tmp_path / "failed.mp4", unwritable, None)
    assert not (tmp_path / "failed.mp4").exists()
    assert video.clean_video(str(noisy_video), tmp_path / "next.mp4", in_time, 4)
    assert len(frames_of(tmp_path / "next.mp4")) == 4
    asyncio.run(pipeline.close())


async def counted(outcomes: AsyncIterator[Pixels | str]) -> AsyncIterator[tuple[int, Pixels | str]]:
    number = 0
    async for outcome in outcomes:
        yield number, outcome
        number += 1


def test_a_video_is_never_put_in_place_of_its_source(
    noisy_video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    original = Path(shutil.copy(noisy_video, tmp_path / "in.mp4")).absolute()
    link = tmp_path / "link.mp4"
    link.symlink_to(original)
    before = original.read_bytes()
    done = run(original, original)
    assert done.returncode == 2
    assert f"{original} is the input; choose another TARGET" in done.stderr
    for source, target in (
        ("in.mp4", original),
        (str(original), Path("in.mp4")),
        (str(link), original),
        (str(original), link),
        (f"file:{original}", original),
        ("file:in.mp4", original),
    ):
        with pytest.raises(click.UsageError, match="is the input"):
            video.clean_video(source, target, as_they_are, None)
    assert link.is_symlink()
    assert original.read_bytes() == before


def test_a_target_that_is_another_file_is_replaced(noisy_video: Path, tmp_path: Path) -> None:
    """Though it hold the same."""
    target = Path(shutil.copy(noisy_video, tmp_path / "out.mp4"))
    assert video.clean_video(str(noisy_video), target, as_they_are, 3)
    assert len(frames_of(target)) == 3


async def nothing(frames: AsyncIterator[Pixels]) -> AsyncIterator[Pixels | str]:
    async for frame in frames:
        if not frame.size:
            yield frame


def test_a_video_of_no_frames_leaves_the_target_as_it_was(noisy_video: Path, tmp_path: Path) -> None:
    target = tmp_path / "clean.mp4"
    target.write_bytes(b"as it was")
    with pytest.raises(click.ClickException):
        video.clean_video(str(noisy_video), target, nothing, None)
    assert target.read_bytes() == b"as it was"


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_video_properly(noisy_video: Path, tmp_path: Path, sent: signal.Signals) -> None:
    async def interrupted(frames: AsyncIterator[Pixels]) -> AsyncIterator[Pixels | str]:
        number = 0
        async for frame in frames:
            number += 1
            if number == 3:
                signal.raise_signal(sent)
            yield frame

    before = signal.signal(sent, lambda *_: pytest.fail("nobody took the signal"))
    try:
        video.clean_video(str(noisy_video), tmp_path / "clean.mp4", interrupted, None)
    finally:
        signal.signal(sent, before)
    assert 3 <= len(frames_of(tmp_path / "clean.mp4")) < len(frames_of(noisy_video))
