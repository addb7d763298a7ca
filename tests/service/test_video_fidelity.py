"""What a video says of its frames is kept: their times, the shape of their pixels, the sense of colours."""

from collections.abc import AsyncIterator, Iterable
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
import pytest
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc

from service import video
from service.codec import Pixels
from tests.service.test_video import as_they_are, frames_of, with_orientation


def plain_video(
    path: Path, times: Iterable[Fraction], aspect: int | Fraction = 1, range: ColorRange = ColorRange.MPEG
) -> None:
    """Frames of one saturated colour, tagged as HD is, shown at `times` in seconds."""
    tick = Fraction(1, 90_000)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "1"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        encoder = stream.codec_context
        encoder.time_base, encoder.sample_aspect_ratio = tick, Fraction(aspect)
        encoder.colorspace, encoder.color_range = Colorspace.ITU709, range
        encoder.color_primaries, encoder.color_trc = ColorPrimaries.BT709, ColorTrc.BT709
        for moment in times:
            frame = av.VideoFrame.from_ndarray(np.full((64, 96, 3), (200, 30, 60), np.uint8), format="rgb24")
            frame.colorspace, frame.color_range = Colorspace.ITU709, range
            frame.pts, frame.time_base = round(moment / tick), tick
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def times_of(path: Path) -> list[float]:
    with av.open(str(path)) as container:
        return [float(frame.time or 0) for frame in container.decode(video=0)]


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "webm"])
def test_frames_keep_their_times(tmp_path: Path, suffix: str) -> None:
    """A camera that sends one frame a second until something moves."""
    source, target = tmp_path / "in.mp4", tmp_path / f"out.{suffix}"
    seconds = [*(Fraction(n) for n in range(4)), *(3 + Fraction(n, 25) for n in range(1, 26)), Fraction(5)]
    plain_video(source, seconds)
    assert times_of(source) == pytest.approx([float(moment) for moment in seconds])
    assert video.clean_video(str(source), target, as_they_are, None)
    assert times_of(target) == pytest.approx(times_of(source), abs=0.001)


def test_frames_of_a_bare_stream_follow_each_other(tmp_path: Path) -> None:
    source, target = tmp_path / "in.h264", tmp_path / "out.mp4"
    plain_video(source, [Fraction(n, 25) for n in range(12)])
    assert video.clean_video(str(source), target, as_they_are, None)
    assert times_of(target) == pytest.approx([n / 25 for n in range(12)])


