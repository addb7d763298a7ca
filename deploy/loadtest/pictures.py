"""The pictures that are sent: licensed photographs, cut to the sizes of cameras, with a sensor's noise."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import skimage.data
from PIL import Image, ImageOps

ROOT = Path(__file__).parent.parent.parent
_NOISE = 12.0  # standard deviation, of 255
_JPEG_QUALITY = 90


@dataclass(frozen=True)
class Kind:
    """Pictures of one size and format, and how many cards of the deck they are."""

    width: int
    height: int
    format: Literal["jpeg", "png"]
    cards: int


MIXES: dict[str, tuple[Kind, ...]] = {
    "mixed": (
        Kind(64, 64, "jpeg", 6),
        Kind(64, 64, "png", 2),
        Kind(640, 360, "jpeg", 6),
        Kind(640, 360, "png", 2),
        Kind(1280, 720, "jpeg", 2),
        Kind(1280, 720, "png", 1),
        Kind(1920, 1080, "jpeg", 1),
    ),
    "thumbnails": (Kind(64, 64, "jpeg", 3), Kind(64, 64, "png", 1)),
    "360p": (Kind(640, 360, "jpeg", 4),),
    "720p": (Kind(1280, 720, "jpeg", 4),),
    "720p-png": (Kind(1280, 720, "png", 4),),
    "1080p": (Kind(1920, 1080, "jpeg", 4),),
}


@dataclass(frozen=True)
class Picture:
    """One file to send."""

    file: Path
    kind: Kind


def make_pictures(mix: str, folder: Path) -> list[Picture]:
    """Write a deck into `folder`: each kind as often as it has cards, each card from another photograph.

    The photographs are docs/noisy.jpg and scikit-image's cat, coffee and rocket (CC0) and astronaut
    (public domain); the noise is seeded, so the bytes are the same on every machine with the same Pillow.
    """
    names = ("chelsea", "coffee", "astronaut", "rocket")
    photographs = [Image.fromarray(getattr(skimage.data, name)()) for name in names]
    photographs.append(Image.open(ROOT / "docs" / "noisy.jpg").convert("RGB"))
    deck: list[Picture] = []
    for kind in MIXES[mix]:
        for card in range(kind.cards):
            file = folder / f"{kind.width}x{kind.height}-{card}.{kind.format}"
            rng = np.random.default_rng([kind.width, card])
            file.write_bytes(_encoded(photographs[len(deck) % len(photographs)], kind, rng))
            deck.append(Picture(file, kind))
    return deck


def _encoded(photograph: Image.Image, kind: Kind, rng: np.random.Generator) -> bytes:
    cut = ImageOps.fit(photograph, (kind.width, kind.height), Image.Resampling.BICUBIC)
    clean: npt.NDArray[np.float64] = np.asarray(cut, np.float64)
    noisy = np.clip(clean + rng.normal(0, _NOISE, clean.shape), 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(noisy).save(file, kind.format, quality=_JPEG_QUALITY)
    return file.getvalue()
