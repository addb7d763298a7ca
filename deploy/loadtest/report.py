"""The report of a load test: Markdown, with plots beside it."""

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from deploy.loadtest.figures import SHARES, STAGES, Step
from deploy.loadtest.pictures import ROOT
from deploy.loadtest.plots import draw_plots

_OTHERS = 0.1  # cores
_LATE_MS = 50  # a generator later than this is measuring itself


@dataclass(frozen=True)
class Measured:
    """All that one load test has seen."""

    title: str
    machine: Sequence[tuple[str, str]]
    peaks: Sequence[Step]
    steps: Sequence[Step]
    ramp: Step | None
    sizes: Sequence[tuple[str, Step]]

    @property
    def peak(self) -> float:
        return max(step.goodput for step in self.peaks if step.protocol == "http")

    @property
    def everything(self) -> list[Step]:
        sizes = [step for _, step in self.sizes]
        return [*self.peaks, *self.steps, *([self.ramp] if self.ramp else []), *sizes]


def new_folder(out: Path | None) -> Path:
    """Where reports go; made if it is not there."""
    folder = (out or ROOT / "runs" / "loadtest" / time.strftime("%Y%m%d-%H%M%S")).resolve()
    try:
        (folder / "runs").mkdir(parents=True)
    except FileExistsError:
        raise click.ClickException(f"{folder} holds a report already; choose another --out") from None
    except OSError as error:
        raise click.ClickException(f"cannot write to {folder}: {error.strerror}") from None
    return folder


def write_report(measured: Measured, folder: Path) -> Path:
    """Write report.md and its plots into `folder`."""
    plots = draw_plots(measured.steps, measured.ramp, measured.peak, folder)
    report = folder / "report.md"
    report.write_text("\n\n".join([*_sections(measured), *map(_picture, plots)]) + "\n", "utf-8")
    return report


def _picture(plot: Path) -> str:
    return f"![{plot.stem}]({plot.name})"


def _sections(measured: Measured) -> list[str]:
    return [
        f"# Load test: {measured.title}",
        table(("", ""), measured.machine),
        "## What to doubt",
        "\n".join(f"- {doubt}" for doubt in doubts(measured.everything)) or "Nothing stood out.",
        f"## Peak: {measured.peak:.2f} images/s over HTTP",
        "Closed loop: each user sends the next image when the last one is back.",
        table(("protocol", "users", "images/s", "p50 ms", "answers"), map(_peak_row, measured.peaks)),
        *_size_sections(measured.sizes),
        *_step_sections(measured.steps),
    ]


def _step_sections(steps: Sequence[Step]) -> list[str]:
    what = ("protocol", "of peak")
    latency = ("offered/s", "images/s", "p50", "p90", "p99", "p99.9 ms", "answers", "unsent")
    cost = ("service", "generator", "others", "most pending", "PSS MiB", "VmHWM MiB")
    return [
        "## Latency from the scheduled send time",
        "Open loop, Poisson arrivals. `-`: too few answers for that percentile; `lost`: it falls on a "
        "request that failed or was never sent. Refusals (429; gRPC: 8) are not in the latency.",
        table((*what, *latency), map(_latency_row, steps)),
        "## Where the time goes",
        "Median / 99th percentile in ms by `Server-Timing` (HTTP), mean by the service's histograms (gRPC).",
        table((*what, *STAGES, "beside them, p50"), map(_stage_row, steps)),
        "## What it takes",
        "CPU in cores; memory is the most PSS in a sample, and the sum of VmHWM.",
        table((*what, *cost), map(_cost_row, steps)),
        "## Batches",
        "How many images (or tiles) ran together: runs by upper bound of the bucket.",
        _batch_table(steps),
    ]


def _size_sections(sizes: Sequence[tuple[str, Step]]) -> list[str]:
    if not sizes:
        return []
    rows = [(mix, step.protocol, f"{step.goodput:.2f}", ms(step.latency_ms(0.5))) for mix, step in sizes]
    return [
        f"## By size, closed loop of {sizes[0][1].users} users",
        table(("pictures", "protocol", "images/s", "p50 ms"), rows),
    ]


def doubts(steps: Sequence[Step]) -> list[str]:
    """What a reader must know before believing the figures."""
    found = []
    others = max((step.other_cores or 0.0 for step in steps), default=0.0)
    if others > _OTHERS:
        found.append(f"other programs used up to {others:.2f} cores meanwhile; measure on a quiet machine")
    for step in steps:
        name = f"{step.protocol} {step.label}"
        if step.unsent:
            found.append(f"{name}: the generator did not send {step.unsent} of {step.outcome.scheduled}")
        if step.watched.missed:
            found.append(f"{name}: /metrics was not answered {step.watched.missed} times")
        if step.late_ms > _LATE_MS:
            found.append(f"{name}: 1 % of the requests were sent over {step.late_ms:.0f} ms late")
        if step.watched.after and step.server_ok != len(step.ok):
            found.append(f"{name}: {len(step.ok)} images arrived, the service counts {step.server_ok}")
        found += [f"{name}: threshold crossed: {rule}" for rule in step.outcome.crossed]
    return found


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def ms(value: float | None) -> str:
    """`-` for none, `lost` for never."""
    if value is None:
        return "-"
    return "lost" if math.isinf(value) else f"{value:.0f}" if value >= 10 else f"{value:.1f}"


def _codes(step: Step) -> str:
    return ", ".join(f"{code}: {count}" for code, count in step.codes.items())


def _peak_row(step: Step) -> Sequence[object]:
    return step.protocol, step.users, f"{step.goodput:.2f}", ms(step.latency_ms(0.5)), _codes(step)


def _latency_row(step: Step) -> Sequence[object]:
    percentiles = [ms(step.latency_ms(share)) for share in SHARES]
    rates = (f"{step.offered or 0:.2f}", f"{step.goodput:.2f}")
    return step.protocol, step.label, *rates, *percentiles, _codes(step), step.unsent


def _stage_row(step: Step) -> Sequence[object]:
    if step.protocol == "grpc":
        means = step.stage_mean_ms
        return step.protocol, step.label, *(ms(means.get(stage)) for stage in STAGES), "-"
    both = [f"{ms(step.stage_ms(stage, 0.5))} / {ms(step.stage_ms(stage, 0.99))}" for stage in STAGES]
    beside = sorted(answer.latency_ms - sum(answer.stages.values()) for answer in step.ok)
    return step.protocol, step.label, *both, ms(beside[len(beside) // 2] if beside else None)


def _cost_row(step: Step) -> Sequence[object]:
    cores = [step.cores, step.generator_cores, step.other_cores]
    memory = [step.pss / 2**20, (step.watched.peak_rss or 0) / 2**20]
    return (
        step.protocol,
        step.label,
        *("-" if each is None else f"{each:.2f}" for each in cores),
        f"{step.pending:.0f}",
        *(f"{each:.0f}" if each else "-" for each in memory),
    )


def _batch_table(steps: Sequence[Step]) -> str:
    bounds = list(dict.fromkeys(bound for step in steps for bound in step.batches))
    rows = [(step.protocol, step.label, *(step.batches.get(bound, 0) for bound in bounds)) for step in steps]
    return table(
        ("protocol", "of peak", *(bound.removesuffix(".0").replace("+Inf", "more") for bound in bounds)), rows
    )
