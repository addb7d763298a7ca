"""Files built to cost a decoder minutes, and those that look like them."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, TiffImagePlugin

from service.errors import BadImageError
from service.header import inspect
from tests.service.test_codec import COLOUR, GRAY, LIMITS, RNG, decoded, file_of


def test_files_built_to_be_slow_are_refused() -> None:
    plain = bytearray(file_of(Image.fromarray(GRAY), "bmp"))
    plain[30] = 1
    with pytest.raises(BadImageError, match="Run-length"):
        inspect(bytes(plain), LIMITS)
    tiff = file_of(Image.fromarray(GRAY), "tiff")
    for tag, other in ((278, TiffImagePlugin.TILEWIDTH), (284, TiffImagePlugin.TILELENGTH)):
        entry = tiff.index(struct.pack("<H", tag) + b"\3\0" if tag == 284 else struct.pack("<H", tag))
        tiff = tiff[:entry] + struct.pack("<HHII", other, 4, 1, 8192) + tiff[entry + 12 :]
    with pytest.raises(BadImageError, match="tiles"):
        inspect(tiff, LIMITS)


def tiff(order: str, big: bool, strips: int, repeats: int = 0) -> bytes:
    """A gray picture of two pixels that lists so many strips, with a private tag repeated behind them."""
    number, width = ("Q", 8) if big else ("L", 4)
    values = {256: 1, 257: 2, 258: 8, 259: 1, 262: 1, 273: 0, 277: 1, 278: 1}
    start, entry = 2 * width, order + "HH" + number
    after = start + (8 if big else 2) + (len(values) + repeats) * (4 + start) + width
    tags = [struct.pack(entry, tag, 3, 1) + struct.pack(order + "H", value) for tag, value in values.items()]
    tags[5] = struct.pack(entry + number, 273, 3, strips, after)
    tags += repeats * [struct.pack(entry, 40000, 3, 1)]
    version = struct.pack(order + "HHH", 43, 8, 0) if big else struct.pack(order + "H", 42)
    head = (b"II" if order == "<" else b"MM") + version + struct.pack(order + number, start)
    count = struct.pack(order + ("Q" if big else "H"), len(tags))
    directory = count + b"".join(tag.ljust(4 + start, b"\0") for tag in tags) + bytes(width)
    return head + directory + strips * struct.pack(order + "H", 8)


@pytest.mark.parametrize(("order", "big"), [("<", False), (">", False), ("<", True)])
def test_tiffs_of_countless_strips_are_refused_before_they_are_opened(
    order: str, big: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert decoded(tiff(order, big, 3, 9_000)).pixels.shape == (2, 1, 1)
    assert inspect(tiff(order, big, 100_000), LIMITS).pixels == 2
    monkeypatch.delattr(Image, "open")
    striped = tiff(order, big, 100_001)
    tiled = striped.replace(struct.pack(order + "HH", 273, 3), struct.pack(order + "HH", 324, 3))
    for data in (striped, tiled):
        with pytest.raises(BadImageError, match="100000 strips or tiles"):
            inspect(data, LIMITS)
    with pytest.raises(BadImageError, match="10000 tags"):
        inspect(tiff(order, big, 3, 10_001), LIMITS)


def with_numbers(tag: int, kind: int, count: int, size: int) -> bytes:
    """A sound TIFF with so many numbers of a kind in a tag of the picture's directory."""
    data = tiff("<", False, 3, 1)
    private = data.index(struct.pack("<HH", 40000, 3))
    entry = struct.pack("<HHII", tag, kind, count, len(data))
    return data[:private] + entry + data[private + 12 :] + count * size * b"\1"


