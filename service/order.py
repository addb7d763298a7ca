"""What a client wants done with an image, and what it gets."""

from dataclasses import dataclass
from typing import Literal

from model_store import ModelCard
from service import codec
from service.engine import Samples
from service.errors import BadParameterError
from service.settings import ImageFormat

Noise = Literal["auto"]


@dataclass(frozen=True)
class Order:
    """What a client wants done with its image; None means the default, and for `noise` not to measure it."""

    model: str | None = None
    strength: float = 1.0
    format: ImageFormat | Literal["raw"] | None = None
    quality: int | None = None
    noise: Noise | None = None

    def check(self, card: ModelCard) -> None:
        """Raises BadParameterError for what the model of the card cannot do."""
        if not 0 <= self.strength <= 1:
            raise BadParameterError(f"strength is 0 to 1, not {self.strength}")
        if self.strength != 1 and not card.takes_strength:
            raise BadParameterError(f"Model {card.label} has no strength; leave the parameter out")
        if self.noise and card.task != "denoise":
            raise BadParameterError(
                f"Model {card.label} does {card.task}, which measures no noise; leave it out"
            )


@dataclass(frozen=True)
class Denoised:
    """The clean image as pixels and as a file (empty where raw pixels were asked for), and what made it.

    Of an encoder, or of a model of points, `pixels` are float32 `[k]`. `noise_sigma` is that of the
    input in levels of 255, where it was asked for.
    """

    pixels: Samples
    data: bytes
    format: ImageFormat | Literal["raw"]
    card: ModelCard
    seconds: dict[str, float]
    noise_sigma: float | None = None

    @property
    def media_type(self) -> str:
        return "application/octet-stream" if self.format == "raw" else codec.MEDIA_TYPES[self.format]
