"""Pictures of what a model does."""

from pathlib import Path

import numpy as np
import skimage.data
from PIL import Image, ImageDraw, ImageFont
from skimage.metrics import peak_signal_noise_ratio

from training.corruption import Corruption, LowLight, Photo, to_float, to_uint8
from training.peers import Denoiser

EVENING: Corruption = LowLight(photons=(60, 60), read=(3, 3), demosaic=0.0)


def before_after(denoiser: Denoiser, folder: Path) -> tuple[float, float]:
    """Write before-after.jpg and the noisy.jpg it was made from.

    The photograph is scikit-image's cup of coffee (Rachel Michetti, CC0), the noise that of a
    sensor in the evening (`EVENING`, seed 0), the input an ordinary JPEG.

    Returns:
        PSNR of noisy.jpg and of its restoration, dB.
    """
    folder.mkdir(parents=True, exist_ok=True)
    clean: Photo = skimage.data.coffee()
    noisy = to_uint8(EVENING.apply(to_float(clean), np.random.default_rng(0)))
    sample = folder / "noisy.jpg"
    Image.fromarray(noisy).save(sample, quality=95, subsampling=0)
    noisy = np.asarray(Image.open(sample))
    restored = denoiser(noisy, None)
    assert restored is not None
    _side_by_side([("in", noisy), ("out", restored)]).save(folder / "before-after.jpg", quality=90)
    before, after = (peak_signal_noise_ratio(clean, image, data_range=255) for image in (noisy, restored))
    return float(before), float(after)


def _side_by_side(panels: list[tuple[str, Photo]]) -> Image.Image:
    gap = 8
    height, width, _ = panels[0][1].shape
    sheet = Image.new("RGB", (len(panels) * (width + gap) - gap, height), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=22)
    for column, (label, pixels) in enumerate(panels):
        left = column * (width + gap)
        sheet.paste(Image.fromarray(pixels), (left, 0))
        draw.text((left + 12, height - 36), label, "white", font, stroke_width=3, stroke_fill="black")
    return sheet
