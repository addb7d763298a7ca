"""What training begins with: the last checkpoint of an earlier run, or a published model."""

from pathlib import Path

import onnx
import torch
from onnx import numpy_helper
from pydantic import ValidationError

from model_store import ModelCard, ModelStore, StoredModel, default_root
from training.build import build_network
from training.errors import DataError
from training.export import load_run
from training.fit import Begun
from training.graph import weight_name
from training.networks import ResidualUNet
from training.provenance import Provenance, read_attribution
from training.published import corruptions_of
from training.recipe import Recipe, load_recipe
from training.recipe_parts import FitRecipe


def begun_with(reference: str) -> Begun:
    """The run of that folder, or the model `name` or `name:version` of the repository's store.

    Raises:
        DataError: the folder has no checkpoint, or the model is none whose weights can be trained on.
        StoreError: there is neither such a folder nor such a model.
        RecipeError: its card is too old to tell how patches were cut, and its recipe does not ship.
    """
    return _run(Path(reference)) if Path(reference).is_dir() else _published(reference)


def _run(folder: Path) -> Begun:
    recipe, network, effort = load_run(folder)
    return Begun(
        recipe,
        network,
        [*effort.earlier, effort.told(recipe)],
        effort.own_provenance.after(effort.provenance),
    )


def _published(reference: str) -> Begun:
    stored = ModelStore(default_root()).resolve(reference)
    recipe, network = published_network(stored)
    earlier = [{"model": stored.card.label, "sha256": stored.card.sha256}]
    attribution = read_attribution(stored.folder)
    provenance = Provenance(training_data=stored.card.training_data, attribution=attribution)
    return Begun(recipe, network, earlier, provenance)


def published_network(stored: StoredModel) -> tuple[Recipe, ResidualUNet]:
    """A published U-Net in torch, whose weights have their names in the graph, and how it was trained.

    Raises:
        DataError: it is no U-Net, or one of before today's networks.
        RecipeError: its card is too old to tell how patches were cut, and its recipe does not ship.
    """
    card = stored.card
    if card.hyperparameters.get("kind") != "unet":
        raise DataError(f"{card.label} is no U-Net; train its recipe, which takes minutes")
    graph = onnx.load_from_string(stored.read_verified()).graph
    found = {weight_name(each.name): each for each in graph.initializer}
    try:
        recipe = recipe_of(card)
        network = build_network(recipe)
        network.load_state_dict(
            {name: torch.tensor(numpy_helper.to_array(each)) for name, each in found.items() if name}
        )
    except (RuntimeError, ValidationError):
        raise DataError(
            f"{card.label} is from before today's networks and recipes; take a newer version, or a run"
        ) from None
    assert isinstance(network, ResidualUNet)
    return recipe, network.eval()


def recipe_of(card: ModelCard) -> Recipe:
    """How it was trained, by its card, which is older than the recipe of its name may be today.

    Only of how patches were cut the oldest cards tell nothing; for these it is today's recipe that does.

    Raises:
        RecipeError: of its name none ships.
        ValidationError: it was spelled otherwise in its day.
    """
    trained = card.training
    spelled = {
        "name": card.name,
        "summary": card.summary,
        "limits": card.limits,
        "network": card.hyperparameters,
        "data": trained.get("data") or load_recipe(card.name).data,
        # Its steps are those that were done; its minutes, which may round to 0, are no budget.
        "fit": {key: trained[key] for key in FitRecipe.model_fields if key in trained and key != "minutes"},
        "corruption": corruptions_of(card),
    }
    return Recipe.model_validate(spelled)