def test_tiffs_of_countless_numbers_are_refused_before_they_are_opened(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Pillow makes an object of each fraction, in 6 microseconds, twice."""
    resolution, fraction, signed_fraction, short = 282, 5, 10, 3
    assert inspect(with_numbers(resolution, fraction, 9_900, 8), LIMITS).pixels == 2
    assert inspect(with_numbers(301, short, 3 * 2**16, 2), LIMITS).pixels == 2  # a curve of 16 bits
    assert inspect(with_numbers(34377, 7, 1_000_000, 1), LIMITS).pixels == 2  # what Photoshop keeps
    monkeypatch.delattr(Image, "open")
    for numbers in ((fraction, 10_001, 8), (signed_fraction, 10_001, 8), (short, 500_001, 2)):
        with pytest.raises(BadImageError, match="too many numbers in its tags"):
            inspect(with_numbers(resolution, *numbers), LIMITS)


@pytest.mark.parametrize("pointer", [ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo])
def test_a_tiffs_exif_is_not_read(pointer: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may hold as many numbers as there are bytes; the orientation stands before it."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 3
    exif.get_ifd(pointer)[2] = (TiffImagePlugin.IFDRational(1, 7),) * 3
    exif[pointer] = 0
    data = file_of(Image.fromarray(GRAY), "tiff", exif=exif)
    with Image.open(io.BytesIO(data)) as image:
        assert image.getexif().get_ifd(pointer)
    monkeypatch.delattr(Image.Exif, "_get_ifd_dict")
    assert np.array_equal(decoded(data).pixels[..., 0], GRAY[::-1, ::-1])


def test_big_endian_bigtiff_is_still_unreadable() -> None:
    """Pillow takes it for a plain TIFF; on the day it no longer does, the count of strips must not either."""
    with pytest.raises(BadImageError, match="corrupt"):
        inspect(tiff(">", True, 3), LIMITS)


@pytest.mark.parametrize("front", [b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"])
@given(rest=st.binary(max_size=64))
@settings(max_examples=100, deadline=None)
def test_tiffs_of_anything_are_refused(front: bytes, rest: bytes) -> None:
    with pytest.raises(BadImageError):
        inspect(front + rest, LIMITS)


@pytest.mark.parametrize(
    ("bits", "row", "pixels"),
    [(8, b"\2\1\0\0", [[2], [1]]), (24, b"\2\1\1\1\2\2\0\0", [[1, 1, 2], [2, 2, 1]])],
)
def test_bmps_of_os2_have_no_compression(bits: int, row: bytes, pixels: list[list[int]]) -> None:
    """Byte 30, where others have it, is of the palette or of the pixels."""
    palette = bytes(level for gray in range(256) for level in 3 * (gray,)) if bits == 8 else b""
    start = 26 + len(palette)
    head = struct.pack("<IHHIIHHHH", start + 2 * len(row), 0, 0, start, 12, 2, 2, 1, bits)
    data = b"BM" + head + palette + 2 * row
    assert data[30] in (1, 2)
    assert decoded(data).pixels.tolist() == 2 * [pixels]


@pytest.mark.parametrize("front", [b"", b"\xff\xd8\xff\xd9"], ids=["", "tables only in front"])
@pytest.mark.parametrize(
    "between",
    [
        b"",
        b"\xff\xff\xff",  # fill bytes
        b"\0\1\xff\0\xff\xff\0",  # entropy-coded data that no pixel needs
        b"\xff\xd3",  # a restart
        b"\xff\xe3\0\0",  # a length that leaves itself out
        b"\xff\xfe\0\1",
        b"\xff\xe3\0\3\xff",  # a segment that ends in half a marker
        b"\xff\xfe\0\4\xff\xd9",  # an end of image that is a comment
    ],
)
def test_scans_that_a_decoder_finds_are_counted(front: bytes, between: bytes) -> None:
    progressive = file_of(Image.fromarray(COLOUR), "jpeg", progressive=True)
    start = progressive.rindex(b"\xff\xda")
    head, scan, end = front + progressive[:start], between + progressive[start:-2], progressive[-2:]
    assert np.array_equal(decoded(head + scan + end).pixels, decoded(progressive).pixels)
    assert not np.array_equal(decoded(head + end).pixels, decoded(progressive).pixels)
    with pytest.raises(BadImageError, match="100 scans"):
        inspect(head + 101 * scan + end, LIMITS)
    with pytest.raises(BadImageError, match="segments"):
        inspect(head + 20_000 * b"\xff\xe3\0\2" + scan + end, LIMITS)


def test_a_jpeg_of_megabytes_of_exif_is_refused_before_it_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow joins the segments and reads the resolution out of them, whatever numbers that may be."""
    plain = file_of(Image.fromarray(COLOUR), "jpeg")
    exif = b"\xff\xe1" + struct.pack(">H", 2**16 - 1) + b"Exif\0\0".ljust(2**16 - 3, b"\1")
    assert inspect(plain[:2] + 4 * exif + plain[2:], LIMITS).format == "jpeg"
    monkeypatch.delattr(Image, "open")
    with pytest.raises(BadImageError, match="256 kB of EXIF"):
        inspect(plain[:2] + 5 * exif + plain[2:], LIMITS)


@pytest.mark.parametrize("front", [b"", b"\xff\xd8\xff\xd9"], ids=["", "tables only in front"])
@pytest.mark.parametrize(
    "filler", [b"\xff", b"\0", b"\xff\0", b"\xff\xd3"], ids=["fill", "junk", "stuffed", "restarts"]
)
def test_jpegs_of_fill_are_refused_before_they_are_opened(
    filler: bytes, front: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pillow walks to the first scan byte by byte; libjpeg, which goes on from there, is quick."""
    plain = file_of(Image.fromarray(COLOUR), "jpeg", progressive=True)
    first, last = plain.index(b"\xff\xda"), plain.rindex(b"\xff\xda")
    some, many = (size // len(filler) * filler for size in (60_000, 70_000))
    for data in (front + plain[:first] + some + plain[first:], front + plain[:last] + many + plain[last:]):
        assert np.array_equal(decoded(data).pixels, decoded(plain).pixels)
    monkeypatch.delattr(Image, "open")
    half, tables = many[: len(many) // 2], plain.index(b"\xff\xdb")
    in_two_places = plain[:tables] + half + plain[tables:first] + half + plain[first:]
    for data in (plain[:first] + many + plain[first:], in_two_places, plain[:first] + many):
        with pytest.raises(BadImageError, match="64 kB of fill and tables"):
            inspect(front + data, LIMITS)


@pytest.mark.parametrize(
    ("segment", "repeats"),
    [
        (b"\xff\xc0\xff\xfc\x08\0\x09\0\x0e\x55".ljust(65_534, b"\1"), 2),  # a frame of 21 842 layers
        (b"\xff\xdb\xfe\xc6" + 1_000 * bytes(65), 2),
        (b"\xff\xf0\xff\xff" + 65_533 * b"\xff", 2),  # no segment to Pillow, nothing at all to libjpeg
        (b"\xff\xf0\xff\xff\xff\xe3\xff\xfd".ljust(65_537, b"\0") + 70_000 * b"\0", 1),
    ],
    ids=["frames", "tables", "fill that looks like a segment", "fill behind a segment that looks like one"],
)
def test_jpegs_of_countless_layers_and_tables_are_refused_before_they_are_opened(
    segment: bytes, repeats: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pillow makes an object of each."""
    plain = file_of(Image.fromarray(COLOUR), "jpeg")
    scan = plain.index(b"\xff\xda")
    monkeypatch.delattr(Image, "open")
    with pytest.raises(BadImageError, match="64 kB of fill and tables"):
        inspect(plain[:scan] + repeats * segment + plain[scan:], LIMITS)


def chunk(kind: bytes, content: bytes = b"") -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_with(chunks: bytes, before: bytes) -> bytes:
    """A sound PNG with chunks put in before its pixels (IDAT) or its end (IEND)."""
    plain = file_of(Image.fromarray(COLOUR), "png")
    place = plain.index(before) - 4
    return plain[:place] + chunks + plain[place:]


@pytest.mark.parametrize(
    ("kind", "content", "before"),
    [
        (b"IDAT", b"", b"IDAT"),
        (b"IDAT", b"", b"IEND"),
        (b"prIv", b"", b"IDAT"),
        (b"prIv", bytes(1000), b"IEND"),
        (b"tEXt", b"a\0b", b"IDAT"),
        (b"PLTE", bytes(3), b"IDAT"),
    ],
)
def test_pngs_of_countless_chunks_are_refused_before_they_are_opened(
    kind: bytes, content: bytes, before: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pillow reads them one by one in Python, those behind the pixels as well."""
    assert np.array_equal(decoded(png_with(9_990 * chunk(kind, content), before)).pixels, COLOUR)
    monkeypatch.delattr(Image, "open")
    with pytest.raises(BadImageError, match="10000 small chunks"):
        inspect(png_with(10_001 * chunk(kind, content), before), LIMITS)


def test_large_pngs_are_of_as_many_chunks_as_they_need() -> None:
    """libpng cuts pixels into 8 kB by itself; a larger body may be allowed, and encoders that cut finer."""
    pixels = RNG.integers(0, 256, (2_000, 2_000, 3), np.uint8)
    whole = file_of(Image.fromarray(pixels), "png", compress_level=0)
    start, end = whole.index(b"IDAT") - 4, whole.index(b"IEND", len(whole) - 12) - 4
    stream = zlib.compress(b"".join(b"\0" + row.tobytes() for row in pixels), 0)
    cut = b"".join(chunk(b"IDAT", stream[at : at + 1024]) for at in range(0, len(stream), 1024))
    assert cut.count(b"IDAT") > 11_000
    assert np.array_equal(decoded(whole[:start] + cut + whole[end:]).pixels, pixels)


@pytest.mark.parametrize("end", [chunk(b"IEND"), b"\0\0\0\0 no kind of a chunk"])
def test_what_follows_a_png_is_not_counted(end: bytes) -> None:
    behind = png_with(end + 20_000 * chunk(b"prIv"), b"IEND")
    assert np.array_equal(decoded(behind).pixels, COLOUR)


@pytest.mark.parametrize("before", [b"IDAT", b"IEND"])
@pytest.mark.parametrize(
    ("kind", "front"),
    [(b"iCCP", b"a\0\0"), (b"zTXt", b"\0\0"), (b"iTXt", b"a\0\1\0\0\0")],
)
def test_pngs_that_inflate_countless_times_are_refused_before_they_are_opened(
    kind: bytes, front: bytes, before: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kilobyte becomes a megabyte; Pillow's own bound is on texts that have a name and can be read."""
    unreadable = chunk(kind, front + zlib.compress(b"\xff" * 2**20))
    assert np.array_equal(decoded(png_with(100 * unreadable, before)).pixels, COLOUR)
    monkeypatch.delattr(Image, "open")
    with pytest.raises(BadImageError, match="100 profiles and texts"):
        inspect(png_with(101 * unreadable, before), LIMITS)


def test_what_a_segment_holds_or_follows_the_picture_is_no_scan() -> None:
    """As in a phone's motion photo: a thumbnail in the metadata, a film at the end."""
    thumbnail, film = 101 * b"\xff\xd8\xff\xda\xff\xd9", RNG.bytes(10_000_000)
    assert film.count(b"\xff\xda") > 101
    for progressive in (False, True):
        plain = file_of(Image.fromarray(COLOUR), "jpeg", progressive=progressive)
        motion = file_of(Image.fromarray(COLOUR), "jpeg", progressive=progressive, exif=thumbnail) + film
        assert np.array_equal(decoded(motion).pixels, decoded(plain).pixels)
