"""The tables of a recipe: network, data and fit, typed. Their classes say what each key means."""

from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Tag,
    model_validator,
)

Units = Annotated[tuple[PositiveInt, ...], Field(min_length=1)]
Shape = tuple[int, int, int]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class UNetRecipe(Strict):
    """See `networks.ResidualUNet`."""

    kind: Literal["unet"]
    widths: tuple[PositiveInt, ...] = Field(min_length=1)
    blocks: tuple[PositiveInt, ...]
    unshuffle: Literal[1, 2, 4] = 2
    gates: bool = False
    clipped: bool = False
    gray_rank: NonNegativeInt = 0

    @model_validator(mode="after")
    def _gray_changes_gates(self) -> Self:
        if self.gray_rank and not self.gates:
            raise ValueError("gray_rank is of what is added to gates; set gates = true")
        return self

    @model_validator(mode="after")
    def _one_block_count_per_width(self) -> Self:
        if len(self.widths) != len(self.blocks):
            raise ValueError("widths and blocks need one number for each level")
        return self


class LinearRecipe(Strict):
    """See `classic.Linear`."""

    kind: Literal["linear"]
    code: PositiveInt
    tied: bool = True


class DenseRecipe(Strict):
    """See `classic.Dense`."""

    kind: Literal["dense"]
    hidden: Units = (128, 64, 32, 64, 128)
    output: Literal["sigmoid", "linear"] = "sigmoid"


class ConvRecipe(Strict):
    """See `classic.Conv`."""

    kind: Literal["conv"]
    widths: tuple[Annotated[int, Field(ge=2)], PositiveInt] = (32, 64)
    blocks: NonNegativeInt = 2


class Latent2Recipe(Strict):
    """See `classic.Latent2`."""

    kind: Literal["latent2"]
    hidden: Units = (512, 256, 128)


class StochasticRecipe(Strict):
    """See `classic.Stochastic`."""

    kind: Literal["stochastic"]
    code: PositiveInt
    noise: NonNegativeFloat = 0.5


class Sr2Recipe(Strict):
    """See `classic.Sr2`."""

    kind: Literal["sr2"]
    width: PositiveInt = 32
    stages: PositiveInt = 2


class StackedRecipe(Strict):
    """See `stacked.Stacked`."""

    kind: Literal["stacked"]
    hidden: Units
    masked: Annotated[float, Field(ge=0, lt=1)] = 0.25


NetworkRecipe = Annotated[
    UNetRecipe
    | LinearRecipe
    | DenseRecipe
    | ConvRecipe
    | Latent2Recipe
    | StochasticRecipe
    | Sr2Recipe
    | StackedRecipe,
    Field(discriminator="kind"),
]


class PhotosRecipe(Strict):
    """See `data.Patches`; `holdout` photographs are kept for validation."""

    kind: Literal["photos"] = "photos"
    patch: PositiveInt
    shrink: Annotated[float, Field(ge=1, le=8)] = 2.0
    gray: Annotated[float, Field(ge=0, le=1)] = 0.15
    augment: Annotated[float, Field(ge=0, le=1)] = 0.0
    holdout: PositiveInt = 8

    @property
    def shape(self) -> Shape:
        return 3, self.patch, self.patch


class DigitsRecipe(Strict):
    """See `digits`; `side` 32 pads with black, the last `holdout` training images are kept for validation.

    Noisy images are clipped and rounded to 8 bits, as a served model gets them; with `eight_bits`
    false the network sees what the corruption draws.
    """

    kind: Literal["mnist", "fashion-mnist"]
    side: Literal[28, 32] = 28
    holdout: PositiveInt = 1000
    eight_bits: bool = True

    @property
    def shape(self) -> Shape:
        return 1, self.side, self.side


class SpiralRecipe(Strict):
    """See `spiral.points`; the two coordinates of a point stand as the channels of one pixel."""

    kind: Literal["spiral"]
    points: Annotated[int, Field(ge=100, le=10**7)] = 20_000
    turns: Annotated[float, Field(gt=0, le=10)] = 1.5
    holdout: PositiveInt = 1000
    eight_bits: Literal[False] = False

    @property
    def shape(self) -> Shape:
        return 2, 1, 1


def _data_kind(spelled: Any) -> str | None:
    """Recipes from before there were kinds are of photographs."""
    kind = spelled.get("kind", "photos") if isinstance(spelled, dict) else getattr(spelled, "kind", None)
    return "digits" if kind in ("mnist", "fashion-mnist") else kind


DataRecipe = Annotated[
    Annotated[PhotosRecipe, Tag("photos")]
    | Annotated[DigitsRecipe, Tag("digits")]
    | Annotated[SpiralRecipe, Tag("spiral")],
    Discriminator(
        _data_kind,
        custom_error_type="unknown_kind",
        custom_error_message="kind is one of 'photos', 'mnist', 'fashion-mnist', 'spiral'",
    ),
]

LossName = Literal["mse", "bce", "gaussian-nll", "charbonnier", "relative-mse", "psnr", "floored-psnr"]


class FitRecipe(Strict):
    """The optimisation; training stops at `steps`, `epochs` or `minutes`, whichever comes first.

    An epoch is once through the data, or `epoch` steps where that is endless (photographs); a
    checkpoint follows each. `batch` is that of all processes together, however many there are.
    `bf16-mixed` is taken as `32-true` on CPUs without instructions for bfloat16. `floor` is what
    `floored-psnr` adds to each image's MSE, of values in 0..1. `only` trains what the network has for gray
    images alone (`gray_rank`) and leaves all other weights, and so every colour image, as they began.
    """

    loss: LossName
    floor: PositiveFloat = 1e-4
    optimiser: Literal["muon", "adamw", "adam"] = "adamw"
    rate: PositiveFloat
    schedule: Literal["cosine", "constant"] = "cosine"
    batch: PositiveInt
    steps: PositiveInt | None = None
    epochs: PositiveInt | None = None
    minutes: PositiveFloat | None = None
    warmup: NonNegativeInt = 200
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.999
    epoch: PositiveInt = 500
    precision: Literal["bf16-mixed", "32-true"] = "bf16-mixed"
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    only: Literal["gray"] | None = None

    @model_validator(mode="after")
    def _has_an_end(self) -> Self:
        if not (self.steps or self.epochs or self.minutes):
            raise ValueError("give steps, epochs or minutes, or training would never end")
        return self