def test_frames_at_one_time_are_all_kept(tmp_path: Path) -> None:
    source, target = tmp_path / "in.mkv", tmp_path / "out.mp4"
    plain_video(source, [Fraction(n // 2, 25) + Fraction(n % 2, 90_000) for n in range(12)])
    assert len(set(times_of(source))) == 6, "Matroska knows milliseconds only"
    assert video.clean_video(str(source), target, as_they_are, None)
    assert times_of(target) == pytest.approx(times_of(source), abs=0.0011)
    assert (np.diff(times_of(target)) > 0).all()


@pytest.mark.parametrize("degrees", [0, 90])
def test_pixels_that_are_not_square_stay_so(tmp_path: Path, degrees: int) -> None:
    plain, source, target = (tmp_path / f"{name}.mp4" for name in ("plain", "in", "out"))
    plain_video(plain, [Fraction(n, 25) for n in range(3)], aspect=Fraction(16, 15))
    with_orientation(plain, source, degrees, mirrored=False)
    assert video.clean_video(str(source), target, as_they_are, None)
    with av.open(str(target)) as container:
        aspect = container.streams.video[0].sample_aspect_ratio
    assert aspect == (Fraction(15, 16) if degrees else Fraction(16, 15))


@pytest.mark.parametrize("range", [ColorRange.MPEG, ColorRange.JPEG])
@pytest.mark.parametrize("suffix", ["mp4", "webm"])
def test_colours_keep_their_meaning(tmp_path: Path, range: ColorRange, suffix: str) -> None:
    source, target = tmp_path / "in.mp4", tmp_path / f"out.{suffix}"
    plain_video(source, [Fraction(n, 25) for n in (0, 1, 2)], range=range)
    assert video.clean_video(str(source), target, as_they_are, None)
    assert np.abs(frames_of(target) - frames_of(source).astype(float)).max() <= 3
    with av.open(str(target)) as container:
        frame = next(container.decode(video=0))
    assert frame.colorspace == Colorspace.ITU709
    assert (frame.color_primaries, frame.color_trc) == (ColorPrimaries.BT709, ColorTrc.BT709)


def sounding_video(path: Path, codec: str, rate: int) -> None:
    """A second of frames and of 440 Hz."""
    with av.open(str(path), "w") as container:
        pictures = container.add_stream("mpeg4", rate=25)
        pictures.width, pictures.height, pictures.pix_fmt = 96, 64, "yuv420p"
        audio = cast(av.AudioStream, container.add_stream(codec, rate=rate, layout="mono"))
        for _ in range(25):
            frame = av.VideoFrame.from_ndarray(np.full((64, 96, 3), 90, np.uint8), format="rgb24")
            container.mux(pictures.encode(frame))
        tone = 12000 * np.sin(2 * np.pi * 440 * np.arange(rate) / rate)
        sound = av.AudioFrame.from_ndarray(tone.astype(np.int16)[None], format="s16", layout="mono")
        sound.sample_rate, sound.pts = rate, 0
        container.mux(audio.encode(sound))
        container.mux(pictures.encode(None))
        container.mux(audio.encode(None))


@pytest.mark.parametrize(
    ("codec", "rate", "source", "target"),
    [
        ("pcm_mulaw", 8000, "in.avi", "out.mp4"),
        ("pcm_alaw", 8000, "in.avi", "out.mkv"),
        ("pcm_mulaw", 8000, "in.mov", "out.ts"),
        ("pcm_s16le", 44100, "in.mkv", "out.mp4"),
        ("flac", 44100, "in.mkv", "out.mov"),
        ("aac", 44100, "in.ts", "out.avi"),
        ("aac", 44100, "in.mkv", "out.webm"),
    ],
)
def test_sound_that_the_target_cannot_hold_is_encoded_anew(
    tmp_path: Path, codec: str, rate: int, source: str, target: str
) -> None:
    sounding_video(tmp_path / source, codec, rate)
    assert video.clean_video(str(tmp_path / source), tmp_path / target, as_they_are, None)
    with av.open(str(tmp_path / target)) as container:
        heard = [frame.to_ndarray()[0] for frame in container.decode(audio=0)]
        sound, now = np.concatenate(heard), container.streams.audio[0].rate
    tells_of_padding = not target.endswith((".ts", ".avi"))
    assert len(sound) / now == pytest.approx(1, abs=0.05 if tells_of_padding else 0.2)
    assert np.abs(np.fft.rfft(sound, now)).argmax() == pytest.approx(440, abs=2)


@pytest.mark.parametrize(("source", "target"), [("ts", "mp4"), ("ts", "webm"), ("mpg", "mkv")])
def test_recordings_that_were_joined_go_on_in_picture_and_sound(
    tmp_path: Path, source: str, target: str
) -> None:
    """Their clock steps back at the joint, sooner in one stream than in the other."""
    one, three, out = tmp_path / f"one.{source}", tmp_path / f"three.{source}", tmp_path / f"out.{target}"
    sounding_video(one, "mp2" if source == "mpg" else "aac", 44100)
    three.write_bytes(3 * one.read_bytes())
    assert video.clean_video(str(three), out, as_they_are, None)
    times = times_of(out)
    assert len(times) == 75
    assert np.diff(times).min() > 0.038
    assert times[-1] - times[0] == pytest.approx(3, abs=0.2)
    with av.open(str(out)) as container:
        heard = list(container.decode(audio=0))
    assert sum(frame.samples / frame.rate for frame in heard) == pytest.approx(3, abs=0.2)
    assert heard[-1].time == pytest.approx(times[-1], abs=0.2)


@pytest.mark.parametrize("gray", [False, True])
def test_frames_are_no_darker_than_they_were(photo: Pixels, tmp_path: Path, gray: bool) -> None:
    pixels = photo[:256, :384]
    pixels = pixels[..., :1].repeat(3, axis=2) if gray else pixels
    source, target = tmp_path / "in.mp4", tmp_path / "out.mp4"
    with av.open(str(source), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "12"})
        stream.width, stream.height, stream.pix_fmt = 384, 256, "yuv420p"
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    seen: list[Pixels] = []

    async def watched(frames: AsyncIterator[Pixels]) -> AsyncIterator[Pixels | str]:
        async for frame in frames:
            seen.append(frame)
            yield frame

    def luma_of(path: Path) -> float:
        with av.open(str(path)) as container:
            return float(np.mean([frame.to_ndarray()[:256] for frame in container.decode(video=0)]))

    assert video.clean_video(str(source), target, watched, None)
    assert luma_of(target) == pytest.approx(luma_of(source), abs=0.15)
    assert np.mean(seen) == pytest.approx(pixels.mean(), abs=0.3)
    assert not gray or all((frame[..., :1] == frame).all() for frame in seen)
