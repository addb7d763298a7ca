"""A recipe: everything that decides one trained model, typed, read from a TOML file."""

import re
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self, get_args

from pydantic import BaseModel, ValidationError, model_validator

from model_store.card import NAME_PATTERN, Name, Text
from training import recipe_parts as parts
from training.corruption import Corruption, Several
from training.errors import RecipeError
from training.recipe_parts import Strict

RECIPES = Path(__file__).parent / "recipes"


class Recipe(Strict):
    """What goes into the card has the card's types: `fit` refuses what `export` could not publish."""

    name: Name
    summary: Text
    limits: tuple[Text, ...]
    network: parts.NetworkRecipe
    data: parts.DataRecipe
    fit: parts.FitRecipe
    corruption: Several

    @model_validator(mode="after")
    def _halves_have_names(self) -> Self:
        halved = isinstance(self.network, parts.Latent2Recipe)
        if halved and not re.fullmatch(NAME_PATTERN, f"{self.name}-encoder"):
            raise ValueError("name has at most 56 characters here, as -encoder and -decoder are added to it")
        return self

    @model_validator(mode="after")
    def _data_fits_network(self) -> Self:
        network, data = self.network, self.data
        if isinstance(network, parts.UNetRecipe) and not isinstance(data, parts.PhotosRecipe):
            raise ValueError("network.kind unet takes colour images; data.kind must be photos")
        if isinstance(data, parts.SpiralRecipe) and network.kind not in ("linear", "dense"):
            raise ValueError(f"network.kind {network.kind} takes images; a spiral needs linear or dense")
        any_size = isinstance(network, parts.UNetRecipe | parts.ConvRecipe)
        if isinstance(data, parts.PhotosRecipe) and not any_size:
            raise ValueError(f"network.kind {network.kind} cannot learn on photographs; take unet or conv")
        side, multiple = data.shape[1], _alignment(network)
        if side % multiple:
            name = "patch" if isinstance(data, parts.PhotosRecipe) else "side"
            raise ValueError(f"data.{name} must be a multiple of {multiple} for this network")
        return self

    @model_validator(mode="after")
    def _what_is_trained_is_there(self) -> Self:
        if self.fit.only == "gray" and not getattr(self.network, "gray_rank", 0):
            raise ValueError("fit.only gray trains what gray_rank adds to a unet; set network.gray_rank")
        return self

    @model_validator(mode="after")
    def _loss_fits_network(self) -> Self:
        network, loss = self.network, self.fit.loss
        unbounded = isinstance(network, parts.UNetRecipe | parts.LinearRecipe | parts.Sr2Recipe)
        if loss == "bce" and (unbounded or getattr(network, "output", None) == "linear"):
            raise ValueError("fit.loss bce needs a network whose output is 0..1, as a sigmoid's; take mse")
        if loss == "relative-mse" and isinstance(network, parts.Sr2Recipe | parts.StackedRecipe):
            raise ValueError(
                f"fit.loss relative-mse cannot compare with the input of {network.kind}; take mse"
            )
        return self


def _alignment(network: parts.NetworkRecipe) -> int:
    match network:
        case parts.UNetRecipe():
            return network.unshuffle << (len(network.widths) - 1)
        case parts.ConvRecipe():
            return 4
        case parts.Sr2Recipe():
            return 2
    return 1


def load_recipe(name_or_path: str) -> Recipe:
    """Read a recipe by the name of a file in `training/recipes`, or by path.

    Raises:
        RecipeError: no such file, not TOML, an unknown key or an impossible value (each named,
            with what is allowed).
    """
    path = Path(name_or_path)
    if path.suffix != ".toml":
        path = RECIPES / f"{name_or_path}.toml"
    try:
        spelled = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        known = ", ".join(sorted(file.stem for file in RECIPES.glob("*.toml")))
        raise RecipeError(f"no recipe {name_or_path}; there are: {known}, or a path to a .toml") from None
    except OSError as error:
        raise RecipeError(f"{path} cannot be read ({error.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} is not valid TOML: {error}") from None
    try:
        return Recipe.model_validate(spelled)
    except ValidationError as error:
        wrong = "\n".join(f"  {_where(each['loc'])}: {_what(each)}" for each in _own(error.errors()))
        raise RecipeError(f"{path} is not a valid recipe:\n{wrong}") from None


def changed(recipe: Recipe, **fit: Any) -> Recipe:
    """The recipe with other values in its `fit` table.

    Raises:
        RecipeError: an impossible value, named.
    """
    spelled = recipe.model_dump(mode="json")
    try:
        return Recipe.model_validate({**spelled, "fit": {**spelled["fit"], **fit}})
    except ValidationError as error:
        first = error.errors()[0]
        raise RecipeError(f"{_where(first['loc'])}: {_what(first)}") from None


def _own(problems: Sequence[Any]) -> Iterator[Any]:
    """Without those of a list that seems too short only because what is in it is wrong."""
    for each in problems:
        place = each["loc"]
        inside = any(other["loc"][: len(place)] == place for other in problems if other is not each)
        if not (each["type"] == "too_short" and inside):
            yield each


def _where(location: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in location) or "recipe"


def _what(problem: Any) -> str:
    if problem["type"] == "extra_forbidden":
        return f"unknown key; there are: {', '.join(_keys_beside(problem['loc']))}"
    if problem["type"] == "unknown_kind":
        return str(problem["msg"])
    return f"{problem['msg']} (got {problem['input']!r})"


def _keys_beside(location: tuple[int | str, ...]) -> Iterable[str]:
    """The keys of the table in which the unknown one stands; pydantic names that by its kind."""
    tables: dict[int | str, Iterable[str]] = {
        "fit": parts.FitRecipe.model_fields,
        "digits": parts.DigitsRecipe.model_fields,
    }
    for model in (*_below(Strict), *_below(Corruption)):
        kinds = get_args(model.model_fields["kind"].annotation) if "kind" in model.model_fields else ()
        tables.update(dict.fromkeys(kinds, model.model_fields))
    return tables[location[-2]] if len(location) > 1 else Recipe.model_fields


def _below(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for each in model.__subclasses__():
        yield each
        yield from _below(each)
