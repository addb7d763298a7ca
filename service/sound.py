"""An audio stream on its way into another container: as it is where that takes its codec, else anew."""

from pathlib import PurePath
from typing import Any

import av

_ENCODERS = {".webm": "libopus"}
_OTHER_ENCODER = "aac"
# What libav copies into a container, and no player finds there, or its writer refuses at the first packet.
_ONLY = {".ts": {"aac", "mp2", "mp3", "ac3", "eac3", "opus"}}
_NEVER = {".mov": {"flac", "opus"}, ".avi": {"aac"}}
_NAMED = (".mp4", ".m4v", ".mov")  # their raw sound tells which channel is which


class Sound:
    """One audio stream of `output`, from that of another container.

    IP cameras send G.711, which neither MP4 nor Matroska takes from libav.

    Raises:
        ValueError: the container takes no sound.
    """

    def __init__(self, output: Any, stream: Any) -> None:
        suffix = PurePath(output.name).suffix.lower()
        self._last_dts: int | None = None
        self._encodes = not _holds(suffix, stream)
        if not self._encodes:
            try:
                self._out = output.add_stream_from_template(stream)
            except ValueError:
                self._encodes = True
        if self._encodes:
            name = _ENCODERS.get(suffix, _OTHER_ENCODER)
            self._out = output.add_stream(name, rate=_nearest(stream.rate, av.Codec(name, "w").audio_rates))
            self._out.layout = _layout(stream.layout)

    def packets(self, packet: Any) -> list[Any]:
        """What is to be muxed for a packet of the source; nothing for a damaged or repeated one."""
        if not self._encodes:
            # The last one of a stream, without a time, only says that it has ended.
            if packet.dts is None or (self._last_dts is not None and packet.dts <= self._last_dts):
                return []
            self._last_dts = packet.dts
            packet.stream = self._out
            return [packet]
        try:
            return [out for frame in packet.decode() for out in self._out.encode(frame)]
        except av.InvalidDataError:
            return []

    def end(self) -> list[Any]:
        """The last packets, when no more will come."""
        return list(self._out.encode(None)) if self._encodes else []


def _holds(suffix: str, stream: Any) -> bool:
    """Whether a container may take the codec as it is, as far as libav does not tell."""
    codec = stream.codec_context.name
    if codec.startswith("pcm_") and suffix in _NAMED and _unnamed(stream.layout):
        return False
    return codec in _ONLY.get(suffix, {codec}) and codec not in _NEVER.get(suffix, ())


def _unnamed(layout: Any) -> bool:
    """Raw sound has a number of channels only."""
    return bool(layout.name.endswith("channels"))


def _layout(layout: Any) -> str:
    if not _unnamed(layout):
        return str(layout.name)
    return "mono" if layout.nb_channels == 1 else "stereo"


def _nearest(rate: int, possible: list[int] | None) -> int:
    """The lowest that loses nothing, or the highest."""
    rates = sorted(possible or [rate])
    return next((each for each in rates if each >= rate), rates[-1])
