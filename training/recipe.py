"""A recipe: everything that decides one trained model, typed, read from a TOML file."""

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from training.corruption import AnyCorruption
from training.errors import RecipeError

RECIPES = Path(__file__).parent / "recipes"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class NetworkRecipe(_Strict):
    """See `networks.ResidualUNet`."""

    kind: Literal["unet"]
    widths: tuple[PositiveInt, ...] = Field(min_length=1)
    blocks: tuple[PositiveInt, ...]
    unshuffle: Literal[1, 2, 4] = 2

    @model_validator(mode="after")
    def _one_block_count_per_width(self) -> Self:
        if len(self.widths) != len(self.blocks):
            raise ValueError("widths and blocks need one number for each level")
        return self


class DataRecipe(_Strict):
    """See `data.Patches`; `holdout` photographs are kept for validation."""

    patch: PositiveInt
    shrink: Annotated[float, Field(ge=1, le=8)] = 2.0
    gray: Annotated[float, Field(ge=0, le=1)] = 0.15
    holdout: PositiveInt = 8


class FitRecipe(_Strict):
    """The optimisation; training stops at `steps` or `minutes`, whichever comes first."""

    loss: Literal["mse", "charbonnier", "relative-mse", "psnr"]
    optimiser: Literal["muon", "adamw"] = "adamw"
    rate: PositiveFloat
    batch: PositiveInt
    steps: PositiveInt
    minutes: PositiveFloat | None = None
    warmup: NonNegativeInt = 200
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.999
    epoch: PositiveInt = 500
    precision: Literal["bf16-mixed", "32-true"] = "bf16-mixed"
    seed: NonNegativeInt = 0


class Recipe(_Strict):
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    summary: str
    limits: tuple[str, ...]
    network: NetworkRecipe
    data: DataRecipe
    fit: FitRecipe
    corruption: tuple[AnyCorruption, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _patch_fits_network(self) -> Self:
        alignment = self.network.unshuffle * 2 ** (len(self.network.widths) - 1)
        if self.data.patch % alignment:
            raise ValueError(f"data.patch must be a multiple of {alignment} for this network")
        return self


def load_recipe(name_or_path: str) -> Recipe:
    """Read a recipe by the name of a file in `training/recipes`, or by path.

    Raises:
        RecipeError: no such file, not TOML, an unknown key or an impossible value (each named).
    """
    path = Path(name_or_path)
    if path.suffix != ".toml":
        path = RECIPES / f"{name_or_path}.toml"
    try:
        spelled = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        known = ", ".join(sorted(file.stem for file in RECIPES.glob("*.toml")))
        raise RecipeError(f"no recipe {name_or_path}; there are: {known}, or a path to a .toml") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} is not valid TOML: {error}") from None
    try:
        return Recipe.model_validate(spelled)
    except ValidationError as error:
        wrong = "\n".join(f"  {_where(each['loc'])}: {_what(each)}" for each in error.errors())
        raise RecipeError(f"{path} is not a valid recipe:\n{wrong}") from None


def _where(location: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in location) or "recipe"


def _what(problem: Any) -> str:
    if problem["type"] == "extra_forbidden":
        return "unknown key"
    return f"{problem['msg']} (got {problem['input']!r})"
