"""Several services under the same load in one run, in turn, and their ratios."""

import math
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import click

from deploy.loadtest.figures import Step, percentile, ratio
from deploy.loadtest.generator import Generator, Protocol
from deploy.loadtest.report import doubts, ms, table
from deploy.loadtest.steps import Load
from deploy.loadtest.target import Target


@dataclass(frozen=True)
class Side:
    """One service, by one of its protocols."""

    target: Target
    protocol: Protocol

    @property
    def label(self) -> str:
        return f"{self.target.label}, {self.protocol}"


@dataclass(frozen=True)
class Comparison:
    """Rounds in turn; users and seconds of the closed loops; share of the peak and seconds of the open."""

    rounds: int
    users: int
    closed_s: float
    loads: tuple[tuple[float, float], ...]


@dataclass
class Seen:
    """What one side did: a closed loop of each round, and the open loops by share of the peak."""

    closed: list[Step] = field(default_factory=list)
    loads: dict[float, list[Step]] = field(default_factory=dict)

    @property
    def rates(self) -> list[float]:
        return [step.goodput for step in self.closed]

    @property
    def steps(self) -> list[Step]:
        return [*self.closed, *(step for steps in self.loads.values() for step in steps)]

    def latency_ms(self, load: float, share: float) -> float | None:
        """Over the answers of all rounds."""
        steps = self.loads[load]
        every = [answer.latency_ms for step in steps for answer in step.ok]
        return percentile(every, share, sum(step.lost for step in steps))


def compare(generator: Generator, sides: Sequence[Side], how: Comparison, seed: int) -> list[Seen]:
    """Load the sides in turn, each round in the other direction; open loops by the peak of the first side."""
    loads = [Load(generator, side.target, seed) for side in sides]
    seen = [Seen() for _ in sides]
    for side, load in zip(sides, loads, strict=True):
        click.echo(f"{side.label}: warming up")
        load.closed(side.protocol, how.users, min(3.0, how.closed_s))
    for turn in range(how.rounds):
        for number in _order(sides, turn):
            click.echo(f"{sides[number].label}:")
            seen[number].closed.append(loads[number].closed(sides[number].protocol, how.users, how.closed_s))
    peak = statistics.median(seen[0].rates)
    for share, seconds in how.loads:
        for turn in range(how.rounds):
            for number in _order(sides, turn):
                click.echo(f"{sides[number].label}:")
                step = loads[number].open(sides[number].protocol, share * peak, seconds, share)
                seen[number].loads.setdefault(share, []).append(step)
    return seen


def write_comparison(
    title: str,
    results: Sequence[tuple[Sequence[Side], Sequence[Seen]]],
    how: Comparison,
    machine: Sequence[tuple[str, str]],
    folder: Path,
) -> Path:
    """Print the tables of each result, and write them to report.md with what to doubt and the machine."""
    tables = [each for sides, seen in results for each in comparison_tables(sides, seen)]
    click.echo("\n" + "\n\n".join(tables))
    pairs = [pair for sides, seen in results for pair in zip(sides, seen, strict=True)]
    found = [f"- {side.label}: {doubt}" for side, one in pairs for doubt in doubts(one.steps)]
    lengths = " and ".join(f"{seconds:g} s" for _, seconds in how.loads)
    sections = [
        f"# Side by side: {title}",
        table(("", ""), machine),
        f"{how.rounds} rounds in turn. Closed loops of {how.users} users for {how.closed_s:g} s; open loops "
        f"of {lengths} at a share of the first side's peak, with Poisson arrivals, the same for all. Ratios: "
        "the first side's figure over that of the row, median over the rounds; that of p99 is over all "
        "answers. Latency counts from the scheduled send time.",
        *tables,
        "## What to doubt",
        "\n".join(found) or "Nothing stood out.",
    ]
    report = folder / "report.md"
    report.write_text("\n\n".join(sections) + "\n", "utf-8")
    return report


def comparison_tables(sides: Sequence[Side], seen: Sequence[Seen]) -> list[str]:
    """One for the closed loops, and one for each load; a row for each side."""
    closed = ("closed loop", "images/s", "first / this", "CPU s an image", "PSS MiB")
    rows = [_closed_row(side, seen[0], one) for side, one in zip(sides, seen, strict=True)]
    tables = [table(closed, rows)]
    for share in seen[0].loads:
        at = f"at {100 * share:.0f} % of the first one's peak"
        header = (at, "images/s", "first / this", "p50", "p90", "p99 ms", "first / this", "answers", "lost")
        rows = [_load_row(side, seen[0], one, share) for side, one in zip(sides, seen, strict=True)]
        tables.append(table(header, rows))
    return tables


def _closed_row(side: Side, first: Seen, one: Seen) -> list[str]:
    cpu_s = sum(step.watched.cpu_s or 0 for step in one.closed)
    images = sum(len(step.ok) for step in one.closed)
    return [
        side.label,
        f"{statistics.median(one.rates):.2f}",
        f"{ratio(first.rates, one.rates):.3f}",
        f"{cpu_s / images:.3f}" if images else "-",
        f"{max(step.pss for step in one.closed) / 2**20:.0f}",
    ]


def _load_row(side: Side, first: Seen, one: Seen, load: float) -> list[str]:
    rates, firsts = ([step.goodput for step in each.loads[load]] for each in (one, first))
    p99, first_p99 = (each.latency_ms(load, 0.99) or math.nan for each in (one, first))
    codes: Counter[str] = Counter()
    for step in one.loads[load]:
        codes.update(step.codes)
    return [
        side.label,
        f"{statistics.median(rates):.2f}",
        f"{ratio(firsts, rates):.3f}",
        *(ms(one.latency_ms(load, share)) for share in (0.5, 0.9, 0.99)),
        f"{first_p99 / p99:.3f}" if math.isfinite(p99 + first_p99) else "-",
        ", ".join(f"{code}: {count}" for code, count in sorted(codes.items())),
        str(sum(step.lost for step in one.loads[load])),
    ]


def _order(sides: Sequence[Side], turn: int) -> list[int]:
    order = list(range(len(sides)))
    return order[::-1] if turn % 2 else order
