"""The load that a report is about: the peak first, then steps from far below it to beyond."""

from dataclasses import dataclass

import click

from deploy.loadtest.figures import Step
from deploy.loadtest.generator import Generator, Protocol
from deploy.loadtest.schedule import make_schedule
from deploy.loadtest.target import Target
from deploy.loadtest.watch import Watch

SATURATION = 0.75  # of the peak; above it a Poisson process may well be refused for a moment
_GAIN = 1.05
_MOST_USERS = 64


@dataclass(frozen=True)
class Form:
    """How long a load test is; seconds of sending, drains come on top."""

    peak_s: float
    http_shares: tuple[float, ...]
    grpc_shares: tuple[float, ...]
    step_s: float
    ramp_s: float
    sizes: tuple[str, ...] = ()
    size_s: float = 0
    size_users: int = 8


SHORT = Form(peak_s=5, http_shares=(0.1, 0.4, 0.7, 1.0, 1.3), grpc_shares=(0.7, 1.3), step_s=10, ramp_s=0)
FULL = Form(
    peak_s=10,
    http_shares=tuple(tenth / 10 for tenth in range(1, 14)),
    grpc_shares=(0.1, 0.4, 0.7, 1.0, 1.3),
    step_s=35,
    ramp_s=60,
    sizes=("thumbnails", "360p", "720p", "720p-png", "1080p"),
    size_s=8,
)


class Load:
    """Puts one target under load, and tells what it does."""

    def __init__(self, generator: Generator, target: Target, seed: int) -> None:
        self._generator = generator
        self._target = target
        self._seed = seed

    def closed(self, protocol: Protocol, users: int, seconds: float) -> Step:
        """`users` who each send the next when the last is answered."""
        with Watch(self._target) as watched:
            outcome = self._generator.closed(self._target, protocol, users, seconds, self._seed)
        return _told(Step(f"{users} users", protocol, outcome, watched, seconds, users=users))

    def open(self, protocol: Protocol, rate: float, seconds: float, share: float) -> Step:
        """Poisson arrivals at `rate` a second, which is `share` of the peak."""
        schedule = make_schedule(rate, seconds, self._generator.deck, self._seed)
        with Watch(self._target) as watched:
            outcome = self._generator.open(self._target, protocol, schedule, saturating=share > SATURATION)
        label = f"{100 * share:.0f} %"
        return _told(Step(label, protocol, outcome, watched, seconds, share))

    def ramp(self, protocol: Protocol, rate: float, end_rate: float, seconds: float) -> Step:
        """Poisson arrivals whose rate rises evenly."""
        schedule = make_schedule(rate, seconds, self._generator.deck, self._seed, end_rate)
        with Watch(self._target) as watched:
            outcome = self._generator.open(self._target, protocol, schedule, saturating=True)
        return _told(Step("ramp", protocol, outcome, watched, seconds))

    def peak(self, protocol: Protocol, seconds: float) -> list[Step]:
        """Closed loops of twice as many users each, until they gain less than 5 %."""
        steps = [self.closed(protocol, 2, seconds)]
        while (users := 2 * (steps[-1].users or 1)) <= _MOST_USERS:
            steps.append(self.closed(protocol, users, seconds))
            if steps[-1].goodput < _GAIN * steps[-2].goodput:
                break
        if not any(step.ok for step in steps):
            raise click.ClickException(
                "no image came back at all; see the codes above, and the service's log"
            )
        return steps


def best(steps: list[Step]) -> Step:
    """The one with the most images a second."""
    return max(steps, key=lambda step: step.goodput)


def _told(step: Step) -> Step:
    codes = ", ".join(f"{count} x {code}" for code, count in step.codes.items())
    offered = "" if step.offered is None else f" of {step.offered:.1f}/s offered"
    click.echo(f"{step.protocol} {step.label:9} {step.goodput:7.2f} images/s{offered}; {codes}")
    for rule in step.outcome.crossed:
        click.echo(f"  crossed: {rule}")
    return step
