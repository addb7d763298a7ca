"""`python -m training fit | evaluate | export`."""

import logging
import os
from pathlib import Path

import click

from model_store import ModelStore, StoreError, default_root
from training.errors import TrainingError
from training.recipe import load_recipe

FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


class _Errors(click.Group):
    """Says what went wrong in one line, without a traceback, for errors made to be read."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except (TrainingError, StoreError) as error:
            raise click.ClickException(str(error)) from None


@click.group(cls=_Errors)
def main() -> None:
    """Train, measure and publish denoising autoencoders."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")


@main.command()
@click.argument("recipe")
@click.option("--photos", type=FOLDER, required=True, help="folder of clean photographs")
@click.option("--run", type=click.Path(path_type=Path), help="checkpoints and log; default runs/RECIPE")
@click.option(
    "--minutes",
    type=click.FloatRange(min=0, min_open=True),
    help="stop after this long; overrides the recipe",
)
@click.option("--begin-with", type=FOLDER, help="earlier run whose weights a new run begins with")
@click.option("--workers", default=1, show_default=True, help="processes that make patches")
def fit(
    recipe: str, photos: Path, run: Path | None, minutes: float | None, begin_with: Path | None, workers: int
) -> None:
    """Train RECIPE (a name in training/recipes or a .toml); goes on where an earlier run stopped."""
    from training.fit import fit as train

    loaded = load_recipe(recipe)
    if minutes is not None:
        loaded = loaded.model_copy(update={"fit": loaded.fit.model_copy(update={"minutes": minutes})})
    checkpoint = train(
        loaded, photos, run or Path("runs") / loaded.name, begin_with=begin_with, workers=workers
    )
    click.echo(f"trained: {checkpoint}")


@main.command()
@click.argument("folders", nargs=-1, required=True, type=FOLDER)
@click.option("--model", default="frames-balanced", show_default=True, help="`name` or `name:version`")
@click.option("--run", type=FOLDER, help="measure the last checkpoint of this run instead")
@click.option(
    "--store", type=click.Path(path_type=Path), default=default_root(), help="folder of published models"
)
@click.option("--peers/--no-peers", default=True, help="also run OpenCV NLM and BM3D (minutes)")
@click.option("--only", multiple=True, help="corruption to measure; all if absent")
@click.option("--every", type=click.IntRange(min=1), default=1, help="take every Nth image: a quicker look")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="write the metrics here too")
def evaluate(
    folders: tuple[Path, ...],
    model: str,
    run: Path | None,
    store: Path,
    peers: bool,
    only: tuple[str, ...],
    every: int,
    json_file: Path | None,
) -> None:
    """Print PSNR / SSIM on FOLDERS of clean images, or of `*_noisy` / `*_reference` pairs."""
    from training import evaluate as measure
    from training.export import load_run, write_measurements
    from training.graph import to_onnx
    from training.peers import Bm3d, Denoiser, NonLocalMeans, OnnxDenoiser

    unknown = set(only) - set(measure.STANDARD)
    if unknown:
        raise click.BadParameter(f"{unknown.pop()!r}; there are: {', '.join(measure.STANDARD)}")
    if run is not None:
        recipe, network, _ = load_run(run)
        label, graph = recipe.name, to_onnx(network)
    else:
        stored = ModelStore(store).resolve(model)
        label, graph = stored.card.label, stored.read_verified()
    ours = OnnxDenoiser.load(label, graph, threads=len(os.sched_getaffinity(0)))
    others: list[Denoiser] = [*map(NonLocalMeans, (5, 10, 20, 35)), Bm3d()]
    denoisers = [*(others if peers else []), ours]
    rows = [
        row
        for folder in folders
        for row in measure.evaluate(folder, denoisers, only or [*measure.STANDARD], every)
    ]
    click.echo(measure.as_table(rows, ours.name))
    if json_file:
        write_measurements(json_file, graph, measure.as_metrics(rows, ours.name))


@main.command()
@click.argument("run", type=FOLDER)
@click.option("--photos", type=FOLDER, required=True, help="the folder it was trained on, for the card")
@click.option(
    "--metrics",
    type=click.Path(exists=True, path_type=Path),
    required=True,
    help="what `evaluate --json` wrote for this run",
)
@click.option("--store", type=click.Path(path_type=Path), default=default_root(), help="where to publish")
def export(run: Path, photos: Path, metrics: Path, store: Path) -> None:
    """Publish the last checkpoint of RUN as the next version of its model."""
    from training.export import export_run

    stored = export_run(run, ModelStore(store), metrics, photos)
    click.echo(f"published {stored.card.label}: {stored.folder}")


@main.group()
def plot() -> None:
    """Draw pictures."""


@plot.command("before-after")
@click.option("--model", default="frames-balanced", show_default=True, help="`name` or `name:version`")
@click.option(
    "--store", type=click.Path(path_type=Path), default=default_root(), help="folder of published models"
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="folder for the pictures")
def before_after(model: str, store: Path, out: Path) -> None:
    """A noisy photograph beside what the model makes of it."""
    from training import plots
    from training.peers import OnnxDenoiser

    stored = ModelStore(store).resolve(model)
    ours = OnnxDenoiser.load(stored.card.label, stored.read_verified(), threads=0)
    before, after = plots.before_after(ours, out)
    click.echo(f"{stored.card.label}: {before:.2f} dB in, {after:.2f} dB out")
