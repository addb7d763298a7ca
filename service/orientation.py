"""How a frame of a video is turned."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from service.codec import Pixels


@dataclass(frozen=True)
class Orientation:
    """How a frame is shown: transposed first, then mirrored. These are the eight of EXIF.

    Other angles, which nothing films at, count as the nearest quarter turn.
    """

    transposed: bool
    from_right: bool
    from_below: bool

    @classmethod
    def of(cls, frame: Any) -> "Orientation":
        (x_to_x, x_to_y), (y_to_x, y_to_y) = _display_matrix(frame)
        if abs(x_to_y) > abs(x_to_x):
            return cls(True, bool(y_to_x < 0), bool(x_to_y < 0))
        return cls(False, bool(x_to_x < 0), bool(y_to_y < 0))

    def upright(self, pixels: Pixels) -> Pixels:
        if self.transposed:
            pixels = pixels.swapaxes(0, 1)
        if self.from_right:
            pixels = pixels[:, ::-1]
        if self.from_below:
            pixels = pixels[::-1]
        return np.ascontiguousarray(pixels)


def _display_matrix(frame: Any) -> npt.NDArray[np.generic]:
    """Where the axes of a frame point to when it is shown, a row each for x and y."""
    try:
        matrix = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # PyAV lists side data only if it knows every kind of it, and not EXIF
        turn = np.deg2rad(frame.rotation)
        return np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return np.eye(2) if matrix is None else np.frombuffer(matrix, np.int32).reshape(3, 3)[:2, :2]
