"""What a denoiser does to images that need no denoising: it should hand them back."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from model_store import markdown_table
from training.cases import Folder
from training.corruption import Photo
from training.evaluate import psnr
from training.peers import Denoiser

_LUMA = np.array((0.299, 0.587, 0.114))  # ITU-R BT.601
FREE = "free of noise"
ASKED = 45.0  # dB, of what comes back of an image that is free of noise
_PERIOD = 8  # of the blocks of JPEG, and of networks that halve the image up to three times


@dataclass(frozen=True)
class Change:
    """One image, clean in and out: PSNR in dB against what went in, and changes in levels of 255.

    `shift` is the mean change of red, green and blue, `brightness` that of BT.601 luma.

    `pattern` is how strong a grid the change holds: its mean at each of the 8x8 places that repeat every
    8 pixels, and the root mean square of those around their common mean. Networks that enlarge inside
    leave such checkerboards (Odena et al., Distill 2016), where the filters of the places have different
    sums (Sugawara et al., ICIP 2018); then the places differ also on average over a whole photograph.
    """

    image: str
    psnr: float
    shift: tuple[float, ...]
    brightness: float
    pattern: float


@dataclass(frozen=True)
class Identity:
    """All changes of one folder: name of the denoiser -> change of each image."""

    dataset: str
    images: str
    changes: dict[str, list[Change]]


def identity(folder: Folder, denoisers: Sequence[Denoiser]) -> list[Identity]:
    """Give denoisers the clean images of a folder, as they are and halved.

    A photograph's own noise is removed as well, which looks like a loss; the mean of four pixels has
    half as much of it. Denoisers that must be told the noise have no answer.
    """
    read = folder.clean_images
    return [
        Identity(folder.name, "as they are", changes(read(), denoisers)),
        Identity(folder.name, "halved", changes(_halved(read()), denoisers)),
    ]


def changes(images: Iterable[tuple[str, Photo]], denoisers: Sequence[Denoiser]) -> dict[str, list[Change]]:
    """Every denoiser's change of named clean images."""
    found: dict[str, list[Change]] = {}
    for name, clean in tqdm(images, desc="clean images", leave=False):
        for denoiser in denoisers:
            restored = denoiser(clean, None)
            if restored is not None:
                found.setdefault(denoiser.name, []).append(change(name, clean, restored))
    return found


def change(name: str, clean: Photo, restored: Photo) -> Change:
    """Compare two images, uint8 `[H, W, 3]`."""
    difference = restored.astype(np.float64) - clean
    shift = difference.mean((0, 1))
    return Change(
        name, psnr(clean, restored), tuple(map(float, shift)), float(shift @ _LUMA), _pattern(difference)
    )


def as_table(found: Sequence[Identity]) -> str:
    """PSNR (mean, worst, if it is enough), colour shift (mean, largest of an image), brightness, pattern."""
    lines = []
    for each in found:
        for name, changes in each.changes.items():
            psnrs = [one.psnr for one in changes]
            shifts = np.array([one.shift for one in changes])
            enough = "yes" if min(psnrs) >= ASKED else "NO"
            means = " ".join(f"{value:+.2f}" for value in shifts.mean(0))
            lines.append(
                [
                    f"{each.dataset} ({len(changes)}), {each.images}",
                    name,
                    f"{np.mean(psnrs):.2f} / {min(psnrs):.2f}",
                    enough if each.images == FREE else "",
                    f"{means} / {np.abs(shifts).max():.2f}",
                    f"{np.mean([one.brightness for one in changes]):+.2f}",
                    f"{np.mean([one.pattern for one in changes]):.3f}",
                ]
            )
    header = ["clean images", "denoiser", "PSNR, mean / worst", f"all over {ASKED:g} dB"]
    return markdown_table([*header, "shift of R G B / largest", "brightness", "8x8 pattern"], lines)


def _halved(images: Iterable[tuple[str, Photo]]) -> Iterator[tuple[str, Photo]]:
    for name, image in images:
        size = (max(1, image.shape[1] // 2), max(1, image.shape[0] // 2))
        yield name, np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def _pattern(difference: npt.NDArray[np.float64]) -> float:
    height, width = (side // _PERIOD for side in difference.shape[:2])
    if not height or not width:
        return 0.0
    blocks = difference[: height * _PERIOD, : width * _PERIOD].reshape(height, _PERIOD, width, _PERIOD, -1)
    places = blocks.mean((0, 2))
    return float(np.sqrt(np.square(places - places.mean((0, 1))).mean()))
