"""What training begins with: the last checkpoint of an earlier run, or a published model."""

from pathlib import Path

import onnx
import torch
from onnx import numpy_helper

from model_store import ModelStore, default_root
from training.build import build_network
from training.errors import DataError
from training.export import load_run
from training.fit import Begun
from training.graph import weight_name
from training.recipe import load_recipe
from training.recipe_parts import UNetRecipe


def begun_with(reference: str) -> Begun:
    """The run of that folder, or the model `name` or `name:version` of the repository's store.

    Raises:
        DataError: the folder has no checkpoint, or the model is none whose weights can be trained on.
        StoreError: there is neither such a folder nor such a model.
        RecipeError: the recipe of the model does not ship.
    """
    return _run(Path(reference)) if Path(reference).is_dir() else _published(reference)


def _run(folder: Path) -> Begun:
    recipe, network, effort = load_run(folder)
    trained = recipe.model_dump(mode="json", include={"fit", "corruption", "data"})
    earlier = [*effort.earlier, {**trained, "steps": effort.steps, "minutes": effort.minutes}]
    return Begun(recipe, network, earlier)


def _published(reference: str) -> Begun:
    """Its weights have their names in the graph."""
    stored = ModelStore(default_root()).resolve(reference)
    card = stored.card
    if card.hyperparameters.get("kind") != "unet":
        raise DataError(f"{card.label} is no U-Net; train its recipe, which takes minutes")
    shape = UNetRecipe.model_validate(card.hyperparameters)
    recipe = load_recipe(card.name).model_copy(update={"network": shape})
    network = build_network(recipe)
    graph = onnx.load_from_string(stored.read_verified()).graph
    found = {weight_name(each.name): each for each in graph.initializer}
    try:
        network.load_state_dict(
            {name: torch.tensor(numpy_helper.to_array(each)) for name, each in found.items() if name}
        )
    except RuntimeError:
        raise DataError(
            f"{card.label} is from before today's networks; take a newer version, or a run"
        ) from None
    return Begun(recipe, network.eval(), [{"model": card.label, "sha256": card.sha256}])
