"""Somebody else's denoiser as a peer: an ONNX file of the common form, float planes of 0..1."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import onnxruntime as ort

from training.corruption import Image, Photo, to_float, to_uint8
from training.errors import DataError
from training.peers import as_gray, is_gray

_FORM = (
    "a peer takes float32 [N, 1 or 3, H, W] of 0..1 and, if it is told the noise, `sigma` (of 255, over 255)"
)
_MULTIPLES = (1, 2, 4, 8, 16, 32, 64)
_SMALL = 33  # pixels, over what a reflected border of usual kernels needs


@dataclass
class OnnxPeer:
    """A denoiser of float32 `[N, C, H, W]`, 0..1.

    A gray one (C = 1) has no answer to colour, a colour one none to gray images: noise that is the same in
    all channels is nothing it was made for. With an input `sigma` it is told the noise, and has no answer
    where that is not known. Images are padded by their border to the multiple that the graph demands.
    """

    name: str
    session: ort.InferenceSession
    channels: int
    multiple: int = 1

    @classmethod
    def load(cls, file: Path, threads: int) -> Self:
        """Raises DataError where it cannot be loaded, has another form, or fails on every size tried."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 4  # sizes that do not fit are tried on purpose
        try:
            session = ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime raises a class of its own for each status code
            raise DataError(f"{file} is no ONNX file that can be run: {_first_line(error)}") from None
        images = [each for each in session.get_inputs() if each.name != "sigma"]
        if len(images) != 1 or (found := _channels(images[0])) is None or len(session.get_inputs()) > 2:
            taken = ", ".join(f"{each.name} {each.type} {each.shape}" for each in session.get_inputs())
            raise DataError(f"{file} takes {taken}; {_FORM}")
        peer = cls(file.stem, session, found)
        peer.multiple = peer._found_multiple(file)
        return peer

    def __call__(self, noisy: Photo, sigma: float | None) -> Photo | None:
        told = any(each.name == "sigma" for each in self.session.get_inputs())
        if (told and not sigma) or is_gray(noisy) != (self.channels == 1):
            return None
        height, width, _ = noisy.shape
        padding = ((0, -height % self.multiple), (0, -width % self.multiple), (0, 0))
        padded = np.pad(noisy[..., : self.channels], padding, mode="edge")
        planes = np.ascontiguousarray(to_float(padded).transpose(2, 0, 1)[None])
        restored = to_uint8(self._run(planes, sigma or 0.0)[0].transpose(1, 2, 0))[:height, :width]
        return as_gray(restored[..., 0], noisy) if self.channels == 1 else restored

    def _run(self, planes: Image, sigma: float) -> Image:
        feeds: dict[str, Any] = {}
        for each in self.session.get_inputs():
            if each.name == "sigma":
                ones = [side if isinstance(side, int) else 1 for side in each.shape]
                feeds["sigma"] = np.full(ones, sigma / 255, np.float32)
            else:
                feeds[each.name] = planes
        restored: Image = self.session.run(None, feeds)[0]
        return restored

    def _found_multiple(self, file: Path) -> int:
        """The smallest multiple of sides that gives the input's shape back."""
        said = ""
        for multiple in _MULTIPLES:
            odd = _SMALL // multiple // 2 * 2 + 1
            planes = np.full((1, self.channels, multiple * odd, multiple * (odd + 2)), 0.5, np.float32)
            try:
                shape = self._run(planes, 25.0).shape
            except Exception as error:
                said = said or _first_line(error)
                continue
            if shape == planes.shape:
                return multiple
            said = said or f"it makes {list(shape)} of {list(planes.shape)}"
        raise DataError(f"{file} gives no image of the input's size back: {said}")


def _channels(image: ort.NodeArg) -> int | None:
    """1 or 3 of an input that is an image of any size, else None."""
    if image.type != "tensor(float)" or len(image.shape) != 4:
        return None
    _, channels, *sides = image.shape
    free = not any(isinstance(side, int) for side in sides)
    return channels if channels in (1, 3) and free else None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
