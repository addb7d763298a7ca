"""Folders of photographs as an endless, seeded stream of (noisy, clean) training patches."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import torch
from PIL import Image as PillowImage
from PIL import ImageOps
from torch.utils.data import Dataset, Sampler

from training.augment import augmented, exposed
from training.corruption import Corruption, Photo, to_float, to_uint8
from training.errors import DataError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})
log = logging.getLogger(__name__)


def image_files(folder: Path) -> list[Path]:
    """Every image file below `folder`, sorted, so that equal folders give equal order.

    Raises:
        DataError: the folder is missing or holds no images.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; pass the folder that holds the photographs")
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not files:
        raise DataError(f"{folder} holds no images ({', '.join(sorted(SUFFIXES))})")
    return files


def read_rgb(path: Path) -> Photo:
    """Read one image as uint8 `[H, W, 3]`, upright, of 16 bits rounded, on white where it has alpha.

    Raises:
        DataError: it cannot be read, or its pixels have no 8-bit meaning; the file is named.
    """
    try:
        with PillowImage.open(path) as image:
            return np.asarray(_in_eight_bits(ImageOps.exif_transpose(image)))
    except (OSError, ValueError, SyntaxError, PillowImage.DecompressionBombError) as error:
        raise DataError(f"{path} cannot be read: {error}") from None


def _in_eight_bits(image: PillowImage.Image) -> PillowImage.Image:
    """RGB. By itself Pillow makes white of what is above 255, and shows the colours under transparency."""
    if image.mode.startswith("I;16"):
        levels = (np.asarray(image).astype(np.uint32) * 255 + 32767) // 65535
        return PillowImage.fromarray(levels.astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise ValueError(f"pixels of kind {image.mode} have no 8-bit meaning; convert to 8 or 16 bits")
    if image.has_transparency_data:
        layers = image.convert("RGBA")
        white = PillowImage.new("RGBA", layers.size, "white")
        return PillowImage.alpha_composite(white, layers).convert("RGB")
    return image.convert("RGB")


def read_photos(folder: Path, smallest: int) -> list[Photo]:
    """Read every photograph of a folder whose shorter side is at least `smallest` pixels.

    Files that cannot be read or are too small are named in the log, skipped and counted.

    Raises:
        DataError: nothing usable is left.
    """
    photos = []
    files = image_files(folder)
    for path in files:
        try:
            photo = read_rgb(path)
        except DataError as error:
            log.warning("skipped: %s", error)
            continue
        if min(photo.shape[:2]) < smallest:
            log.warning("skipped %s: %dx%d is under %d", path, *photo.shape[1::-1], smallest)
            continue
        photos.append(photo)
    if len(photos) < len(files):
        log.warning("skipped %d of %d files in %s", len(files) - len(photos), len(files), folder)
    if not photos:
        raise DataError(f"no photograph in {folder} is readable and at least {smallest} px a side")
    return photos


def to_tensor(image: Photo) -> torch.Tensor:
    """uint8 `[H, W, 3]` to float32 `[3, H, W]`, 0..1."""
    planes = np.ascontiguousarray(image.transpose(2, 0, 1))
    return torch.from_numpy(planes).float() / 255


class Patches(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Patch number i of an endless stream: (noisy, clean), float32 `[3, patch, patch]`, 0..1.

    The patch depends on (seed, i) alone, so any worker can make it and a resumed run goes on
    where it stopped. Photographs are randomly shrunk (which also averages away their own noise),
    cropped, flipped, turned, and made gray with probability `gray`. Of those in colour a share of
    `augment` is turned by any angle, stretched, sharpened, and seen in other light (see `augment`).
    Of gray ones that share is only exposed otherwise: where no colour tells noise from texture, crops
    sharper than photographs taught networks to leave noise.
    """

    def __init__(
        self,
        photos: list[Photo],
        corruption: Corruption,
        *,
        patch: int,
        shrink: float,
        gray: float,
        augment: float,
        seed: int,
    ) -> None:
        self.photos = photos
        self.corruption = corruption
        self.patch = patch
        self.shrink = shrink
        self.gray = gray
        self.seed = seed
        self.augment = augment
        areas = np.array([photo.shape[0] * photo.shape[1] for photo in photos], np.float64)
        self._share = np.cumsum(areas / areas.sum())

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        rng = np.random.default_rng((self.seed, index))
        is_gray = rng.random() < self.gray
        clean = self._gray(rng) if is_gray else self._coloured(rng)
        noisy = to_uint8(self.corruption.apply(to_float(clean), rng))
        return to_tensor(one_channel(noisy) if is_gray else noisy), to_tensor(clean)

    def _photo(self, rng: np.random.Generator) -> Photo:
        return self.photos[min(int(np.searchsorted(self._share, rng.random())), len(self.photos) - 1)]

    def _coloured(self, rng: np.random.Generator) -> Photo:
        if rng.random() < self.augment:
            changed = augmented(self._photo(rng), self.patch, self.shrink, rng)
            if changed is not None:
                return to_uint8(changed)
        return self._plain(rng)

    def _gray(self, rng: np.random.Generator) -> Photo:
        plain = gray(self._plain(rng))
        return to_uint8(exposed(to_float(plain), rng)) if rng.random() < self.augment else plain

    def _plain(self, rng: np.random.Generator) -> Photo:
        photo = self._photo(rng)
        height, width = photo.shape[:2]
        side = round(self.patch * rng.uniform(1, min(self.shrink, min(height, width) / self.patch)))
        top, left = rng.integers(height - side + 1), rng.integers(width - side + 1)
        crop = photo[top : top + side, left : left + side]
        if side != self.patch:
            crop = cast(Photo, cv2.resize(crop, (self.patch, self.patch), interpolation=cv2.INTER_AREA))
        crop = np.rot90(crop, int(rng.integers(4)))
        return crop[:, ::-1] if rng.random() < 0.5 else crop


def gray(image: Photo) -> Photo:
    """BT.601 luma as three equal channels."""
    luma = cast(Photo, cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY))
    return one_channel(luma[..., None])


def one_channel(image: Photo) -> Photo:
    """The middle channel for all three: a mean of three noises would be less than a gray camera's."""
    middle = image.shape[2] // 2
    return np.repeat(image[..., middle : middle + 1], 3, axis=2)


class Stream(Sampler[int]):
    """Indices begin, begin + 1 and so on: a stream cut into epochs of `length`.

    Of those each of `world` processes takes every `world`-th, from its `rank` on. Lightning calls
    `set_epoch` for each epoch, but after the first indices are drawn, and an epoch that the end of a
    budget cut off counts as one: so only by how much its numbers grow is used.
    """

    def __init__(self, length: int, begin: int, rank: int = 0, world: int = 1) -> None:
        self.length = length
        self.begin = begin
        self.rank = rank
        self.world = world
        self._first_epoch: int | None = None
        self._epochs = 0

    def set_epoch(self, epoch: int) -> None:
        if self._first_epoch is None:
            self._first_epoch = epoch
        self._epochs = epoch - self._first_epoch

    def __len__(self) -> int:
        return self.length // self.world

    def __iter__(self) -> Iterator[int]:
        begin = self.begin + self._epochs * self.length
        return iter(range(begin + self.rank, begin + self.length, self.world))
