import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from model_store import StoredModel
from service.engine import Engine
from service.tiling import cut, join, plan

SIDES = st.integers(1, 700)


@given(SIDES, SIDES, st.integers(4096, 60_000), st.integers(0, 70), st.sampled_from([1, 2, 8, 16]))
@settings(max_examples=200, deadline=None)
def test_tiles_cover_the_frame_once_and_within_bounds(
    height: int, width: int, most: int, overlap: int, alignment: int
) -> None:
    covered = np.zeros((height, width), int)
    for tile in plan(height, width, most, overlap, alignment):
        top, left, bottom, right = tile.core
        covered[top:bottom, left:right] += 1
        outer = tile.read
        assert 0 <= outer[0] <= top
        assert 0 <= outer[1] <= left
        assert bottom <= outer[2] <= height
        assert right <= outer[3] <= width
        assert outer[0] % alignment == outer[1] % alignment == 0
        assert top - outer[0] >= min(overlap, top)
        assert left - outer[1] >= min(overlap, left)
        assert outer[2] - bottom >= min(overlap, height - bottom)
        assert outer[3] - right >= min(overlap, width - right)
    assert (covered == 1).all()


def test_a_network_that_sees_far_does_not_work_on_context_alone() -> None:
    tiles = plan(1080, 1920, 65_536, 154, 8)
    assert (
        sum((tile.read[2] - tile.read[0]) * (tile.read[3] - tile.read[1]) for tile in tiles) < 9 * 1080 * 1920
    )


@given(SIDES, SIDES, st.integers(4096, 60_000))
@settings(max_examples=50, deadline=None)
def test_joining_untouched_tiles_gives_the_frame_back(height: int, width: int, most: int) -> None:
    frame = np.random.default_rng(height * width).integers(0, 256, (height, width, 3), np.uint8)
    tiles = plan(height, width, most, 62, 8)
    assert np.array_equal(join(tiles, cut(frame, tiles), height, width), frame)


def test_tiled_is_the_same_as_whole(shipped: StoredModel) -> None:
    """The overlap on the card is the receptive radius, so no seam can show."""
    engine = Engine(shipped, "cpu", threads=2)
    card = shipped.card
    frame = np.random.default_rng(0).integers(0, 256, (403, 517, 3), np.uint8)
    strength = np.ones(1, np.float32)
    whole = engine.run(frame[None], strength)[0]
    tiles = plan(403, 517, 70_000, card.tile_overlap, card.alignment)
    assert len(tiles) > 4
    results = [engine.run(piece[None], strength)[0] for piece in cut(frame, tiles)]
    tiled = join(tiles, results, 403, 517)
    assert np.abs(tiled.astype(int) - whole).max() <= 1


def test_a_gray_tile_of_a_frame_in_colour_is_no_gray_image() -> None:
    gray = np.random.default_rng(0).integers(0, 256, (300, 500, 1), np.uint8).repeat(3, axis=2)
    stamped = gray.copy()
    stamped[7, 11] = (200, 0, 0)
    tiles = plan(300, 500, 40_000, 30, 8)
    assert not any((piece[..., :1] != piece).any() for piece in cut(gray, tiles))
    assert all((piece[..., :1] != piece).any() for piece in cut(stamped, tiles))
    for frame in (gray, stamped):
        assert np.array_equal(join(tiles, cut(frame, tiles), 300, 500), frame)
