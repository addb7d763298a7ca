import tracemalloc

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from service.fitting import luma

SIDES = st.integers(1, 400)


@given(SIDES, SIDES, st.integers(0, 9))
@example(3, 70_000, 0)  # a row longer than a strip
def test_luma_is_that_of_the_whole_frame_at_once(height: int, width: int, seed: int) -> None:
    frame = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    red, green, blue = np.split(frame.astype(np.uint32), 3, axis=2)
    assert np.array_equal(luma(frame), (red * 19595 + green * 38470 + blue * 7471 + 32768) >> 16)
    gray = frame[..., :1]
    assert np.array_equal(luma(np.repeat(gray, 3, axis=2)), gray)


def test_luma_takes_little_more_memory_than_its_result() -> None:
    frame = np.zeros((2000, 2000, 3), np.uint8)
    tracemalloc.start()
    luma(frame)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1.5 * 2000 * 2000
