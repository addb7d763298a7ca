"""`python -m training evaluate`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from model_store import default_root
from training.options import DATA_DIR_OPTION, FOLDER, NEW_FOLDER

if TYPE_CHECKING:
    from training.peers import Denoiser
    from training.subject import Subject

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.argument("folders", nargs=-1, type=FOLDER)
@click.option(
    "--model",
    "models",
    multiple=True,
    help="`name` or `name:version`; the first is judged, default frames-balanced",
)
@click.option("--run", type=FOLDER, help="judge the last checkpoint of this run instead")
@click.option(
    "--store", type=click.Path(path_type=Path), default=default_root(), help="folder of published models"
)
@DATA_DIR_OPTION
@click.option(
    "--suite",
    type=click.Choice(["standard"]),
    help="measure clean images, tiles and letters as well, and write tables and pictures into --out",
)
@click.option(
    "--out",
    type=NEW_FOLDER,
    default=Path("runs/suite"),
    show_default=True,
    help="folder for what the suite writes",
)
@click.option("--peer", "files", multiple=True, type=FILE, help="also run this denoiser, an ONNX file")
@click.option(
    "--without", multiple=True, help="do not run nlm (OpenCV), wavelet (scikit-image) or bm3d (minutes)"
)
@click.option("--no-peers", is_flag=True, help="--without each of them")
@click.option("--only", multiple=True, help="corruption to measure; all if absent")
@click.option("--every", type=click.IntRange(min=1), default=1, help="take every Nth image: a quicker look")
@click.option(
    "--json",
    "json_file",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="write the metrics here too",
)
def evaluate(
    folders: tuple[Path, ...],
    models: tuple[str, ...],
    run: Path | None,
    store: Path,
    data_dir: Path | None,
    suite: str | None,
    out: Path,
    files: tuple[Path, ...],
    without: tuple[str, ...],
    no_peers: bool,
    only: tuple[str, ...],
    every: int,
    json_file: Path | None,
) -> None:
    """Print PSNR / SSIM on FOLDERS of clean images, or of `*_noisy` / `*_reference` pairs.

    Without FOLDERS: on the test data of the model's own recipe, with its own corruption; of a run
    also what else tells such networks apart.
    """
    from training.cases import STANDARD, Folder
    from training.evaluate import evaluate, evaluate_own
    from training.export import Measured, write_measurements
    from training.figures import figures_of
    from training.peers import ALONGSIDE
    from training.subject import Subject
    from training.suite import measure, write
    from training.tables import as_metrics, as_table

    _check_known("--only", only, [*STANDARD])
    _check_known("--without", without, [*ALONGSIDE])
    if suite:
        _check_folders(folders)
    named = models if run or models else ("frames-balanced",)
    subject, *beside = [
        *([Subject.of_run(run)] if run else []),
        *(Subject.of_model(store, model) for model in named),
    ]
    if json_file:
        _make_room(json_file)
    ours = subject.denoiser.name
    family = [*(each.denoiser for each in beside), subject.denoiser]
    denoisers = [*_peers(files, [*ALONGSIDE] if no_peers else without, family), *family]
    figures: dict[str, float] = {}
    _check_all_fit(subject, beside, folders)
    if folders:
        taken = [Folder.read(folder, every) for folder in folders]
        rows = [row for folder in taken for row in evaluate(folder, denoisers, only or [*STANDARD])]
    else:
        _check_points_are_alone(subject, [*(each.denoiser.name for each in beside), *map(str, files)])
        rows = evaluate_own(subject.recipe, data_dir, denoisers, every)
        figures = figures_of(*subject.trained, data_dir) if subject.trained else {}
    if not rows and not figures:
        raise click.ClickException(f"{subject.name} takes points; measure its run, with --run")
    if rows:
        click.echo(as_table(rows, ours))
    for name, value in figures.items():
        click.echo(f"{name}: {value:g}")
    if json_file:
        write_measurements(json_file, subject.graph, Measured(tuple(as_metrics(rows, ours)), figures))
    if suite:
        findings = measure(subject, beside, taken, denoisers, rows)
        click.echo("wrote " + ", ".join(map(str, write(findings, taken, denoisers, out))))


def _make_room(file: Path) -> None:
    """Raises DataError where the file cannot be written: said now, and not after all the measuring."""
    from training.errors import DataError

    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        earlier = file.exists()
        file.touch()
        if not earlier:
            file.unlink()  # an empty one would look like a result where measuring fails
    except OSError as error:
        raise DataError(f"{file} cannot be written ({error.strerror}); give another --json") from None


def _check_known(option: str, given: Sequence[str], known: Sequence[str]) -> None:
    if unknown := [name for name in given if name not in known]:
        raise click.BadParameter(
            f"{unknown[0]!r}; there are: {', '.join(map(repr, known))}", param_hint=option
        )


def _check_folders(folders: Sequence[Path]) -> None:
    """The suite needs folders, which its tables can tell apart."""
    if not folders:
        raise click.UsageError("the suite measures on photographs; name folders of clean ones")
    names = [folder.resolve().name for folder in folders]
    if twin := next((name for name in names if names.count(name) > 1), None):
        raise click.UsageError(f"two folders are called {twin}, and tables go by names; rename one")


def _check_all_fit(subject: "Subject", beside: Sequence["Subject"], folders: Sequence[Path]) -> None:
    """All are shown the same images: photographs, or those of the recipe of the first.

    Raises:
        DataError: one of them does not take these.
    """
    from training.errors import DataError
    from training.evaluate import own_shape

    if folders:
        subject.check_takes_photographs()
        shape, shown = (1, 1, 3), "photographs"
    elif own := own_shape(subject.recipe):
        shape, shown = own, f"{'x'.join(map(str, own))} test images of {subject.name}"
    else:
        return
    for each in (subject, *beside):
        if refusal := each.denoiser.refusal(shape):
            raise DataError(f"{refusal}; leave it out where {shown} are shown")


def _check_points_are_alone(subject: "Subject", beside: Sequence[str]) -> None:
    """A run of points is measured by its distances from their curve, which nothing else is.

    Raises:
        DataError: something was to be shown beside it.
    """
    from training.errors import DataError
    from training.recipe_parts import SpiralRecipe

    if beside and subject.trained and isinstance(subject.recipe.data, SpiralRecipe):
        raise DataError(f"{subject.name} takes points and is measured alone; leave out {', '.join(beside)}")


def _peers(files: Sequence[Path], without: Sequence[str], ours: Sequence["Denoiser"]) -> list["Denoiser"]:
    """Raises DataError where a file is no peer, or two of all would have one name."""
    from training.errors import DataError
    from training.onnx_peer import OnnxPeer
    from training.peers import ALONGSIDE, THREADS

    names = [each.name for each in ours]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise DataError(f"{twice} is named twice; once is enough")
    peers = [peer for name, some in ALONGSIDE.items() if name not in without for peer in some]
    for file in files:
        loaded = OnnxPeer.load(file, THREADS)
        if loaded.name in ("noisy", "clean", *names, *(peer.name for peer in peers)):
            raise DataError(f"{file} would be the second {loaded.name} of the table; rename the file")
        peers.append(loaded)
    return peers
