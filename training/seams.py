"""Whether an image denoised in tiles is the image denoised whole, with the overlap a card asks for."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from model_store import markdown_table
from training.cases import Pair
from training.corruption import Photo
from training.subject import Subject

CORRUPTION = "gaussian 25"  # where there is no real noise
NEAR = 2  # levels of 255
ASKED = 0.999  # of the values that near


@dataclass(frozen=True)
class Seams:
    """Of one image: the share of values within two levels of the whole, and the largest difference."""

    image: str
    near: float
    worst: int


def seams(subject: Subject, pairs: Iterable[Pair]) -> list[Seams]:
    """Denoise noisy images whole and in quarters; images too small for real quarters are left out.

    Each quarter is read with the overlap around it, from a multiple of the alignment, and cut to itself.
    """
    overlap, alignment = subject.tiling
    margin = math.ceil(overlap / alignment) * alignment
    found = []
    for pair in tqdm(pairs, desc="tiles", leave=False):
        if min(pair.noisy.shape[:2]) < 2 * (margin + alignment):
            continue
        whole, tiled = _restored(subject, pair.noisy), _in_quarters(subject, pair.noisy, margin, alignment)
        difference = np.abs(whole.astype(int) - tiled)
        found.append(Seams(pair.name, float((difference <= NEAR).mean()), int(difference.max())))
    return found


def as_table(found: dict[str, dict[str, list[Seams]]]) -> str:
    """By folder and model: share within two levels (mean, worst image; enough?), largest difference."""
    lines = [
        [
            f"{dataset} ({len(images)})",
            model,
            f"{np.mean([one.near for one in images]):.4%} / {min(one.near for one in images):.4%}",
            "yes" if min(one.near for one in images) >= ASKED else "NO",
            str(max(one.worst for one in images)),
        ]
        for dataset, models in found.items()
        for model, images in models.items()
        if images
    ]
    header = ["images", "model", "within 2 levels of the whole, mean / worst", f"all over {ASKED:.1%}"]
    return markdown_table([*header, "largest difference"], lines)


def _restored(subject: Subject, noisy: Photo) -> Photo:
    restored = subject.denoiser(noisy, None)
    assert restored is not None
    return restored


def _in_quarters(subject: Subject, noisy: Photo, margin: int, alignment: int) -> Photo:
    rows, columns = (_halves(side, margin, alignment) for side in noisy.shape[:2])
    tiled = np.empty_like(noisy)
    for top, bottom, first, last in rows:
        for left, right, begin, end in columns:
            tile = _restored(subject, np.ascontiguousarray(noisy[first:last, begin:end]))
            tiled[top:bottom, left:right] = tile[top - first : bottom - first, left - begin : right - begin]
    return tiled


def _halves(side: int, margin: int, alignment: int) -> list[tuple[int, int, int, int]]:
    """Two stretches as (begin, end, read from, read to)."""
    middle = side // 2 // alignment * alignment
    return [(0, middle, 0, min(side, middle + margin)), (middle, side, max(0, middle - margin), side)]
