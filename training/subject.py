"""What is measured: the last checkpoint of a run, or a published model."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from model_store import ModelStore
from training.errors import DataError
from training.export import load_run
from training.graph import to_onnx
from training.network import Network
from training.peers import OnnxDenoiser
from training.recipe import Recipe, load_recipe


@dataclass(frozen=True)
class Subject:
    """A graph in ONNX Runtime; of a run its recipe and its network as well."""

    name: str
    graph: bytes
    denoiser: OnnxDenoiser
    trained: tuple[Recipe, Network] | None = None

    @classmethod
    def of_run(cls, run: Path) -> Self:
        """Raises DataError where the run has no checkpoint."""
        recipe, network, _ = load_run(run)
        graph = to_onnx(network)
        return cls(recipe.name, graph, _loaded(recipe.name, graph), (recipe, network))

    @classmethod
    def of_model(cls, store: Path, reference: str) -> Self:
        """Raises StoreError where there is no such model."""
        stored = ModelStore(store).resolve(reference)
        graph = stored.read_verified()
        return cls(stored.card.name, graph, _loaded(stored.card.label, graph))

    @property
    def recipe(self) -> Recipe:
        """What says on which test data, and under which corruption.

        Raises:
            RecipeError: a published model whose recipe does not ship.
        """
        return self.trained[0] if self.trained else load_recipe(self.name)

    def check_takes_photographs(self) -> None:
        """Raises DataError where it takes gray images or those of one size only."""
        if refusal := self.denoiser.refusal((1, 1, 3)):
            raise DataError(f"{refusal}; leave the folders out, and it is measured on its own test data")


def _loaded(name: str, graph: bytes) -> OnnxDenoiser:
    return OnnxDenoiser.load(name, graph, threads=len(os.sched_getaffinity(0)))
