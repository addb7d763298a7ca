"""Whether letters can still be read: rendered characters, corrupted, denoised and recognised.

Every character stands in a known cell, so that two readers of template matching suffice:

- `matched` takes the template that correlates best with the gray levels (normalised cross-correlation,
  Lewis 1995). In white Gaussian noise, with the place known and contrast and brightness not, that is the
  reader of maximum likelihood, and hardly anything done to the noisy image can help it: what it loses,
  the denoiser has destroyed.
- `Otsu` first decides each pixel to be ink or paper by Otsu's threshold (1979), as text recognition
  commonly begins, and then matches in the same way. What it gains is of use.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from skimage.filters import threshold_otsu
from tqdm import tqdm

from model_store import markdown_table
from training.cases import STANDARD
from training.corruption import Photo
from training.peers import Denoiser

CHARACTERS = "ABCDEFGHJKLMNPRSTUVWXYZ0123456789"  # plates have no I, O or Q
HEIGHTS = (8, 12, 16)  # of capitals, pixels
CONTRASTS = (160, 80, 40)  # between paper and ink, levels of 255
CORRUPTIONS = ("gaussian 25, gray", "gaussian 50, gray", "low light, 100 photons")
READERS = ("Otsu", "matched")
_COLUMNS, _REPEATS = 11, 3

Levels = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Reading:
    """Share of characters recognised by each reader: name of the denoiser -> reader -> 0..1."""

    corruption: str
    height: int
    contrast: int
    characters: int
    shares: dict[str, dict[str, float]]


@dataclass(frozen=True)
class Page:
    """Characters in a grid of cells on paper, with a border of one cell.

    `templates` are the cells of CHARACTERS, `[K, h, w]` levels; `written` are places among them.
    """

    image: Photo
    templates: Levels
    written: npt.NDArray[np.intp]

    def cells(self, image: Photo) -> Levels:
        """The cells of an image of the page, mean of the channels, `[N, h, w]`."""
        _, height, width = self.templates.shape
        inner = image.mean(2)[height:-height, width:-width]
        rows, columns = inner.shape[0] // height, inner.shape[1] // width
        split = inner.reshape(rows, height, columns, width).transpose(0, 2, 1, 3)
        cells: Levels = split.reshape(-1, height, width)
        return cells


def legibility(denoisers: Sequence[Denoiser]) -> list[Reading]:
    """Read pages of every height and contrast under every corruption, clean, noisy and denoised."""
    wanted = list(product(CORRUPTIONS, HEIGHTS, CONTRASTS))
    return [
        _reading(corruption, height, contrast, denoisers)
        for corruption, height, contrast in tqdm(wanted, desc="letters", leave=False)
    ]


def clean_pages() -> Iterator[tuple[str, Photo]]:
    """The pages by name: images without any noise of their own."""
    for height, contrast in product(HEIGHTS, CONTRASTS):
        yield f"{height} pixels, contrast {contrast}", _page(height, contrast).image


def page(height: int, contrast: int, seed: int) -> Page:
    """Every character three times in random order, dark on light, in Pillow's own font (Aileron).

    Args:
        height: of a capital, pixels.
        contrast: levels between paper and ink, whose middle is 128.
    """
    font = _font(height)
    paper, ink = 128 + contrast // 2, 128 - contrast // 2
    cell = (round(1.9 * height), round(1.6 * height))
    templates = np.stack([_glyph(each, font, cell, paper, ink) for each in CHARACTERS])
    order = np.random.default_rng(seed).permutation(np.tile(np.arange(len(CHARACTERS)), _REPEATS))
    grid = templates[order].reshape(-1, _COLUMNS, *cell).transpose(0, 2, 1, 3)
    inner = grid.reshape(-1, _COLUMNS * cell[1])
    whole = np.pad(inner, [(side, side) for side in cell], constant_values=paper)
    return Page(np.repeat(whole[..., None], 3, axis=2), templates.astype(np.float64), order)


def read(page: Page, image: Photo) -> dict[str, float]:
    """Share of the characters of a page that each reader recognises in an image of it."""
    cells = page.cells(image)
    threshold = threshold_otsu(cells)
    paper = page.templates > (page.templates.min() + page.templates.max()) / 2
    found = {
        "Otsu": _nearest((cells > threshold).astype(float), paper.astype(float)),
        "matched": _nearest(cells, page.templates),
    }
    return {reader: float((places == page.written).mean()) for reader, places in found.items()}


def as_table(found: Sequence[Reading], ours: str) -> str:
    """Percent recognised, Otsu / matched, of each denoiser, ours last; a line for each page, and the mean."""
    names = [*dict.fromkeys(name for reading in found for name in reading.shares if name != ours), ours]
    lines = [
        [f"{each.corruption}", f"{each.height}", f"{each.contrast}", *(_cell([each], name) for name in names)]
        for each in found
    ]
    for corruption in CORRUPTIONS:
        chosen = [each for each in found if each.corruption == corruption]
        lines.append([f"{corruption}, mean", "", "", *(_cell(chosen, name) for name in names)])
    return markdown_table(["corruption", "height", "contrast", *names], lines)


def _cell(readings: Sequence[Reading], name: str) -> str:
    if any(name not in each.shares for each in readings):
        return "-"
    return " / ".join(
        f"{100 * np.mean([each.shares[name][reader] for each in readings]):.0f}" for reader in READERS
    )


def _page(height: int, contrast: int) -> Page:
    return page(height, contrast, seed=height * contrast)


def _reading(corruption: str, height: int, contrast: int, denoisers: Sequence[Denoiser]) -> Reading:
    clean = _page(height, contrast)
    pair = STANDARD[corruption].pair("page", clean.image, seed=height * contrast)
    shares = {"clean": read(clean, pair.clean), "noisy": read(clean, pair.noisy)}
    for denoiser in denoisers:
        restored = denoiser(pair.noisy, pair.sigma)
        if restored is not None:
            shares[denoiser.name] = read(clean, restored)
    return Reading(corruption, height, contrast, len(clean.written), shares)


def _font(height: int) -> ImageFont.FreeTypeFont:
    """The size whose capitals come nearest to a height in pixels."""
    fonts = [ImageFont.load_default(size) for size in range(height, 2 * height)]
    scalable = [font for font in fonts if isinstance(font, ImageFont.FreeTypeFont)]
    return min(scalable, key=lambda font: abs(_height(font) - height))


def _height(font: ImageFont.FreeTypeFont) -> float:
    _, top, _, bottom = font.getbbox("H")
    return bottom - top


def _glyph(
    character: str, font: ImageFont.FreeTypeFont, cell: tuple[int, int], paper: int, ink: int
) -> Photo:
    height, width = cell
    canvas = Image.new("L", (width, height), paper)
    ImageDraw.Draw(canvas).text((width / 2, height / 2), character, ink, font, anchor="mm")
    return np.asarray(canvas)


def _nearest(cells: Levels, templates: Levels) -> npt.NDArray[np.intp]:
    """The place of the template of the highest correlation coefficient with each cell."""
    places: npt.NDArray[np.intp] = (_standard(cells) @ _standard(templates).T).argmax(1)
    return places


def _standard(cells: Levels) -> Levels:
    """Cells as rows of mean 0 and length 1; one without contrast as zeros."""
    flat = cells.reshape(len(cells), -1)
    flat = flat - flat.mean(1, keepdims=True)
    standard: Levels = flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-9)
    return standard
