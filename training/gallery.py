"""Every corruption at rising levels: as a sheet, and as an animation."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import skimage.data
from PIL import Image, ImageDraw, ImageFont

from training.corruption import (
    H264,
    Camera,
    Corruption,
    Gaussian,
    Jpeg,
    LowLight,
    Masking,
    Photo,
    Poisson,
    SaltAndPepper,
    Sequence,
    Speckle,
    to_float,
    to_uint8,
)

# What changes from picture to picture, as the caption says it, and its levels from mild to strong.
GALLERY: dict[str, tuple[Callable[[float], Corruption], tuple[float, ...]]] = {
    "gaussian, sigma {:g}": (lambda level: Gaussian(sigma=(level, level)), (15, 30, 60, 127.5, 255)),
    "speckle, deviation {:g}": (lambda level: Speckle(deviation=(level, level)), (0.1, 0.2, 0.4, 0.7, 1)),
    "poisson, {:g} photons": (lambda level: Poisson(peak=(level, level)), (300, 100, 30, 10, 3)),
    "low light, {:g} photons": (
        lambda level: LowLight(photons=(level, level), read=(3, 3), demosaic=1.0),
        (1500, 500, 150, 50, 15),
    ),
    "camera, {:g} photons": (
        lambda level: Camera(photons=(level, level), demosaic=1.0),
        (1500, 500, 150, 50, 15),
    ),
    "rows and columns, {:g} electrons": (
        lambda level: Camera(photons=(100, 100), demosaic=1.0, rows=(level, level), columns=(level, level)),
        (0.2, 0.5, 1, 2, 4),
    ),
    "hot pixels, {:.1%}": (
        lambda level: Camera(photons=(1000, 1000), demosaic=1.0, hot=(level, level)),
        (0.001, 0.003, 0.01, 0.03, 0.1),
    ),
    "salt and pepper, {:.0%}": (
        lambda level: SaltAndPepper(amount=(level, level)),
        (0.02, 0.05, 0.1, 0.2, 0.4),
    ),
    "masking, {:.0%}": (lambda level: Masking(amount=(level, level)), (0.1, 0.25, 0.5, 0.75, 0.9)),
    "masking of elements, {:.0%}": (
        lambda level: Masking(amount=(level, level), unit="element"),
        (0.1, 0.25, 0.5, 0.75, 0.9),
    ),
    "masking of blocks, {:.0%}": (
        lambda level: Masking(amount=(level, level), block=(16, 16)),
        (0.1, 0.25, 0.5, 0.75, 0.9),
    ),
    "jpeg, quality {:g}": (lambda level: Jpeg(quality=(level, level)), (50, 25, 12, 6, 2)),
    "h264, crf {:g}": (lambda level: H264(crf=(level, level)), (23, 30, 37, 44, 51)),
    "gaussian + jpeg, sigma {:g}": (
        lambda level: Sequence(steps=(Gaussian(sigma=(level, level)), Jpeg(quality=(25, 25)))),
        (15, 30, 60, 127.5, 255),
    ),
}


def example(side: int = 192) -> Photo:
    """A square of scikit-image's cup of coffee (Rachel Michetti, CC0), uint8 `[side, side, 3]`."""
    square = skimage.data.coffee()[20:380, 110:470]
    smaller: Photo = np.asarray(cv2.resize(square, (side, side), interpolation=cv2.INTER_AREA), np.uint8)
    return smaller


def corrupted(clean: Photo, seed: int = 0) -> dict[str, list[Photo]]:
    """One row of pictures for each corruption, from mild to strong, by its caption."""
    return {
        caption: [
            to_uint8(make(level).apply(to_float(clean), np.random.default_rng(seed))) for level in levels
        ]
        for caption, (make, levels) in GALLERY.items()
    }


def title(caption: str) -> str:
    """The name of a row and the levels in it, in two lines."""
    name, _, level = caption.partition(", ")
    field = level[level.index("{") : level.index("}") + 1]
    mild, *_, strong = (field.format(each) for each in GALLERY[caption][1])
    return f"{name}\n{level.replace(field, f'{mild} to {strong}')}"


def animate(clean: Photo, path: Path) -> None:
    """Write a GIF in which every corruption grows from nothing to its strongest level."""
    frames = []
    for caption, pictures in corrupted(clean).items():
        levels = GALLERY[caption][1]
        for level, picture in zip(levels, pictures, strict=True):
            frames.append(_captioned(picture, caption.format(level)))
        frames[-len(levels) : -len(levels)] = [_captioned(clean, "clean")]
    coded = [frame.quantize(64, dither=Image.Dither.NONE) for frame in frames]
    durations = [900 if number % 6 in (0, 5) else 450 for number in range(len(frames))]
    path.parent.mkdir(parents=True, exist_ok=True)
    coded[0].save(path, save_all=True, append_images=coded[1:], duration=durations, loop=0, optimize=True)


def _captioned(picture: Photo, text: str) -> Image.Image:
    height, width, _ = picture.shape
    sheet = Image.new("RGB", (width, height + 20), "white")
    sheet.paste(Image.fromarray(picture), (0, 0))
    font = ImageFont.load_default(size=12)
    ImageDraw.Draw(sheet).text((width / 2, height + 10), text, "black", font, anchor="mm")
    return sheet
