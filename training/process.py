"""What every corruption process is: typed ranges of levels, one image in, one draw of C(x~|x) out."""

import math
from abc import ABC, abstractmethod
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

from training.pixels import Image


def _levels(value: Any, validated: ValidatorFunctionWrapHandler) -> Any:
    """A single level is a range of itself; a range goes upwards."""
    low, high = validated((value, value) if isinstance(value, int | float) else value)
    if low > high:
        raise ValueError(f"a range goes from low to high, not from {low} to {high}")
    return low, high


_Grey = Annotated[FiniteFloat, Field(ge=0)]
_Share = Annotated[float, Field(ge=0, le=1)]
_Count = Annotated[float, Field(ge=1, le=1e6)]
_Electrons = Annotated[float, Field(ge=0, le=1000)]
_Gain = Annotated[float, Field(ge=1, le=8)]
_Deviation = Annotated[float, Field(ge=0, le=8)]
_Percent = Annotated[float, Field(ge=1, le=100)]
_Factor = Annotated[float, Field(ge=1, le=4)]
_Crf = Annotated[float, Field(ge=0, le=51)]
_Side = Annotated[int, Field(ge=1, le=1024)]
Sigma = Annotated[tuple[_Grey, _Grey], WrapValidator(_levels)]
Fraction = Annotated[tuple[_Share, _Share], WrapValidator(_levels)]
Photons = Annotated[tuple[_Count, _Count], WrapValidator(_levels)]
ReadNoise = Annotated[tuple[_Electrons, _Electrons], WrapValidator(_levels)]
Gain = Annotated[tuple[_Gain, _Gain], WrapValidator(_levels)]
Deviation = Annotated[tuple[_Deviation, _Deviation], WrapValidator(_levels)]
Quality = Annotated[tuple[_Percent, _Percent], WrapValidator(_levels)]
Crf = Annotated[tuple[_Crf, _Crf], WrapValidator(_levels)]
Factor = Annotated[tuple[_Factor, _Factor], WrapValidator(_levels)]
Side = Annotated[tuple[_Side, _Side], WrapValidator(_levels)]


class Corruption(BaseModel, ABC):
    """One corruption process.

    Args:
        weight: its share where a recipe mixes several.
        gray: whether a mixture has it for gray images, too. What demosaicing leaves of a sensor's
            noise differs between the channels; in a gray image it is nothing but fine texture, and
            networks that had to take it there took granite for noise.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    weight: Annotated[FiniteFloat, Field(gt=0)] = 1.0
    gray: bool = True

    @abstractmethod
    def apply(self, clean: Image, rng: np.random.Generator) -> Image:
        """Draw x~ from C(x~|x = clean), `[H, W, C]`."""

    def apply_batch(self, clean: Image, rng: np.random.Generator) -> Image:
        """Draw x~ for each image of `[N, H, W, C]`, every image with levels of its own."""
        return np.stack([self.apply(image, rng) for image in clean]) if len(clean) else clean.copy()


class BatchedCorruption(Corruption):
    """A process that is computed for a whole batch at once; an image is a batch of one."""

    @abstractmethod
    def apply_batch(self, clean: Image, rng: np.random.Generator) -> Image: ...

    def apply(self, clean: Image, rng: np.random.Generator) -> Image:
        noisy: Image = self.apply_batch(clean[None], rng)[0]
        return noisy


def uniform(bounds: tuple[float, float], images: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """One level for each image, `[N, 1, 1, 1]`."""
    return rng.uniform(*bounds, (images, 1, 1, 1))


def log_uniform(
    bounds: tuple[float, float], images: int, rng: np.random.Generator
) -> npt.NDArray[np.float64]:
    """One level for each image, `[N, 1, 1, 1]`, its logarithm uniform."""
    return np.exp(uniform((math.log(bounds[0]), math.log(bounds[1])), images, rng))
