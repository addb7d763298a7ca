"""Large frames in overlapping tiles that join without a seam.

Each tile is read with `overlap` pixels of context on every side and only its core is kept. With
`overlap` at least the network's receptive radius and tiles that begin on its `alignment`, a core
pixel sees just what it would see in the whole frame: no blending is needed.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from service.codec import Pixels
from service.fitting import is_gray

Box = tuple[int, int, int, int]  # top, left, bottom, right


@dataclass(frozen=True)
class Tile:
    """Where a tile is read, and which part of the frame it fills."""

    read: Box
    core: Box


def plan(height: int, width: int, max_pixels: int, overlap: int, alignment: int) -> list[Tile]:
    """Cover a frame with the fewest tiles of at most about `max_pixels` each, context included.

    A frame within `max_pixels` is one tile. `overlap` is rounded up to the alignment. What is kept of a
    tile is never narrower than that, even if it takes more than `max_pixels`: or a network that sees far
    would do nearly all of its work on context.
    """
    if height * width <= max_pixels:
        whole = (0, 0, height, width)
        return [Tile(whole, whole)]
    margin = math.ceil(overlap / alignment) * alignment
    core = max(alignment, margin, int(math.sqrt(max_pixels)) - 2 * margin)
    rows, columns = _cuts(height, core, alignment), _cuts(width, core, alignment)
    return [
        Tile(
            (
                max(0, top - margin),
                max(0, left - margin),
                min(height, bottom + margin),
                min(width, right + margin),
            ),
            (top, left, bottom, right),
        )
        for top, bottom in rows
        for left, right in columns
    ]


def cut(frame: Pixels, tiles: Sequence[Tile]) -> list[Pixels]:
    """The pixels that each tile reads, as views.

    Networks may treat gray images by themselves, and no tile of a frame in colour is one: where it is gray
    throughout, it is a copy with one level of colour in a corner of its context.
    """
    pieces = [part(frame, tile.read) for tile in tiles]
    if is_gray(frame):
        return pieces
    return [
        _in_colour(piece, tile) if is_gray(piece) else piece
        for piece, tile in zip(pieces, tiles, strict=True)
    ]


def part(frame: Pixels, box: Box) -> Pixels:
    """The pixels within a box, as a view."""
    top, left, bottom, right = box
    return frame[top:bottom, left:right]


def _in_colour(pixels: Pixels, tile: Tile) -> Pixels:
    told = pixels.copy()
    corner = (0, 0) if tile.read[2:] == tile.core[2:] else (-1, -1)
    told[(*corner, 0)] ^= 1
    return told


def join(tiles: Sequence[Tile], results: Sequence[Pixels], height: int, width: int, scale: int = 1) -> Pixels:
    """Put the cores of processed tiles together.

    Args:
        results: of each tile, uint8 `[h * scale, w * scale, C]`.

    Returns:
        uint8 `[height * scale, width * scale, C]`.
    """
    if len(tiles) == 1:
        return results[0]
    frame = np.empty((height * scale, width * scale, results[0].shape[2]), np.uint8)
    for tile, result in zip(tiles, results, strict=True):
        top, left, bottom, right = (scale * side for side in tile.core)
        frame[top:bottom, left:right] = core(tile, result, scale)
    return frame


def core(tile: Tile, result: Pixels, scale: int = 1) -> Pixels:
    """What is kept of a tile, of its result `[h * scale, w * scale, C]`, as a view."""
    top, left, bottom, right = (scale * side for side in tile.core)
    y, x = top - scale * tile.read[0], left - scale * tile.read[1]
    return result[y : y + bottom - top, x : x + right - left]


def _cuts(length: int, most: int, alignment: int) -> list[tuple[int, int]]:
    """Even stretches of at most about `most`, each beginning on the alignment."""
    count = math.ceil(length / most)
    step = math.ceil(length / count / alignment) * alignment
    return [(start, min(start + step, length)) for start in range(0, length, step)]
