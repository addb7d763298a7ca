"""Measurements as a card keeps them and as people read them."""

from collections.abc import Sequence

import numpy as np

from model_store import Metric, markdown_table
from training.evaluate import Row


def as_metrics(rows: Sequence[Row], ours: str) -> list[Metric]:
    """The rows a model card keeps."""
    return [
        Metric(
            dataset=row.dataset,
            images=len(row.scores[ours]),
            corruption=row.corruption,
            psnr_noisy=round(row.mean("noisy", "psnr"), 2),
            psnr_restored=round(row.mean(ours, "psnr"), 2),
            ssim_noisy=round(row.mean("noisy", "ssim"), 4),
            ssim_restored=round(row.mean(ours, "ssim"), 4),
        )
        for row in rows
    ]


def as_table(rows: Sequence[Row], ours: str) -> str:
    """PSNR in dB / SSIM of each denoiser, gain of ours over the noisy input (mean, worst), ms/MP."""
    names = names_of(rows, ours)
    lines = []
    for row in rows:
        gains = row.gains(ours)
        cells = [_cell(row, name) for name in names]
        gain = f"{np.mean(gains):+.2f} / {min(gains):+.2f} dB"
        lines.append([f"{row.dataset} ({len(gains)})", row.corruption, *cells, gain])
    speeds = ["-" if name == "noisy" else f"{ms_per_megapixel(rows, name):.0f}" for name in names]
    lines.append(["all", "ms per megapixel", *speeds, ""])
    return markdown_table(["images", "corruption", *names, "gain of ours, mean / worst"], lines)


def names_of(rows: Sequence[Row], ours: str) -> list[str]:
    """Every denoiser that has a score, ours last."""
    return [*dict.fromkeys(name for row in rows for name in row.scores if name != ours), ours]


def ms_per_megapixel(rows: Sequence[Row], name: str) -> float:
    """Wall-clock time by pixels, the median over images: one that was held up does not count."""
    scores = [score for row in rows for score in row.scores.get(name, [])]
    return 1e9 * float(np.median([score.seconds / score.pixels for score in scores]))


def _cell(row: Row, name: str) -> str:
    if name not in row.scores:
        return "-"
    return f"{row.mean(name, 'psnr'):.2f} / {row.mean(name, 'ssim'):.3f}"
