import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from service.codec import Picture, decode, encode
from service.errors import (
    BadImageError,
    BadParameterError,
    FormatNotAllowedError,
    ImageTooLargeError,
    ServiceError,
)
from service.header import Limits, inspect, sniff
from service.settings import ImageFormat
from tests.conftest import SHARED

FORMATS: tuple[ImageFormat, ...] = ("jpeg", "png", "webp", "bmp", "tiff")
LIMITS = Limits(frozenset(FORMATS), max_pixels=50_000_000, max_side=16384)
RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (9, 14, 3), np.uint8)
GRAY = RNG.integers(0, 256, (9, 14), np.uint8)
ALPHA = RNG.integers(0, 256, (9, 14), np.uint8)


def file_of(image: Image.Image, format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def decoded(data: bytes) -> Picture:
    return decode(data, inspect(data, LIMITS))


@pytest.mark.parametrize("format", ["png", "bmp", "tiff"])
@pytest.mark.parametrize("pixels", [COLOUR, GRAY[..., None]], ids=["colour", "gray"])
def test_lossless_formats_keep_every_pixel(format: ImageFormat, pixels: npt.NDArray[np.uint8]) -> None:
    data = encode(Picture(pixels), format, 90)
    assert sniff(data) == format
    assert np.array_equal(decoded(data).pixels, pixels)


@pytest.mark.parametrize("compression", [None, "deflate"])
def test_planes_of_16_bits_are_right_or_refused(compression: str | None) -> None:
    file = io.BytesIO()
    planes = COLOUR.transpose(2, 0, 1).astype(np.uint16) * 257
    tifffile.imwrite(file, planes, photometric="rgb", planarconfig="separate", compression=compression)
    if compression:
        assert np.array_equal(decoded(file.getvalue()).pixels, COLOUR)
    else:
        with pytest.raises(BadImageError, match="separate planes of 16 bits"):
            decoded(file.getvalue())


@pytest.mark.parametrize("format", FORMATS)
def test_headers_tell_format_and_size(format: ImageFormat) -> None:
    header = inspect(encode(Picture(COLOUR), format, 90), LIMITS)
    assert (header.format, header.width, header.height) == (format, 14, 9)


@pytest.mark.parametrize(
    ("channels", "options"), [(3, {"lossless": True}), (3, {"quality": 50}), (4, {"quality": 50})]
)
def test_webp_size_is_read_from_each_kind_of_header(channels: int, options: dict[str, Any]) -> None:
    pixels = np.concatenate([COLOUR, ALPHA[..., None]], axis=2)[..., :channels]
    header = inspect(file_of(Image.fromarray(pixels), "webp", **options), LIMITS)
    assert (header.width, header.height) == (14, 9)


@pytest.mark.parametrize(("comment", "size"), [(2**17, (40, 24)), (2**18, (24, 40))])
def test_metadata_of_a_quarter_megabyte_is_not_looked_into(comment: int, size: tuple[int, int]) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x9286] = b"x" * comment
    gray = Image.new("L", (40, 24))
    assert decoded(file_of(gray, "png", exif=exif)).pixels.shape[:2] == size
    as_text = PngInfo()
    profile = exif.tobytes()[: comment // 2].hex()
    as_text.add_text("Raw profile type exif", f"\nexif\n{len(profile) // 2:8}\n{profile}", zip=True)
    assert decoded(file_of(gray, "png", pnginfo=as_text)).pixels.shape[:2] == size


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["jpeg", "png", "webp", "tiff"])
def test_orientation_is_applied_and_metadata_dropped(format: ImageFormat, orientation: int) -> None:
    corner = np.zeros((24, 40, 3), np.uint8)
    corner[:8, :8] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010E] = "somebody's garden"
    upright = decoded(file_of(Image.fromarray(corner), format, exif=exif)).pixels
    assert upright.shape[:2] == ((24, 40) if orientation < 5 else (40, 24))
    bright = np.argwhere(upright.mean(axis=2) > 128).mean(axis=0) > np.array(upright.shape[:2]) / 2
    expected = {1: (0, 0), 2: (0, 1), 3: (1, 1), 4: (1, 0), 5: (0, 0), 6: (0, 1), 7: (1, 1), 8: (1, 0)}
    assert tuple(bright.astype(int)) == expected[orientation]
    with Image.open(io.BytesIO(encode(Picture(upright), format, 90))) as result:
        assert "garden" not in str(dict(result.getexif()))
        assert 0x0112 not in result.getexif() or result.getexif()[0x0112] == 1


