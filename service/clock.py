"""Times that go on where a source's own clock steps back, as where recordings were joined."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

_JITTER = Fraction(1, 2)  # seconds back that are a camera's carelessness, and no new beginning


@dataclass
class _Stream:
    parts: int = 0  # that this stream has begun
    shift: Fraction = Fraction(0)
    last: Fraction | None = None  # by the source's clock


class Clock:
    """One clock for all streams of a source; each steps back in a packet of its own, by the same."""

    def __init__(self) -> None:
        self._streams: dict[int, _Stream] = {}
        self._parts = 0
        self._shift = Fraction(0)
        self._end = Fraction(0)

    def set_forward(self, packet: Any) -> None:
        """Change the times of a packet as if the source's clock had not stepped back before it."""
        if packet.dts is None:
            return
        stream = self._streams.setdefault(packet.stream.index, _Stream())
        now = packet.dts * packet.time_base
        if stream.last is not None and now < stream.last - _JITTER:
            if stream.parts == self._parts:  # the first of the streams
                self._parts += 1
                self._shift = self._end - now
            stream.parts, stream.shift = self._parts, self._shift
        stream.last = now
        ticks = round(stream.shift / packet.time_base)
        packet.dts += ticks
        if packet.pts is not None:
            packet.pts += ticks
        self._end = max(self._end, now + stream.shift + (packet.duration or 0) * packet.time_base)
