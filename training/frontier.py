"""Quality over cost: PSNR of every denoiser against its milliseconds for a megapixel."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.text import Annotation, Text
from matplotlib.transforms import Bbox

from training.evaluate import Row
from training.plots import COLOURS, MARKERS
from training.tables import ms_per_megapixel

CORRUPTION = "gaussian 25"
_OURS, _THEIRS = COLOURS[1], COLOURS[0]
# Points from a point to its name, the nearest first, and which side of the name is there.
_AROUND = (
    (9, 0, "left"),
    (-9, 0, "right"),
    (0, 14, "center"),
    (0, -14, "center"),
    *((dx, dy, side) for dy in (14, -14, 26, -26) for dx, side in ((24, "left"), (-24, "right"))),
)


@dataclass(frozen=True)
class Point:
    """PSNR in dB, mean over images, and milliseconds for a megapixel."""

    psnr: float
    ms: float


def points(rows: Sequence[Row]) -> dict[str, Point]:
    """Every denoiser under Gaussian noise of sigma 25 in colour; empty where that was not measured.

    Its time is that of all rows, as in the table: the few images of one row are too few for it.
    """
    chosen = [row for row in rows if row.corruption == CORRUPTION]
    everywhere = set[str].intersection(*(set(row.scores) for row in chosen)) if chosen else set()
    names = [name for name in (chosen[0].scores if chosen else ()) if name in everywhere - {"noisy"}]
    return {
        name: Point(
            float(np.mean([score.psnr for row in chosen for score in row.scores[name]])),
            ms_per_megapixel(rows, name),
        )
        for name in names
    }


def front(found: Mapping[str, Point]) -> list[str]:
    """The names that nobody beats in both (Pareto front), from the quickest on."""
    best: list[str] = []
    for name in sorted(found, key=lambda name: (found[name].ms, -found[name].psnr)):
        if not best or found[name].psnr > found[best[-1]].psnr:
            best.append(name)
    return best


def frontier(found: Mapping[str, Point], ours: Sequence[str], threads: int) -> Figure:
    """Every point by name, ours apart by colour and shape, and the front as a staircase."""
    figure = Figure((7.2, 4.6), layout="constrained")
    place = figure.subplots()
    edge = [found[name] for name in front(found)]
    place.step([each.ms for each in edge], [each.psnr for each in edge], where="post", color="0.6", zorder=1)
    for name, point in found.items():
        mine = name in ours
        place.scatter(
            point.ms,
            point.psnr,
            s=130 if mine else 50,
            marker=MARKERS[7] if mine else MARKERS[0],
            color=_OURS if mine else _THEIRS,
            zorder=3 if mine else 2,
        )
    place.set_xscale("log")
    place.margins(x=0.2, y=0.12)
    noun = "thread" if threads == 1 else "threads"
    place.set(
        xlabel=f"milliseconds for a megapixel, {threads} {noun} (log)",
        ylabel="PSNR at sigma 25 / dB",
    )
    place.grid(color="0.92", lw=0.6, which="both", zorder=0)
    place.spines[["top", "right"]].set_visible(False)
    _name(place, found, ours)
    return figure


def _name(place: Axes, found: Mapping[str, Point], ours: Sequence[str]) -> None:
    """Write each name at the first free place around its point, from the best point on, and lead it there."""
    figure = place.get_figure()
    assert isinstance(figure, Figure)
    figure.draw_without_rendering()  # from here on places are known in pixels
    taken = [_around(place.transData.transform((each.ms, each.psnr))) for each in found.values()]
    for name in sorted(found, key=lambda name: (name not in ours, -found[name].psnr)):
        for offset in _AROUND:
            text = _written(place, name, found[name], offset, bold=name in ours)
            text.get_window_extent()  # puts it in its place
            box = Text.get_window_extent(text)  # without its line
            inside = place.bbox.x0 < box.x0 and box.x1 < place.bbox.x1
            if (inside and not any(box.overlaps(other) for other in taken)) or offset is _AROUND[-1]:
                break
            text.remove()
        taken.append(box)


def _written(place: Axes, name: str, point: Point, offset: tuple[int, int, str], bold: bool) -> Annotation:
    dx, dy, side = offset
    return place.annotate(
        name,
        (point.ms, point.psnr),
        (dx, dy),
        textcoords="offset points",
        ha=side,
        va="center",
        fontsize=9,
        weight="bold" if bold else "normal",
        arrowprops={"arrowstyle": "-", "color": "0.5", "lw": 0.8, "shrinkA": 0},
        path_effects=[withStroke(linewidth=3, foreground="white")],
    )


def _around(centre: npt.NDArray[np.float64]) -> Bbox:
    return Bbox.from_bounds(centre[0] - 12, centre[1] - 12, 24, 24)