def test_colours_follow_the_profile() -> None:
    """A profile whose red and green are swapped turns red pixels green."""
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = srgb.replace(b"rXYZ", b"tmp ").replace(b"gXYZ", b"rXYZ").replace(b"tmp ", b"gXYZ")
    red = Image.new("RGB", (4, 4), (255, 0, 0))
    pixel = decoded(file_of(red, "png", icc_profile=swapped)).pixels[0, 0]
    assert pixel[1] > 250
    assert pixel[0] < 5
    palette = decoded(file_of(red.quantize(2), "png", icc_profile=swapped)).pixels[0, 0]
    assert tuple(palette) == tuple(pixel)
    red.putalpha(77)
    veiled = decoded(file_of(red, "png", icc_profile=swapped))
    assert tuple(veiled.pixels[0, 0]) == tuple(pixel)
    assert veiled.alpha is not None
    assert (veiled.alpha == 77).all()
    red = red.convert("RGB")
    broken = decoded(file_of(red, "png", icc_profile=b"not a profile")).pixels[0, 0]
    assert tuple(broken) == (255, 0, 0)


def gray_profile() -> bytes:
    """The smallest ICC profile (ICC.1:2010, 7 and 10.5) of a gray that is proportional to light."""
    white = b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)  # D50, in 65536ths
    table = struct.pack(">I4s2I4s2I", 2, b"wtpt", 156, 20, b"kTRC", 176, 12)
    head = struct.pack(">I4xI4s4s4s12x4s28x", 188, 0x2400000, b"mntr", b"GRAY", b"XYZ ", b"acsp") + white[8:]
    return head.ljust(128, b"\0") + table + white + b"curv" + bytes(8)


@pytest.mark.parametrize("format", ["png", "tiff"])
def test_grays_follow_the_profile_at_any_depth_and_with_alpha(format: str) -> None:
    plain, deep = Image.fromarray(GRAY), Image.fromarray(GRAY.astype(np.uint16) * 257)
    layered = plain.copy()
    layered.putalpha(Image.fromarray(ALPHA))
    eight = decoded(file_of(plain, format, icc_profile=gray_profile())).pixels
    assert np.abs(eight[..., 0] - 255 * (GRAY / 255) ** (1 / 2.2)).mean() < 3
    for image in (deep, layered):
        picture = decoded(file_of(image, format, icc_profile=gray_profile()))
        assert picture.pixels.shape == eight.shape
        assert np.abs(picture.pixels.astype(int) - eight).max() <= 1
    assert picture.alpha is not None
    assert np.array_equal(picture.alpha, ALPHA)


@pytest.mark.parametrize("format", ["png", "tiff"])
def test_sixteen_bits_become_eight(format: str) -> None:
    deep = Image.fromarray(GRAY.astype(np.uint16) * 257)
    assert np.array_equal(decoded(file_of(deep, format)).pixels[..., 0], GRAY)


def test_cmyk_palette_and_bilevel_are_converted() -> None:
    cmyk = decoded(file_of(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "jpeg")).pixels[4, 4]
    assert cmyk[0] > 200
    assert max(cmyk[1:]) < 60
    palette = Image.fromarray(COLOUR).quantize(16)
    assert np.array_equal(decoded(file_of(palette, "png")).pixels, np.asarray(palette.convert("RGB")))
    bilevel = Image.fromarray(GRAY > 100)
    assert set(np.unique(decoded(file_of(bilevel, "tiff")).pixels)) == {0, 255}


@pytest.mark.parametrize("base", [COLOUR, GRAY], ids=["colour", "gray"])
def test_alpha_is_kept_where_it_can_be_and_else_flattened_on_white(base: npt.NDArray[np.uint8]) -> None:
    image = Image.fromarray(base)
    image.putalpha(Image.fromarray(ALPHA))
    picture = decoded(file_of(image, "png"))
    assert picture.alpha is not None
    assert np.array_equal(picture.alpha, ALPHA)
    again = decoded(encode(picture, "png", 90))
    assert again.alpha is not None
    assert np.array_equal(again.alpha, ALPHA)
    clear = Picture(picture.pixels, np.zeros_like(ALPHA))
    assert (decoded(encode(clear, "bmp", 90)).pixels == 255).all()
    assert decoded(encode(picture, "jpeg", 90)).alpha is None


