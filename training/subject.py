"""What is measured: the last checkpoint of a run, or a published model."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pydantic import ValidationError

from model_store import ModelCard, ModelStore
from training.begin import recipe_of
from training.errors import DataError
from training.export import load_run
from training.graph import receptive_radius, to_onnx
from training.network import Network
from training.peers import THREADS, OnnxDenoiser
from training.recipe import Recipe, load_recipe


@dataclass(frozen=True)
class Subject:
    """A graph in ONNX Runtime, with its card if it is published, else its recipe and its network."""

    name: str
    graph: bytes
    denoiser: OnnxDenoiser
    card: ModelCard | None = None
    trained: tuple[Recipe, Network] | None = None

    @classmethod
    def of_run(cls, run: Path) -> Self:
        """Raises DataError where the run has no checkpoint."""
        recipe, network, _ = load_run(run)
        graph = to_onnx(network)
        denoiser = OnnxDenoiser.load(recipe.name, graph, THREADS)
        return cls(recipe.name, graph, denoiser, trained=(recipe, network))

    @classmethod
    def of_model(cls, store: Path, reference: str) -> Self:
        """Raises StoreError where there is no such model."""
        stored = ModelStore(store).resolve(reference)
        graph = stored.read_verified()
        return cls(stored.card.name, graph, OnnxDenoiser.load(stored.card.label, graph, THREADS), stored.card)

    @property
    def recipe(self) -> Recipe:
        """What says on which test data, and under which corruption.

        Raises:
            RecipeError: of a published model whose card is too old to tell, no recipe ships.
        """
        if self.trained:
            return self.trained[0]
        assert self.card is not None
        try:
            return recipe_of(self.card)
        except ValidationError:
            return load_recipe(self.name)

    @property
    def tiling(self) -> tuple[int, int]:
        """Overlap and alignment, in pixels, of the tiles that large images are cut into."""
        if self.card:
            return self.card.tile_overlap, self.card.alignment
        assert self.trained is not None
        network = self.trained[1]
        return receptive_radius(network), network.alignment

    def check_takes_photographs(self) -> None:
        """Raises DataError where it takes gray images or those of one size only."""
        if refusal := self.denoiser.refusal((1, 1, 3)):
            raise DataError(f"{refusal}; leave the folders out, and it is measured on its own test data")
