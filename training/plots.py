"""Pictures of what a model does. Each function takes plain arrays and gives a matplotlib figure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import skimage.data
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont
from skimage.metrics import peak_signal_noise_ratio

from training.corruption import Corruption, LowLight, Photo, to_float, to_uint8
from training.peers import Denoiser

Numbers = npt.NDArray[np.floating] | npt.NDArray[np.integer]

EVENING: Corruption = LowLight(photons=(60, 60), read=(3, 3), demosaic=0.0)
# Okabe & Ito (2008): eight colours that the colour-blind tell apart; with markers for black and white print.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")


@dataclass(frozen=True)
class Series:
    """Values over steps or levels, of one length; where they jitter a running mean is drawn over them."""

    x: Numbers
    y: Numbers
    jitters: bool = False


def save(figure: Figure, path: Path) -> list[Path]:
    """Write `path`.png and `path`.svg; equal figures give equal files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    files = [path.with_name(f"{path.name}.{kind}") for kind in ("png", "svg")]
    with mpl.rc_context({"svg.hashsalt": path.name}):
        figure.savefig(files[0], dpi=150)
        figure.savefig(files[1], metadata={"Date": None})
    return files


def grid(rows: Mapping[str, Sequence[Photo]]) -> Figure:
    """Pictures in labelled rows, as original, noisy and reconstructed; uint8 `[H, W, 1 or 3]` each."""
    columns = max(len(pictures) for pictures in rows.values())
    cell = 0.9 if columns > 5 else 2.2
    heights = [max(each.shape[0] / each.shape[1] for each in pictures) for pictures in rows.values()]
    figure = Figure((1.1 + cell * columns, cell * sum(heights) + 0.1 * len(rows)), layout="constrained")
    axes = figure.subplots(len(rows), columns, squeeze=False, height_ratios=heights)
    for line, (label, pictures) in zip(axes, rows.items(), strict=True):
        for place, picture in zip(line, pictures, strict=False):
            _show(place, picture)
        for place in line[len(pictures) :]:
            place.set_axis_off()
        line[0].set_ylabel(label, rotation=0, ha="right", va="center")
    return figure


def learning_curves(curves: Mapping[str, Mapping[str, Series]]) -> Figure:
    """One panel for each quantity: `{"PSNR / dB": {"training": Series, "held out": Series}, ...}` by step."""
    figure = Figure((4.2 * len(curves), 3.4), layout="constrained")
    for place, (title, lines) in zip(
        figure.subplots(1, len(curves), squeeze=False)[0], curves.items(), strict=True
    ):
        for number, (label, series) in enumerate(lines.items()):
            smooth = _smoothed(series.y) if series.jitters else series.y
            marker = MARKERS[number] if len(series.x) <= 30 else None
            place.plot(series.x, series.y, color=COLOURS[number], lw=0.5, alpha=0.3)
            place.plot(series.x, smooth, color=COLOURS[number], lw=1.6, label=label, marker=marker, ms=4)
        place.set_xlabel("step")
        place.set_ylabel(title)
        _open(place)
        if len(lines) > 1:
            place.legend(frameon=False)
    return figure


def latent(
    codes: Numbers, labels: Numbers, decoded: Photo, span: tuple[float, float, float, float]
) -> Figure:
    """The plane of a two-number code: where the classes lie, and what each place decodes to.

    Args:
        codes: `[N, 2]`.
        labels: `[N]`, 0..9; drawn as digits, as ten colours are too many to tell apart.
        decoded: uint8 `[R, R, H, W, 1]`, the first row at the top, i.e. at the largest second number.
        span: (left, right, bottom, top), the centres of the outermost decoded pictures.
    """
    figure = Figure((11, 5.4), layout="constrained")
    scatter, plane = figure.subplots(1, 2)
    for number in np.unique(labels):
        inside = labels == number
        scatter.scatter(
            codes[inside, 0],
            codes[inside, 1],
            s=26,
            marker=f"${number}$",
            lw=0.2,
            color=COLOURS[int(number) % 7],
            label=str(number),
        )
    rows, columns, height, width, _ = decoded.shape
    sheet = decoded[..., 0].transpose(0, 2, 1, 3).reshape(rows * height, columns * width)
    left, right, bottom, top = span
    dx, dy = (right - left) / (columns - 1) / 2, (top - bottom) / (rows - 1) / 2
    edges = (left - dx, right + dx, bottom - dy, top + dy)
    plane.imshow(sheet, cmap="gray", extent=edges, aspect="auto", interpolation="nearest", vmin=0, vmax=255)
    scatter.set(
        title="codes of test images, by class",
        xlabel="first number",
        ylabel="second number",
        xlim=edges[:2],
        ylim=edges[2:],
    )
    plane.set(title="what each place decodes to", xlabel="first number", ylabel="second number")
    _open(scatter)
    return figure


