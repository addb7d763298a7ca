"""An audio stream on its way into another container: as it is where that takes its codec, else anew."""

from pathlib import PurePath
from typing import Any

import av

_ENCODERS = {".webm": "libopus"}
_OTHER_ENCODER = "aac"


class Sound:
    """One audio stream of `output`, from that of another container.

    IP cameras send G.711, which neither MP4 nor Matroska takes from libav.

    Raises:
        ValueError: the container takes no sound.
    """

    def __init__(self, output: Any, stream: Any) -> None:
        self._encodes = False
        try:
            self._out = output.add_stream_from_template(stream)
        except ValueError:
            self._encodes = True
            name = _ENCODERS.get(PurePath(output.name).suffix.lower(), _OTHER_ENCODER)
            self._out = output.add_stream(name, rate=_nearest(stream.rate, av.Codec(name, "w").audio_rates))
            self._out.layout = _layout(stream.layout)

    def packets(self, packet: Any) -> list[Any]:
        """What is to be muxed for a packet of the source; nothing for a damaged one."""
        if not self._encodes:
            if packet.dts is None:  # the last one of a stream only says that it has ended
                return []
            packet.stream = self._out
            return [packet]
        try:
            return [out for frame in packet.decode() for out in self._out.encode(frame)]
        except av.InvalidDataError:
            return []

    def end(self) -> list[Any]:
        """The last packets, when no more will come."""
        return list(self._out.encode(None)) if self._encodes else []


def _layout(layout: Any) -> str:
    """Raw sound has a number of channels only."""
    if not layout.name.endswith("channels"):
        return str(layout.name)
    return "mono" if layout.nb_channels == 1 else "stereo"


def _nearest(rate: int, possible: list[int] | None) -> int:
    """The lowest that loses nothing, or the highest."""
    rates = sorted(possible or [rate])
    return next((each for each in rates if each >= rate), rates[-1])
