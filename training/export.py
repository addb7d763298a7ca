"""A finished run, described by a card and published with its graph in the model store."""

import csv
import hashlib
import json
import platform
import subprocess
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from model_store import (
    CARD_SCHEMA,
    Corruption,
    Metric,
    ModelCard,
    ModelStore,
    StoredModel,
    Tensor,
    TrainingData,
)
from training.errors import DataError
from training.fit import Denoiser
from training.graph import receptive_radius, to_onnx
from training.muon import hold_kernels_as_kernels
from training.networks import ResidualUNet, count_parameters, macs_per_pixel
from training.recipe import Recipe

ATTRIBUTION = "ATTRIBUTION.csv"


@dataclass(frozen=True)
class Effort:
    """How long a run took, and on how many photographs."""

    steps: int
    minutes: float
    photographs: int
    earlier: list[dict[str, Any]]


def export_run(run: Path, store: ModelStore, measurements: Path, photos: Path) -> StoredModel:
    """Publish the last checkpoint of a run as the next version of its recipe's model.

    Args:
        run: folder that `fit` wrote.
        store: where to publish.
        measurements: what `evaluate` wrote for this run, for the card's table.
        photos: the training folder; its ATTRIBUTION.csv, if any, goes along.

    Raises:
        DataError: the run has no checkpoint, or the measurements are of another one.
        ParityError: the graph differs from torch; nothing is published.
    """
    recipe, network, effort = load_run(run)
    model = to_onnx(network)
    metrics = read_measurements(measurements, model)
    data = describe_photos(photos, effort.photographs)
    card = make_card(recipe, network, model, store.next_version(recipe.name), metrics, effort, data)
    attribution = photos / ATTRIBUTION
    attachments = {ATTRIBUTION: attribution.read_bytes()} if attribution.exists() else {}
    return store.publish(card, model, attachments)


def describe_photos(photos: Path, used: int) -> TrainingData:
    """Name and licences of the training folder, by the `licence` column of its ATTRIBUTION.csv."""
    attribution = photos / ATTRIBUTION
    if not attribution.exists():
        return TrainingData(name=f"a folder without {ATTRIBUTION}", licence="not stated", images=used)
    with attribution.open(encoding="utf-8", newline="") as file:
        licences = Counter(row.get("licence") or "not stated" for row in csv.DictReader(file))
    name = f"photographs listed in {ATTRIBUTION} beside this card"
    return TrainingData(name=name, licence=", ".join(sorted(licences)), images=used)


def load_run(run: Path) -> tuple[Recipe, ResidualUNet, Effort]:
    """The recipe, the averaged network in inference form, and how long it was trained."""
    path = run / "last.ckpt"
    if not path.exists():
        raise DataError(f"{path} does not exist; run `python -m training fit` first")
    checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    recipe = Recipe.model_validate(checkpoint["recipe"])
    model = Denoiser(recipe)
    model.load_state_dict(checkpoint["state_dict"])
    hold_kernels_as_kernels(model.network)
    minutes = round(checkpoint["seconds_done"] / 60, 1)
    effort = Effort(checkpoint["steps_done"], minutes, checkpoint["photographs"], checkpoint["earlier"])
    return recipe, model.network.eval(), effort


def make_card(
    recipe: Recipe,
    network: ResidualUNet,
    model: bytes,
    number: int,
    metrics: tuple[Metric, ...],
    effort: Effort,
    data: TrainingData,
) -> ModelCard:
    total = sum(each.weight for each in recipe.corruption)
    return ModelCard(
        schema_version=CARD_SCHEMA,
        name=recipe.name,
        version=number,
        summary=recipe.summary,
        task="denoise",
        sha256=hashlib.sha256(model).hexdigest(),
        architecture="residual U-Net over the pixel-unshuffled image",
        hyperparameters=recipe.network.model_dump(mode="json"),
        parameters=count_parameters(network),
        macs_per_pixel=macs_per_pixel(network),
        inputs=(
            Tensor(name="image", dtype="uint8", shape=("N", "H", "W", 3)),
            Tensor(name="strength", dtype="float32", shape=("N",)),
        ),
        outputs=(Tensor(name="denoised", dtype="uint8", shape=("N", "H", "W", 3)),),
        colour="rgb",
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
        training_data=(data,),
        training={
            **recipe.fit.model_dump(mode="json"),
            "steps": effort.steps,
            "minutes": effort.minutes,
            "earlier": effort.earlier,
        },
        seed=recipe.fit.seed,
        git_commit=_git_commit(),
        libraries={
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "pytorch-lightning", "onnx", "onnxruntime")},
        },
        metrics=metrics,
        limits=recipe.limits,
        created=datetime.now(UTC).replace(microsecond=0),
    )


def _git_commit() -> str:
    found = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return found.stdout.strip() or "not in a git repository"


def write_measurements(path: Path, model: bytes, metrics: Sequence[Metric]) -> None:
    """Keep what was measured, and of which graph, for `read_measurements`."""
    rows = [metric.model_dump(mode="json") for metric in metrics]
    content = {"sha256": hashlib.sha256(model).hexdigest(), "metrics": rows}
    path.write_text(json.dumps(content, indent=2) + "\n", "utf-8")


def read_measurements(path: Path, model: bytes) -> tuple[Metric, ...]:
    """The rows that `write_measurements` kept of this very graph.

    Raises:
        DataError: they were measured on another one.
    """
    content = json.loads(path.read_text("utf-8"))
    if content["sha256"] != hashlib.sha256(model).hexdigest():
        raise DataError(f"{path} was measured on another graph; run `evaluate --run` again")
    return tuple(Metric.model_validate(row) for row in content["metrics"])
