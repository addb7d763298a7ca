"""When each request of an open loop is due: Poisson arrivals, known before the run, the same for all sides.

k6's arrival-rate executors begin iterations at regular ticks. Each iteration sleeps from its tick to the
time it is due, so the arrivals are a Poisson process and every latency counts from a time that no slow
answer can shift. A lead before the first arrival makes every due time later than its tick.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Times = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Schedule:
    """Requests of one open loop, from `rate` to `end_rate` a second.

    Attributes:
        due_s: when each request is due, in seconds after the start, ascending; float `[n]`.
        pictures: which picture of the deck it carries; int `[n]`.
        ahead: the most iterations that have begun and are not due yet.
    """

    rate: float
    end_rate: float
    seconds: float
    due_s: Times
    pictures: npt.NDArray[np.int64]
    ahead: int


def make_schedule(
    rate: float, seconds: float, deck: int, seed: int, end_rate: float | None = None
) -> Schedule:
    """Poisson arrivals for `seconds`, at `rate` a second or rising evenly from it to `end_rate`.

    Given their number, the arrivals of a Poisson process are independent and uniform (Cox and Lewis,
    The Statistical Analysis of Series of Events, 1966); a ramp is uniform in its integral.

    Args:
        deck: number of pictures; they are dealt from decks shuffled anew.
    """
    rate = _in_k6_steps(rate)
    end_rate = rate if end_rate is None else _in_k6_steps(end_rate)
    total = seconds * (rate + end_rate) / 2
    # k6 begins a constant rate at once and a ramp when its integral is 1, and leaves out a tick at the end
    first = 0 if rate == end_rate else 1
    number = max(1, math.ceil(total) - 1 if first else math.floor(total))
    rng = np.random.default_rng(seed)
    slope = (end_rate - rate) / seconds
    due = _when(np.sort(rng.uniform(0, total, number)), rate, slope)
    ticks = _when(np.arange(number) + first, rate, slope)
    due += max(0.0, float(np.max(ticks - due)))
    ahead = int(np.max(np.searchsorted(ticks, due, side="right") - np.arange(number)))
    return Schedule(rate, end_rate, seconds, due, deal(number, deck, rng), ahead)


def deal(number: int, deck: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """`number` indices below `deck`, in shuffled rounds, so that a short run has the mix of a long one."""
    rounds = [rng.permutation(deck) for _ in range(math.ceil(number / deck))]
    return np.concatenate(rounds)[:number]


def _in_k6_steps(rate: float) -> float:
    """k6 takes whole numbers; we give it them for 1000 seconds."""
    return max(1, round(1000 * rate)) / 1000


def _when(count: npt.NDArray[np.floating | np.integer], rate: float, slope: float) -> Times:
    """When the integral of the rate reaches `count`, in seconds."""
    if not slope:
        return np.asarray(count / rate, np.float64)
    return np.asarray((np.sqrt(rate**2 + 2 * slope * count) - rate) / slope, np.float64)
