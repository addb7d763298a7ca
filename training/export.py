"""A finished run, described by a card and published with its graph in the model store."""

import hashlib
import json
import platform
import shutil
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

import onnxruntime as ort
from pydantic import BaseModel, ValidationError

from model_store import (
    CARD_SCHEMA,
    Corruption,
    Metric,
    ModelCard,
    ModelStore,
    StoredModel,
    TrainingData,
)
from training.errors import DataError
from training.fit import Denoiser, read_checkpoint
from training.graph import export_part, receptive_radius
from training.muon import hold_kernels_as_kernels
from training.network import Network, count_parameters
from training.provenance import ATTRIBUTION, Provenance, provenance_of
from training.recipe import Recipe
from training.served import Part, parts

_ARCHITECTURES = {
    "unet": "residual U-Net over the pixel-unshuffled image",
    "linear": "linear autoencoder",
    "dense": "fully connected autoencoder",
    "conv": "convolutional autoencoder",
    "latent2": "fully connected autoencoder with a code of two numbers",
    "stochastic": "autoencoder with noise in its code",
    "sr2": "stacked convolutional denoisers over the enlarged image",
    "stacked": "stacked denoising autoencoders, trained layer by layer",
}
_SUMMARIES = {"encode": "The encoder alone: {}", "decode": "The decoder alone: {}"}


@dataclass(frozen=True)
class Effort:
    """How long a run took, on how many images and whose, and the same of what it was begun with."""

    steps: int
    minutes: float
    photographs: int
    own_provenance: Provenance
    earlier: list[dict[str, Any]]
    provenance: Provenance

    @classmethod
    def of_checkpoint(cls, checkpoint: dict[str, Any]) -> Self:
        return cls(
            checkpoint["steps_done"],
            round(checkpoint["seconds_done"] / 60, 1),
            checkpoint["photographs"],
            Provenance.of_checkpoint(checkpoint, "own_provenance"),
            checkpoint["earlier"],
            Provenance.of_checkpoint(checkpoint, "provenance"),
        )

    def told(self, recipe: Recipe) -> dict[str, Any]:
        """What a card says of the run of that recipe, where it is another one's past."""
        trained = recipe.model_dump(mode="json", include={"fit", "corruption", "data"})
        return {**trained, "steps": self.steps, "minutes": self.minutes}


@dataclass(frozen=True)
class Measured:
    """The table of a card, and further figures by name."""

    metrics: tuple[Metric, ...]
    figures: dict[str, float]


def export_run(
    run: Path, store: ModelStore, measurements: Path | None, photos: Path | None
) -> list[StoredModel]:
    """Publish the last checkpoint of a run as the next version of its recipe's model.

    An autoencoder with a useful code also becomes the models `<name>-encoder` and `<name>-decoder`.

    Args:
        run: folder that `fit` wrote.
        store: where to publish.
        measurements: what `evaluate` wrote for this run, for the card's table; None leaves it empty, as
            where there are no clean images to measure on.
        photos: the training folder of a run from before checkpoints told whose images they learned from.
            Their ATTRIBUTION.csv, if any, goes along, joined with that of what the run began with.

    Returns:
        What was published, the whole network first.

    Raises:
        DataError: the run has no checkpoint, the measurements or photos are those of another, or the store
            cannot be written; what it held is intact.
        ParityError: a graph differs from torch; nothing is published.
    """
    recipe, network, effort = load_run(run)
    whole, *halves = [(part, export_part(part)) for part in parts(network)]
    measured = read_measurements(measurements, whole[1]) if measurements else Measured((), {})
    provenance = _own_provenance(run, recipe, photos, effort).after(effort.provenance)
    attachments = {ATTRIBUTION: provenance.attribution.encode()} if provenance.attribution else {}
    published = []
    for part, model in (whole, *halves):
        number = store.next_version(recipe.name + part.suffix)
        card = make_card(recipe, network, part, model, number, measured, effort, provenance.training_data)
        published.append(publish(store, card, model, attachments))
    return published


def _own_provenance(run: Path, recipe: Recipe, photos: Path | None, effort: Effort) -> Provenance:
    """What the run was trained on, as it says itself, or by the folder where it is from before that."""
    told = effort.own_provenance
    if told == Provenance():
        return provenance_of(recipe, photos, effort.photographs)
    if photos and told != provenance_of(recipe, photos, effort.photographs):
        raise DataError(f"{run} was trained on other images than those of {photos}; leave out --photos")
    return told


