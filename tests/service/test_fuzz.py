"""Broken bytes: whatever arrives, it is answered as an image or as somebody's mistake."""

import io

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from service import codec
from service.errors import BadImageError, FormatNotAllowedError, ImageTooLargeError
from service.header import Limits, inspect
from service.settings import Settings

Pixels = npt.NDArray[np.uint8]
MISTAKES = (BadImageError, FormatNotAllowedError, ImageTooLargeError)
KINDS = ("jpeg", "png", "webp", "bmp", "tiff")


@pytest.fixture(scope="module")
def files(photo: Pixels) -> dict[str, bytes]:
    """One small real image of each kind."""
    made = {}
    for kind in KINDS:
        file = io.BytesIO()
        Image.fromarray(photo[100:140, 150:198]).save(file, kind)
        made[kind] = file.getvalue()
    return made


def answer(data: bytes) -> None:
    """What the pipeline does with bytes before and after inference; only MISTAKES may come out."""
    defaults = Settings()
    try:
        header = inspect(data, Limits(defaults.formats, 2_000_000, defaults.max_side))
        picture = codec.decode(data, header)
    except MISTAKES:
        return
    assert picture.pixels.dtype == np.uint8
    assert picture.pixels.shape[:2] in ((header.height, header.width), (header.width, header.height))


@pytest.mark.parametrize("kind", KINDS)
def test_every_prefix(kind: str, files: dict[str, bytes], soak: bool) -> None:
    data = files[kind]
    for length in range(0, len(data), 1 if soak else 13):
        answer(data[:length])


def test_mutations(files: dict[str, bytes], soak: bool) -> None:
    @settings(max_examples=100_000 if soak else 400, deadline=None, derandomize=True, database=None)
    @given(
        kind=st.sampled_from(KINDS),
        changes=st.lists(
            st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=8
        ),
        cut=st.floats(0.2, 1),
    )
    def mutated(kind: str, changes: list[tuple[float, int]], cut: float) -> None:
        data = bytearray(files[kind])
        for place, value in changes:
            data[int(place**2 * len(data))] = value  # the headers are in front
        answer(bytes(data[: int(cut * len(data)) + 1]))

    mutated()
