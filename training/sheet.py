"""Pictures beside the figures: noisy, the best peer, ours and clean, on images that nobody picked."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from matplotlib.figure import Figure

from training.cases import REAL, Folder
from training.corruption import Photo
from training.evaluate import Row, psnr
from training.peers import Denoiser

CORRUPTIONS = ("gaussian 25", "gaussian 50, gray", "low light, 100 photons", REAL)
_SIDE = 128


@dataclass(frozen=True)
class Strip:
    """Crops of one image by what they show; `psnr` is that of the whole images, dB."""

    title: str
    crops: dict[str, Photo]
    psnr: dict[str, float]


def strips(
    folders: Sequence[Folder], rows: Sequence[Row], denoisers: Sequence[Denoiser], family: Sequence[str]
) -> list[Strip]:
    """For each corruption of the sheet the image whose gain is the median, at its most detailed place.

    Ours is the first of the family; the peer is the one outside of it with the highest mean PSNR in that row.
    """
    ours = family[0]
    found = []
    by_name = {each.name: each for each in denoisers}
    for folder, row in _chosen(folders, rows):
        gains = row.gains(ours)
        middle = int(np.argsort(gains)[len(gains) // 2])
        place, path = list(folder.clean.items())[middle]
        pair = folder.pair(row.corruption, place, path)
        peers = [name for name in row.scores if name not in ("noisy", *family)]
        best = max(peers, key=lambda name: row.mean(name, "psnr"), default=None)
        images = {"noisy": pair.noisy}
        for name in filter(None, (best, ours)):
            restored = by_name[name](pair.noisy, pair.sigma)
            assert restored is not None
            images[name] = restored
        crop = _detailed(pair.clean)
        crops = {name: image[crop] for name, image in {**images, "clean": pair.clean}.items()}
        figures = {name: psnr(pair.clean, image) for name, image in images.items()}
        found.append(Strip(f"{row.corruption}\n{pair.name}", crops, figures))
    return found


def sheet(found: Sequence[Strip]) -> Figure:
    """A line of crops for each strip, each with its name and PSNR over it."""
    columns = max(len(strip.crops) for strip in found)
    figure = Figure((2.6 * columns + 0.4, 2.9 * len(found)), layout="constrained")
    for line, strip in zip(figure.subplots(len(found), columns, squeeze=False), found, strict=True):
        for place in line:
            place.set_axis_off()
        for place, (name, crop) in zip(line, strip.crops.items(), strict=False):
            figured = f"\n{strip.psnr[name]:.2f} dB" if name in strip.psnr else "\n"
            place.imshow(crop, interpolation="nearest", vmin=0, vmax=255)
            place.set_title(name + figured, fontsize=9)
        line[0].text(
            -0.04,
            0.5,
            strip.title,
            transform=line[0].transAxes,
            rotation=90,
            ha="right",
            va="center",
            fontsize=8,
        )
    return figure


def _chosen(folders: Sequence[Folder], rows: Sequence[Row]) -> list[tuple[Folder, Row]]:
    """The first row of each corruption of the sheet, with its folder."""
    chosen: dict[str, tuple[Folder, Row]] = {}
    for folder in folders:
        for row in rows:
            if row.dataset == folder.name and row.corruption in CORRUPTIONS:
                chosen.setdefault(row.corruption, (folder, row))
    return [chosen[name] for name in CORRUPTIONS if name in chosen]


def _detailed(clean: Photo) -> tuple[slice, slice]:
    """Where the clean image has the most contours: the largest mean of its gradient's size."""
    height, width = (min(_SIDE, side) for side in clean.shape[:2])
    luma = clean.mean(2)
    slope = np.hypot(cv2.Sobel(luma, cv2.CV_64F, 1, 0), cv2.Sobel(luma, cv2.CV_64F, 0, 1))
    sums = cv2.integral(slope)
    boxes = sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width] + sums[:-height, :-width]
    top, left = np.unravel_index(boxes.argmax(), boxes.shape)
    return slice(int(top), int(top) + height), slice(int(left), int(left) + width)