def filters(weights: Numbers, columns: int = 12) -> Figure:
    """Learned filters, `[K, H, W]` in blue (negative) to red, or `[K, H, W, 3]` in colour around gray.

    Each is scaled by its own largest weight.
    """
    rows = -(-len(weights) // columns)
    figure = Figure((0.72 * min(columns, len(weights)) + 0.2, 0.72 * rows + 0.2), layout="constrained")
    places = figure.subplots(rows, min(columns, len(weights)), squeeze=False).ravel()
    for place in places:
        place.set_axis_off()
    for place, weight in zip(places, weights, strict=False):
        scaled = weight / max(float(np.abs(weight).max()), 1e-12)
        if weight.ndim == 3:
            place.imshow(0.5 + 0.5 * scaled, interpolation="nearest")
        else:
            place.imshow(scaled, cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest")
    return figure


def vector_field(data: Numbers, start: Numbers, moved: Numbers) -> Figure:
    """Where a DAE moves points of the plane: arrows r(x) - x over the data (Alain & Bengio 2014, figure 5).

    Arrows longer than the spacing of their starts are cut to it; the colour tells the length.

    Args:
        data: `[N, 2]`, points of the manifold.
        start: x, `[M, 2]`.
        moved: r(x), `[M, 2]`.
    """
    figure = Figure((6.4, 5.6), layout="constrained")
    place = figure.subplots()
    place.scatter(data[:, 0], data[:, 1], s=3, color=COLOURS[1], label="data", zorder=2, lw=0)
    step = moved - start
    length = np.hypot(*step.T)
    cell = np.sqrt(np.prod(np.ptp(start, axis=0)) / len(start))
    shown = step * np.minimum(1, cell / np.maximum(length, 1e-12))[:, None]
    arrows = place.quiver(
        *start.T,
        *shown.T,
        length,
        cmap="cividis",
        angles="xy",
        scale_units="xy",
        scale=1,
        width=0.003,
        zorder=3,
    )
    figure.colorbar(arrows, ax=place, label="|r(x) - x|", shrink=0.8)
    place.set(aspect="equal", xlabel="x", ylabel="y")
    place.legend(frameon=True, loc="upper right", markerscale=4)
    _open(place)
    return figure


def levels(curves: Mapping[str, Series], trained: tuple[float, float] | None) -> Figure:
    """PSNR in dB against the noise's sigma (0..255), the range that was trained on in gray."""
    figure = Figure((6.4, 4.2), layout="constrained")
    place = figure.subplots()
    if trained is not None:
        low, high = trained
        if low == high:
            place.axvline(low, color="0.75", lw=6, label="trained on", zorder=0)
        else:
            place.axvspan(low, high, color="0.9", label="trained on", lw=0, zorder=0)
    for number, (label, series) in enumerate(curves.items()):
        place.plot(
            series.x, series.y, color=COLOURS[number % 8], marker=MARKERS[number % 8], ms=5, label=label
        )
    place.set(xlabel="sigma of Gaussian noise (levels of 255)", ylabel="PSNR / dB")
    place.grid(color="0.9", lw=0.6)
    place.legend(frameon=False)
    _open(place)
    return figure


def _smoothed(values: Numbers) -> Numbers:
    """Running mean over the 25 nearest of a long series, fewer at its ends; a short one as it is."""
    if len(values) <= 200:
        return values
    sums = np.concatenate([[0.0], np.cumsum(values)])
    place = np.arange(len(values))
    low, high = np.maximum(place - 12, 0), np.minimum(place + 13, len(values))
    mean: Numbers = (sums[high] - sums[low]) / (high - low)
    return mean


def _show(place: Axes, picture: Photo) -> None:
    gray = picture.shape[2] == 1
    place.imshow(
        picture[..., 0] if gray else picture,
        cmap="gray" if gray else None,
        vmin=0,
        vmax=255,
        interpolation="nearest",
    )
    place.set(xticks=[], yticks=[])
    place.spines[:].set_visible(False)


def _open(place: Axes) -> None:
    place.spines[["top", "right"]].set_visible(False)


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
