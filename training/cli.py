"""`python -m training`: fit, average, own-camera, evaluate, export, quantise, bf16, fp16, data, plot."""

import logging
from pathlib import Path

import click

from model_store import ModelStore, StoreError, default_root
from training.errors import StoppedError, TrainingError
from training.evaluate_cli import evaluate
from training.options import DATA_DIR_OPTION, FOLDER, NEW_FOLDER, SEED
from training.plot_cli import plot
from training.recipe import Recipe, changed, load_recipe
from training.recipe_parts import PhotosRecipe
from training.variants_cli import bf16, fp16, quantise

_POSITIVE = click.FloatRange(min=0, min_open=True)


class _Errors(click.Group):
    """Says what went wrong in one line, without a traceback, for errors made to be read."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except StoppedError as stopped:
            click.echo(str(stopped), err=True)
            ctx.exit(stopped.status)
        except (TrainingError, StoreError) as error:
            raise click.ClickException(str(error)) from None


@click.group(cls=_Errors)
def main() -> None:
    """Train, measure and publish denoising autoencoders."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")


@main.command()
@click.argument("recipe")
@click.option("--photos", type=FOLDER, help="folder of clean photographs, for recipes of photographs")
@DATA_DIR_OPTION
@click.option("--run", type=NEW_FOLDER, help="checkpoints and log; default runs/RECIPE")
@click.option("--minutes", type=_POSITIVE, help="stop after this long at the latest")
@click.option(
    "--steps",
    type=click.IntRange(min=1),
    help="stop after so many steps instead of those or the epochs of the recipe",
)
@click.option("--seed", type=SEED, help="of weights, order and noise; overrides the recipe")
@click.option(
    "--begin-with",
    help="run, or model of the repository's store, to begin with, of the same or a smaller U-Net",
)
@click.option(
    "--workers",
    type=click.IntRange(min=0),
    default=1,
    show_default=True,
    help="processes that make patches of photographs",
)
def fit(
    recipe: str,
    photos: Path | None,
    data_dir: Path | None,
    run: Path | None,
    minutes: float | None,
    steps: int | None,
    seed: int | None,
    begin_with: str | None,
    workers: int,
) -> None:
    """Train RECIPE (a name in training/recipes or a .toml); goes on where an earlier run stopped.

    `torchrun --nproc-per-node N -m -- training fit ...` shares each batch between N processes.
    """
    from training.begin import begun_with
    from training.fit import fit as train

    given: dict[str, float | None] = {"minutes": minutes, "steps": steps, "seed": seed}
    given = {name: each for name, each in given.items() if each is not None}
    loaded = changed(load_recipe(recipe), **({"epochs": None} if steps else {}), **given)
    begun = begun_with(begin_with) if begin_with else None
    folder = run or Path("runs") / loaded.name
    checkpoint = train(loaded, _data(loaded, photos, data_dir), folder, begun=begun, workers=workers)
    click.echo(f"trained: {checkpoint}")


def _data(recipe: Recipe, photos: Path | None, data_dir: Path | None) -> Path | None:
    """The folder that the recipe trains on, where it is not its own cache."""
    of_photographs = isinstance(recipe.data, PhotosRecipe)
    if of_photographs and data_dir:
        raise click.UsageError(f"{recipe.name} is trained on photographs; give --photos, and no --data-dir")
    if photos and not of_photographs:
        raise click.UsageError(f"{recipe.name} is trained on no photographs; leave out --photos")
    return photos or data_dir


@main.command("own-camera")
@click.argument("frames", type=FOLDER)
@click.option(
    "--begin-with",
    default="frames-camera",
    show_default=True,
    help="run, or model of the repository's store, to begin with",
)
@click.option("--run", type=NEW_FOLDER, default=Path("runs/own-camera"), show_default=True)
@click.option("--steps", type=click.IntRange(min=1), default=120, show_default=True)
@click.option("--seed", type=SEED, default=0, show_default=True)
def own_camera(frames: Path, begin_with: str, run: Path, steps: int, seed: int) -> None:
    """Adapt the production network to one camera by a folder of its noisy FRAMES alone.

    Nothing is written unless frames that were held out say that it has become better.
    """
    from tqdm import tqdm

    from training.begin import begun_with
    from training.own_camera import adapt
    from training.self_supervised import Tuning

    with tqdm(total=steps, desc="own-camera") as bar:

        def tell(step: int, loss: float) -> None:
            bar.update()
            bar.set_postfix(loss=f"{loss:.3f}")

        outcome = adapt(frames, begun_with(begin_with), run, Tuning(steps=steps, seed=seed), tell)
    gained = outcome.after - outcome.before
    click.echo(
        f"trained: {run / 'last.ckpt'}; better on held-out frames (by {gained:.1f} dB, as they estimate)"
    )


@main.command()
@click.argument("runs", nargs=-1, required=True, type=FOLDER)
@click.option("--run", type=NEW_FOLDER, required=True, help="where to write the mean")
def average(runs: tuple[Path, ...], run: Path) -> None:
    """Average the weights of RUNS that go back to one, such as several ends of it, as a run of its own."""
    from training.average import average as mean

    click.echo(f"averaged: {mean(runs, run)}")


@main.command()
@click.argument("run", type=FOLDER)
@click.option(
    "--photos",
    type=FOLDER,
    help="the folder of photographs, for runs of before they told on which they were trained",
)
@click.option(
    "--metrics",
    type=click.Path(exists=True, path_type=Path),
    help="what `evaluate --json` wrote for this run; without it the card has no figures",
)
@click.option("--store", type=click.Path(path_type=Path), default=default_root(), help="where to publish")
def export(run: Path, photos: Path | None, metrics: Path | None, store: Path) -> None:
    """Publish the last checkpoint of RUN as the next version of its model."""
    from training.export import export_run

    for stored in export_run(run, ModelStore(store), metrics, photos):
        click.echo(f"published {stored.card.label}: {stored.folder}")


@main.group()
def data() -> None:
    """The data sets that recipes name: mnist and fashion-mnist."""


@data.command("fetch")
@click.argument("names", nargs=-1)
@DATA_DIR_OPTION
def fetch_data(names: tuple[str, ...], data_dir: Path | None) -> None:
    """Download the data sets NAMES (else all) into --data-dir or a cache, unless they are there."""
    from training import digits

    for name in names or digits.SOURCES:
        if name not in digits.SOURCES:
            raise click.BadParameter(f"{name!r}; there are: {', '.join(digits.SOURCES)}")
        folder = digits.chosen_folder(name, data_dir) or digits.cache_folder(name)
        for file in digits.SOURCES[name].sha256:
            click.echo(f"ok  {digits.fetch(name, file, folder)}")


@data.command("show")
@DATA_DIR_OPTION
def show_data(data_dir: Path | None) -> None:
    """List the data sets, whose they are, and which of their files are missing or corrupt."""
    from training import digits

    for name, source in digits.SOURCES.items():
        folder = digits.chosen_folder(name, data_dir) or digits.cache_folder(name)
        click.echo(f"{name}: {source.title}; licence: {source.licence}")
        for file, expected in source.sha256.items():
            click.echo(f"  {digits.state(folder / file, expected):8} {folder / file}  sha256 {expected}")


main.add_command(evaluate)
main.add_command(plot)
main.add_command(quantise)
main.add_command(bf16)
main.add_command(fp16)
