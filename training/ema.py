"""The exponential moving average of weights, which is what a run publishes."""

from collections.abc import Callable

from torch import Tensor


def averaging(decay: float) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """An average of weights that remembers less while there is little to remember.

    With 0.999 from the first step on, four fifths of it would be the first weights after 230 steps. As in
    TensorFlow's `ExponentialMovingAverage` with `num_updates`.
    """

    def average(mean: Tensor, weight: Tensor, number: Tensor) -> Tensor:
        kept = ((1 + number) / (10 + number)).clamp(max=decay)
        return mean * kept + weight * (1 - kept)

    return average