def test_first_page_of_a_document_but_no_animation() -> None:
    pages = [Image.fromarray(COLOUR), Image.fromarray(255 - COLOUR)]
    document = file_of(pages[0], "tiff", save_all=True, append_images=pages[1:])
    assert np.array_equal(decoded(document).pixels, COLOUR)
    for format in ("png", "webp"):
        animation = file_of(pages[0], format, save_all=True, append_images=pages[1:], duration=100)
        with pytest.raises(BadImageError, match="animated"):
            decoded(animation)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", BadImageError),
        (b"hello, world", BadImageError),
        (file_of(Image.fromarray(COLOUR), "gif"), FormatNotAllowedError),
        (b"<?xml version='1.0'?><svg/>", FormatNotAllowedError),
        (b"\x00\x00\x00\x20ftypavif" + bytes(40), FormatNotAllowedError),
        (file_of(Image.fromarray(GRAY.astype(np.float32)), "tiff"), BadImageError),
        (file_of(Image.fromarray(COLOUR), "tiff", tiffinfo={254: 1}), BadImageError),
        (file_of(Image.fromarray(COLOUR), "tiff", tiffinfo={50706: b"\1\4\0\0"}), BadImageError),
        (b"RIFF\x10\0\0\0WEBPVP8X", BadImageError),
        (b"RIFF\x10\0\0\0WEBPJUNK" + bytes(20), BadImageError),
    ],
)
def test_what_cannot_be_taken_is_named(data: bytes, error: type[ServiceError]) -> None:
    with pytest.raises(error):
        decoded(data)


def test_a_format_can_be_switched_off() -> None:
    with pytest.raises(FormatNotAllowedError, match="png"):
        inspect(file_of(Image.fromarray(COLOUR), "bmp"), Limits(frozenset({"png"}), 1000, 1000))


def claims(width: int, height: int) -> bytes:
    """A small PNG whose header claims another size, with a right checksum."""
    data = file_of(Image.new("L", (8, 8)), "png")
    header = b"IHDR" + struct.pack(">II", width, height) + data[24:29]
    return data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]


def test_size_is_checked_by_the_header() -> None:
    with pytest.raises(ImageTooLargeError, match="13000x13000"):
        inspect(claims(13000, 13000), LIMITS)
    with pytest.raises(ImageTooLargeError, match="16384 pixels a side"):
        inspect(claims(16385, 1), LIMITS)
    with pytest.raises(BadImageError):
        decoded(claims(9, 3000))
    with pytest.raises(BadImageError):
        inspect(claims(0, 8), LIMITS)


def test_white_is_zero_is_inverted_in_deep_images_too() -> None:
    deep = Image.fromarray(GRAY.astype(np.uint16) * 257)
    data = bytearray(file_of(deep, "tiff"))
    entry = data.index(struct.pack("<HHI", 262, 3, 1))
    data[entry + 8] = 0
    assert np.array_equal(decoded(bytes(data)).pixels[..., 0], 255 - GRAY)


def test_broken_metadata_does_not_spoil_good_pixels() -> None:
    data = file_of(Image.fromarray(COLOUR), "png", exif=b"Exif\0\0 this is no TIFF directory")
    assert np.array_equal(decoded(data).pixels, COLOUR)


def test_gray_with_alpha_stays_gray() -> None:
    layered = Image.fromarray(GRAY)
    layered.putalpha(Image.fromarray(ALPHA))
    picture = decoded(file_of(layered, "png"))
    assert picture.pixels.shape == (9, 14, 1)
    assert np.array_equal(picture.pixels[..., 0], GRAY)


def test_formats_that_cannot_hold_the_size_say_so() -> None:
    with pytest.raises(BadParameterError, match="16383"):
        encode(Picture(np.zeros((1, 16384, 1), np.uint8)), "webp", 90)


@pytest.mark.parametrize("format", FORMATS)
@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_broken_files_are_refused_or_decoded_never_worse(format: ImageFormat, data: st.DataObject) -> None:
    whole = bytearray(encode(Picture(COLOUR), format, 90))
    for _ in range(data.draw(st.integers(0, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(whole)))
    try:
        picture = decoded(bytes(whole[:cut]))
    except ServiceError:
        return
    assert picture.pixels.dtype == np.uint8
    assert picture.pixels.ndim == 3


@pytest.mark.skipif(not (SHARED / "torture").is_dir(), reason="needs the collection of odd files")
def test_the_torture_folder_raises_nothing_else() -> None:
    outcomes: dict[str, int] = {}
    for path in sorted((SHARED / "torture").rglob("*.*")):
        if path.is_file() and path.suffix != ".tsv":
            outcome = torture_outcome(path)
            outcomes[outcome] = outcomes.get(outcome, 0) + 1
    assert outcomes["ok"] > 500
    assert set(outcomes) <= {"ok", "bad-image", "format-not-allowed", "image-too-large"}


def torture_outcome(path: Path) -> str:
    try:
        decoded(path.read_bytes())
    except ServiceError as error:
        return error.reason
    return "ok"