def publish(store: ModelStore, card: ModelCard, model: bytes, attachments: dict[str, bytes]) -> StoredModel:
    """As `ModelStore.publish`; raises DataError where the store cannot be written."""
    try:
        return store.publish(card, model, attachments)
    except OSError as error:
        raise DataError(
            f"{card.label} cannot be published ({error.strerror}); what the store held is intact"
        ) from None


def load_run(run: Path) -> tuple[Recipe, Network, Effort]:
    """The recipe, the averaged network in inference form, and how long it was trained.

    Raises:
        DataError: the run has no checkpoint, or another program's.
    """
    recipe, checkpoint = read_run(run)
    model = Denoiser(recipe)
    model.load_state_dict(checkpoint["state_dict"])
    hold_kernels_as_kernels(model.network)
    return recipe, model.network.eval(), Effort.of_checkpoint(checkpoint)


def read_run(run: Path) -> tuple[Recipe, dict[str, Any]]:
    """As `read_checkpoint` of the last one of a run; raises DataError also where there is none."""
    path = run / "last.ckpt"
    if not path.exists():
        raise DataError(f"{path} does not exist; run `python -m training fit` first")
    return read_checkpoint(path)


def make_card(
    recipe: Recipe,
    network: Network,
    part: Part,
    model: bytes,
    number: int,
    measured: Measured,
    effort: Effort,
    data: tuple[TrainingData, ...],
) -> ModelCard:
    total = sum(each.weight for each in recipe.corruption)
    denoises = not part.suffix
    return ModelCard(
        schema_version=CARD_SCHEMA,
        name=recipe.name + part.suffix,
        version=number,
        summary=_SUMMARIES.get(part.task, "{}").format(recipe.summary),
        task=part.task,
        sha256=hashlib.sha256(model).hexdigest(),
        architecture=_ARCHITECTURES[recipe.network.kind],
        hyperparameters=recipe.network.model_dump(mode="json"),
        parameters=count_parameters(part.core),
        macs_per_pixel=part.macs_per_pixel,
        inputs=part.inputs,
        outputs=part.outputs,
        colour="rgb" if network.shape[0] == 3 else "gray",
        scale=network.scale,
        alignment=network.alignment,
        tile_overlap=receptive_radius(network),
        corruption=tuple(
            Corruption(
                kind=each.kind,
                share=each.weight / total,
                levels=each.model_dump(mode="json", exclude={"kind", "weight"}),
            )
            for each in recipe.corruption
        ),
        training_data=data,
        training={
            "data": recipe.data.model_dump(mode="json"),
            **recipe.fit.model_dump(mode="json"),
            "steps": effort.steps,
            "minutes": effort.minutes,
            "earlier": effort.earlier,
        },
        seed=recipe.fit.seed,
        git_commit=_git_commit(),
        libraries={
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "pytorch-lightning", "onnx")},
            "onnxruntime": ort.__version__,  # of whichever build; each has a name of its own
        },
        metrics=measured.metrics if denoises else (),
        figures=measured.figures,
        limits=recipe.limits,
        created=datetime.now(UTC).replace(microsecond=0),
    )


def _git_commit() -> str:
    if shutil.which("git") is None:
        return "unknown: no git here"
    found = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return found.stdout.strip() or "not in a git repository"


def write_measurements(path: Path, model: bytes, measured: Measured) -> None:
    """Keep what was measured, and of which graph, for `read_measurements`.

    Raises:
        DataError: the file cannot be written.
    """
    content = {
        "sha256": hashlib.sha256(model).hexdigest(),
        "metrics": [metric.model_dump(mode="json") for metric in measured.metrics],
        "figures": measured.figures,
    }
    try:
        path.write_text(json.dumps(content, indent=2) + "\n", "utf-8")
    except OSError as error:
        raise DataError(f"{path} cannot be written ({error.strerror}); measure again into another") from None


class _Kept(BaseModel):
    """What is in such a file."""

    sha256: str
    metrics: tuple[Metric, ...]
    figures: dict[str, float] = {}


def read_measurements(path: Path, model: bytes) -> Measured:
    """What `write_measurements` kept of this very graph.

    Raises:
        DataError: it was measured on another one, or is no such file.
    """
    try:
        kept = _Kept.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        raise DataError(f"{path} has no metrics; take the file of `evaluate --run RUN --json FILE`") from None
    if kept.sha256 != hashlib.sha256(model).hexdigest():
        raise DataError(f"{path} was measured on another graph; run `evaluate --run` again")
    return Measured(kept.metrics, kept.figures)
