"""What PNGs say of transparency."""

import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.service.test_codec import GRAY, decoded, file_of


def test_the_transparent_level_of_sixteen_bits_is_alpha() -> None:
    levels = GRAY.astype(np.uint16) * 257
    levels[0, :2] = 4660, 4661  # the same in eight bits
    picture = decoded(file_of(Image.fromarray(levels), "png", transparency=4660))
    assert picture.alpha is not None
    assert np.array_equal(picture.alpha == 0, levels == 4660)


def raw_png(width: int, depth: int, colours: int, rows: bytes, key: tuple[int, ...] = ()) -> bytes:
    """A PNG of rows that each begin with their filter, with a transparent colour or none."""
    height = len(rows) // (1 + width * depth * {2: 3, 4: 2}.get(colours, 1) // 8)
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colours, 0, 0, 0)),
        *([(b"tRNS", struct.pack(f">{len(key)}H", *key))] if key else []),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    )


LEVEL = st.sampled_from([0, 0x1234, 0x1299, 0x3434, 0x3499, 0xFF34, 0xFFFF])


@given(key=st.tuples(LEVEL, LEVEL, LEVEL), others=st.lists(st.tuples(LEVEL, LEVEL, LEVEL), max_size=9))
def test_the_transparent_colour_of_sixteen_bits_is_alpha_in_eight(
    key: tuple[int, ...], others: list[tuple[int, ...]]
) -> None:
    levels = np.array([key, *others], ">u2")
    picture = decoded(raw_png(len(levels), 16, 2, b"\0" + levels.tobytes(), key))
    assert picture.alpha is not None
    assert np.array_equal(picture.pixels[0], levels >> 8)
    assert np.array_equal(picture.alpha[0] == 0, (levels >> 8 == levels[0] >> 8).all(axis=1))


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_the_transparent_level_of_few_bits_is_alpha(depth: int) -> None:
    count = 2**depth
    bits = "".join(f"{level:0{depth}b}" for level in range(count)).ljust(8, "0")
    row = b"\0" + int(bits, 2).to_bytes(len(bits) // 8)
    for key in range(count):
        picture = decoded(raw_png(8 * len(row[1:]) // depth, depth, 0, row, (key,)))
        assert picture.alpha is not None
        assert np.array_equal(picture.pixels[0, :count, 0], np.arange(count) * 255 // (count - 1))
        assert np.array_equal(np.flatnonzero(picture.alpha[0, :count] == 0), [key])


def test_gray_with_alpha_stays_gray_at_sixteen_bits() -> None:
    alpha = np.arange(GRAY.size, dtype=np.uint8).reshape(GRAY.shape)
    levels = (np.stack([GRAY, alpha], 2).astype(np.uint16) * 257).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in levels)
    picture = decoded(raw_png(GRAY.shape[1], 16, 4, rows))
    assert picture.alpha is not None
    assert np.array_equal(picture.pixels, GRAY[..., None])
    assert np.array_equal(picture.alpha, alpha)
