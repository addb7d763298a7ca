"""Cameras that pause, stall or never begin: a real one, on a real port."""

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import av
import click
import numpy as np
import numpy.typing as npt
import pytest

from service import video
from tests.service.test_video import as_they_are, counted, frames_of

Pixels = npt.NDArray[np.uint8]


@pytest.fixture(scope="module")
def broadcast(tmp_path_factory: pytest.TempPathFactory, photo: Pixels) -> bytes:
    """Two seconds of a camera in an MPEG transport stream."""
    path = tmp_path_factory.mktemp("camera") / "camera.ts"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"tune": "zerolatency"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for number in range(50):
            crop = np.ascontiguousarray(photo[60 : 60 + 64, 100 + number : 196 + number])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(crop, format="rgb24")))
        container.mux(stream.encode(None))
    return path.read_bytes()


@contextmanager
def camera(pieces: Sequence[bytes], pause_s: float, silence_s: float) -> Iterator[str]:
    """The URL of one that sends `pieces` with pauses between, and hangs up only after a silence."""
    over = threading.Event()

    def send() -> None:
        with contextlib.suppress(ConnectionError), listening.accept()[0] as connection:
            for piece in pieces:
                connection.sendall(piece)
                over.wait(pause_s)
            over.wait(silence_s)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(30)
        sender = threading.Thread(target=send)
        sender.start()
        try:
            yield f"tcp://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            over.set()
            sender.join()


def test_a_camera_that_stalls_ends_the_video_properly(
    broadcast: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(video, "STALL_S", 1)
    target = tmp_path / "out.mp4"
    with camera([broadcast], 0, silence_s=30) as url:
        begun = time.monotonic()
        assert not video.clean_video(url, target, as_they_are, None)
        assert time.monotonic() - begun < 20
    assert "ends early: the source sent nothing for 1 s" in capsys.readouterr().err
    assert len(frames_of(target)) >= 40  # all but what the parser and the decoder hold back


def test_a_camera_that_only_pauses_is_read_to_its_end(
    broadcast: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What counts is each silence, not how long all takes, nor how long frames take to clean."""
    monkeypatch.setattr(video, "STALL_S", 2)
    target = tmp_path / "out.mp4"
    half = len(broadcast) // 2
    pieces = [broadcast[:half], *(broadcast[at : at + half // 8] for at in range(half, 2 * half, half // 8))]

    async def slowly(frames: AsyncIterator[Pixels]) -> AsyncIterator[Pixels | str]:
        async for number, frame in counted(frames):
            await asyncio.sleep(2.5 if number == 3 else 0)
            yield frame

    with camera(pieces, 0.4, silence_s=0) as url:
        assert video.clean_video(url, target, slowly, None)
    assert len(frames_of(target)) == 50


def test_a_camera_that_never_begins_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video, "OPEN_S", 1)
    target = tmp_path / "out.mp4"
    with (
        camera([], 0, silence_s=10) as url,
        pytest.raises(click.ClickException, match="sends no video: given up after 1 s"),
    ):
        video.clean_video(url, target, as_they_are, None)
    assert not target.exists()
