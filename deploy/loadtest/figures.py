"""The arithmetic of the report: what a run says, and when it says too little."""

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from deploy.loadtest.generator import Answer, Outcome, Protocol
from deploy.loadtest.watch import Sample, Series, Watched

SHARES = (0.5, 0.9, 0.99, 0.999)
STAGES = ("decode", "queue", "infer", "encode")


@dataclass(frozen=True)
class Step:
    """One run, and what the service said meanwhile.

    Attributes:
        share: offered load, of the peak; None for a closed loop of `users`.
        seconds: of sending.
    """

    label: str
    protocol: Protocol
    outcome: Outcome
    watched: Watched
    seconds: float
    share: float | None = None
    users: int | None = None

    @property
    def offered(self) -> float | None:
        """Requests a second that were due; None for a closed loop."""
        return None if self.outcome.scheduled is None else self.outcome.scheduled / self.seconds

    @property
    def ok(self) -> list[Answer]:
        return [answer for answer in self.outcome.answers if answer.outcome == "ok"]

    @property
    def lost(self) -> int:
        """Requests that failed, or that the generator never sent or never saw answered."""
        failed = sum(answer.outcome == "failed" for answer in self.outcome.answers)
        return failed + self.unsent

    @property
    def unsent(self) -> int:
        """Due, and not sent: the generator was short of users, or had to stop."""
        return max(0, (self.outcome.scheduled or 0) - len(self.outcome.answers))

    @property
    def codes(self) -> dict[str, int]:
        """Answers by status: HTTP's, or the number of gRPC's; 0 over HTTP is no answer at all."""
        return {
            str(code): count
            for code, count in sorted(Counter(each.status for each in self.outcome.answers).items())
        }

    @property
    def goodput(self) -> float:
        """Images a second, from the first request due to the end of sending or the last image, the later."""
        if not self.ok:
            return 0.0
        begun = min(answer.due for answer in self.outcome.answers)
        return len(self.ok) / max(self.seconds, (self.ok[-1].ended - begun) / 1000)

    @property
    def late_ms(self) -> float:
        """The 99th percentile of how late the generator itself sent."""
        late = sorted(answer.begun - answer.due for answer in self.outcome.answers)
        return late[math.ceil(0.99 * len(late)) - 1] if late else 0.0

    def latency_ms(self, share: float) -> float | None:
        return percentile([answer.latency_ms for answer in self.ok], share, self.lost)

    def stage_ms(self, stage: str, share: float) -> float | None:
        """Of the images' `Server-Timing`; None where the protocol has none."""
        return percentile([answer.stages[stage] for answer in self.ok if stage in answer.stages], share)

    @property
    def stage_mean_ms(self) -> dict[str, float]:
        """Mean of each stage by the service's own histograms."""
        return stage_means(self.watched.before, self.watched.after)

    @property
    def server_ok(self) -> int:
        """Answers that the service itself counts as good."""
        return round(grown(self.watched, "quietframe_requests_total", protocol=self.protocol, reason="ok"))

    @property
    def batches(self) -> dict[str, int]:
        return histogram(self.watched.before, self.watched.after, "quietframe_batch_size")

    @property
    def cores(self) -> float | None:
        """Of the service, in use on average."""
        return None if self.watched.cpu_s is None else self.watched.cpu_s / self.watched.wall_s

    @property
    def generator_cores(self) -> float:
        return self.outcome.cpu_s / self.outcome.wall_s

    @property
    def other_cores(self) -> float | None:
        """What neither the service nor the generator used: of whoever else is on the machine."""
        if self.watched.cpu_s is None:
            return None
        return max(
            0.0, (self.watched.machine_s - self.watched.cpu_s - self.outcome.cpu_s) / self.watched.wall_s
        )

    @property
    def pss(self) -> float:
        """The most memory of the service in any sample, bytes."""
        return max((sample.pss for sample in self.watched.samples), default=0.0)

    @property
    def pending(self) -> float:
        """The most requests inside the service in any sample."""
        return max((sample.pending_requests for sample in self.watched.samples), default=0.0)


def percentile(values: Iterable[float], share: float, lost: int = 0) -> float | None:
    """By nearest rank; each of the `lost` counts as slower than all `values`.

    Returns:
        None where there are fewer than `1 / (1 - share)` (99 % wants 100 of them), infinity where the
        rank falls on one that was lost.
    """
    ordered = sorted(values)
    number = len(ordered) + lost
    if number == 0 or number * (1 - share) < 1 - 1e-9:
        return None
    rank = math.ceil(share * number - 1e-9)
    return ordered[rank - 1] if rank <= len(ordered) else math.inf


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Median of the ratios of rounds run in turn; NaN where there was nothing to divide by."""
    each = [mine / other for mine, other in zip(ours, theirs, strict=True) if other]
    return statistics.median(each) if each else math.nan


def grown(watched: Watched, name: str, **labels: str) -> float:
    """How much a counter has grown, over all series with these labels."""

    def total(series: Series) -> float:
        return sum(
            value
            for (series_name, own), value in series.items()
            if series_name == name and labels.items() <= dict(own).items()
        )

    return total(watched.after) - total(watched.before)


def histogram(before: Series, after: Series, name: str) -> dict[str, int]:
    """Observations between two scrapes for each bucket, by its upper bound; buckets are cumulative."""

    def cumulative(series: Series) -> Counter[str]:
        counts: Counter[str] = Counter()
        for (series_name, labels), value in series.items():
            if series_name == f"{name}_bucket":
                counts[dict(labels)["le"]] += round(value)
        return counts

    earlier, later = cumulative(before), cumulative(after)
    below, counts = 0, {}
    for bound in sorted(later, key=float):
        now = later[bound] - earlier[bound]
        counts[bound] = now - below
        below = now
    return counts


def stage_means(before: Series, after: Series) -> dict[str, float]:
    """Milliseconds an image spent in each stage between two scrapes."""
    watched = Watched(before, after)
    means = {}
    for stage in STAGES:
        images = grown(watched, "quietframe_stage_seconds_count", stage=stage)
        if images:
            means[stage] = 1000 * grown(watched, "quietframe_stage_seconds_sum", stage=stage) / images
    return means


def queue_over_time(steps: Sequence[Step]) -> tuple[list[float], list[float]]:
    """Seconds since the first sample, and requests pending then; NaN between steps."""
    samples: list[Sample] = []
    for step in steps:
        samples += [*step.watched.samples, Sample(math.nan, math.nan, math.nan, math.nan)]
    begun = samples[0].time if samples else 0.0
    return [sample.time - begun for sample in samples], [sample.pending_requests for sample in samples]
