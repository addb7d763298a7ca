"""The plots of a report; one PNG file each."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from deploy.loadtest.figures import SHARES, STAGES, Step, queue_over_time

_MARKS = {"http": "o-", "grpc": "s--"}
_COLOURS = ("C0", "C1", "C2", "C3")


def draw_plots(steps: Sequence[Step], ramp: Step | None, peak: float, folder: Path) -> list[Path]:
    """Write the files and return them; `peak` is in images a second."""
    by_protocol: dict[str, list[Step]] = {
        protocol: [step for step in steps if step.protocol == protocol]
        for protocol in dict.fromkeys(step.protocol for step in steps)
    }
    http = by_protocol.get("http", [])
    drawn: dict[str, Callable[[Axes], None]] = {
        "throughput": lambda axes: _throughput(axes, by_protocol, peak),
        "latency": lambda axes: _latency(axes, by_protocol),
        "stages": lambda axes: _stages(axes, http),
        "queue": lambda axes: _queue(axes, steps),
        "batches": lambda axes: _batches(axes, http),
        "cost": lambda axes: _cost(axes, http),
    }
    if ramp:
        drawn["ramp"] = lambda axes: _ramp(axes, ramp)
    return [_drawn(name, draw, folder) for name, draw in drawn.items()]


def _drawn(name: str, draw: Callable[[Axes], None], folder: Path) -> Path:
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.grid(alpha=0.3)
    axes.set_axisbelow(True)
    draw(axes)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize="small")
    file = folder / f"{name}.png"
    figure.savefig(file, dpi=110)
    return file


def _throughput(axes: Axes, by_protocol: dict[str, list[Step]], peak: float) -> None:
    for protocol, steps in by_protocol.items():
        offered = [step.offered or 0 for step in steps]
        axes.plot(offered, [step.goodput for step in steps], _MARKS[protocol], label=f"images, {protocol}")
    most = max((step.offered or 0 for steps in by_protocol.values() for step in steps), default=peak)
    axes.plot([0, most], [0, most], color="grey", linestyle=":", label="all that is offered")
    axes.axhline(peak, color="grey", linewidth=1, label=f"peak of the closed loop, {peak:.1f}/s")
    axes.set(title="Throughput", xlabel="offered, images/s", ylabel="came out, images/s", xlim=(0, None))


def _latency(axes: Axes, by_protocol: dict[str, list[Step]]) -> None:
    for protocol, steps in by_protocol.items():
        for share, colour in zip(SHARES, _COLOURS, strict=True):
            points = [(100 * (step.share or 0), step.latency_ms(share)) for step in steps]
            known = [(x, y) for x, y in points if y is not None and math.isfinite(y)]
            if known:
                label = f"p{100 * share:g} {protocol}"
                axes.plot(*zip(*known, strict=True), _MARKS[protocol], color=colour, label=label)
    axes.set(title="Latency from the scheduled send time", xlabel="offered, % of the peak", ylabel="ms")
    axes.set_yscale("log")


def _stages(axes: Axes, steps: Sequence[Step]) -> None:
    names = [step.label for step in steps]
    below = [0.0] * len(steps)
    for stage in STAGES:
        means = [step.stage_mean_ms.get(stage, 0.0) for step in steps]
        axes.bar(names, means, bottom=below, label=stage)
        below = [low + mean for low, mean in zip(below, means, strict=True)]
    axes.set(title="Where the time goes, HTTP, mean", xlabel="offered, % of the peak", ylabel="ms")


def _queue(axes: Axes, steps: Sequence[Step]) -> None:
    if not any(step.watched.samples for step in steps):
        return
    axes.plot(*queue_over_time(steps), color="C0")
    begun = next(step.watched.samples[0].time for step in steps if step.watched.samples)
    for number, step in enumerate(step for step in steps if step.watched.samples):
        start, end = (step.watched.samples[edge].time - begun for edge in (0, -1))
        if number % 2:
            axes.axvspan(start, end, color="grey", alpha=0.12, linewidth=0)
        name = f"{step.protocol} {step.label}"
        axes.text((start + end) / 2, 0.98, name, rotation=90, ha="center", va="top", fontsize="x-small",
                  transform=axes.get_xaxis_transform(), alpha=0.7)  # fmt: skip
    axes.set(title="Requests inside the service", xlabel="s", ylabel="pending", ylim=(0, None))


def _batches(axes: Axes, steps: Sequence[Step]) -> None:
    names = [step.label for step in steps]
    below = [0] * len(steps)
    for bound in dict.fromkeys(bound for step in steps for bound in step.batches):
        counts = [step.batches.get(bound, 0) for step in steps]
        if any(counts):
            label = "more" if bound == "+Inf" else f"up to {float(bound):g}"
            axes.bar(names, counts, bottom=below, label=label)
            below = [low + count for low, count in zip(below, counts, strict=True)]
    axes.set(title="Images that ran together, HTTP", xlabel="offered, % of the peak", ylabel="runs")


def _cost(axes: Axes, steps: Sequence[Step]) -> None:
    shares = [100 * (step.share or 0) for step in steps]
    for label, cores in (
        ("service", [step.cores for step in steps]),
        ("generator", [step.generator_cores for step in steps]),
        ("other programs", [step.other_cores for step in steps]),
    ):
        axes.plot(
            shares, [math.nan if each is None else each for each in cores], "o-", label=f"{label}, cores"
        )
    axes.set(title="What it takes, HTTP", xlabel="offered, % of the peak", ylabel="cores", ylim=(0, None))
    memory = axes.twinx()
    memory.plot(shares, [step.pss / 2**20 for step in steps], "^:", color="C4")
    memory.set_ylabel("PSS of the service, MiB (dotted)")
    memory.set_ylim(0, 1.3 * max(step.pss / 2**20 for step in steps) or 1)


def _ramp(axes: Axes, ramp: Step) -> None:
    begun = min((answer.due for answer in ramp.outcome.answers), default=0.0)
    for outcome, colour in (("ok", "C0"), ("refused", "C1"), ("failed", "C3")):
        answers = [answer for answer in ramp.outcome.answers if answer.outcome == outcome]
        if answers:
            due = [(answer.due - begun) / 1000 for answer in answers]
            axes.plot(due, [each.latency_ms for each in answers], ".", color=colour, label=outcome)
    axes.set(title="A rising load", xlabel="due, s after the start", ylabel="ms")
    axes.set_yscale("log")
