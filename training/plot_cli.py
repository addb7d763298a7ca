"""`python -m training plot corruption | reconstructions | curves | latent | filters | field | levels`."""

from collections.abc import Callable
from pathlib import Path

import click

from model_store import ModelStore, default_root
from training.options import FOLDER, NEW_FOLDER, SEED

_Command = Callable[..., None]


def _options(*options: Callable[[_Command], _Command]) -> Callable[[_Command], _Command]:
    def decorate(command: _Command) -> _Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


store_option = click.option(
    "--store", type=click.Path(path_type=Path), default=default_root(), help="folder of published models"
)
out_option = click.option(
    "--out",
    type=NEW_FOLDER,
    default=Path("plots"),
    show_default=True,
    help="folder for the pictures",
)
data_options = _options(
    click.option(
        "--data-dir",
        type=FOLDER,
        envvar="QUIETFRAME_DATA_DIR",
        help="folder with mnist/ and fashion-mnist/; QUIETFRAME_DATA_DIR",
    ),
    click.option("--images", type=FOLDER, help="a folder of clean images instead"),
    click.option(
        "--seed",
        type=SEED,
        default=0,
        show_default=True,
        help="of the choice of images and of the noise",
    ),
)


@click.group()
def plot() -> None:
    """Draw pictures."""


@plot.command("before-after")
@click.option("--model", default="frames-balanced", show_default=True, help="`name` or `name:version`")
@store_option
@click.option("--out", type=NEW_FOLDER, required=True, help="folder for the pictures")
def before_after(model: str, store: Path, out: Path) -> None:
    """A noisy photograph beside what the model makes of it."""
    from training import plots
    from training.peers import OnnxDenoiser

    stored = ModelStore(store).resolve(model)
    ours = OnnxDenoiser.load(stored.card.label, stored.read_verified(), threads=0)
    before, after = plots.before_after(ours, out)
    click.echo(f"{stored.card.label}: {before:.2f} dB in, {after:.2f} dB out")


@plot.command()
@out_option
def corruption(out: Path) -> None:
    """Every corruption at rising levels: corruption.png, .svg and the animated corruption.gif."""
    from training import gallery, plots

    clean = gallery.example()
    rows = {gallery.title(caption): [clean, *each] for caption, each in gallery.corrupted(clean).items()}
    _said(plots.save(plots.grid(rows), out / "corruption"))
    gallery.animate(gallery.example(160), out / "corruption.gif")
    _said([out / "corruption.gif"])


@plot.command()
@click.argument("run", type=FOLDER)
@out_option
def curves(run: Path, out: Path) -> None:
    """Loss, PSNR and learning rate of RUN, by step."""
    from training import plots
    from training.run_log import read_curves

    _said(plots.save(plots.learning_curves(read_curves(run)), out / f"{run.resolve().name}-curves"))


@plot.command()
@click.argument("model", default="mnist-dense")
@click.option("--count", type=click.IntRange(1, 20), default=10, show_default=True, help="images")
@store_option
@data_options
@out_option
def reconstructions(
    model: str, count: int, store: Path, data_dir: Path | None, images: Path | None, seed: int, out: Path
) -> None:
    """Original, noisy and reconstructed, by a published MODEL under the corruption of its card."""
    from training import plots
    from training.plot_data import test_images
    from training.published import Published

    ours = Published.load(ModelStore(store), model)
    clean = test_images(ours.card, count, data_dir, images, seed).images
    noisy = [ours.corrupt(each, seed + number) for number, each in enumerate(clean)]
    rows = {"original": clean, "noisy": noisy, "reconstructed": [ours(each) for each in noisy]}
    _said(plots.save(plots.grid(rows), out / f"{ours.card.name}-reconstructions"))


@plot.command()
@click.argument("model", default="mnist-latent2")
@click.option(
    "--count",
    type=click.IntRange(min=1),
    default=2000,
    show_default=True,
    help="test images whose codes are drawn",
)
@click.option(
    "--side", type=click.IntRange(2, 40), default=20, show_default=True, help="decoded places a side"
)
@store_option
@data_options
@out_option
def latent(
    model: str,
    count: int,
    side: int,
    store: Path,
    data_dir: Path | None,
    images: Path | None,
    seed: int,
    out: Path,
) -> None:
    """Codes of test images by class, and what the plane decodes to: MODEL-encoder and MODEL-decoder."""
    from training import plots
    from training.plot_data import test_images
    from training.published import Published, decode_plane

    encoder, decoder = (
        Published.load(ModelStore(store), f"{model}-{part}") for part in ("encoder", "decoder")
    )
    digits = test_images(encoder.card, count, data_dir, images, seed)
    codes = encoder.run(digits.stacked)
    decoded, span = decode_plane(decoder, codes, side)
    _said(plots.save(plots.latent(codes, digits.labels, decoded, span), out / f"{model}-latent"))


@plot.command()
@click.argument("model", default="mnist-dense")
@click.option(
    "--count", type=click.IntRange(1, 400), default=60, show_default=True, help="filters, strongest first"
)
@store_option
@out_option
def filters(model: str, count: int, store: Path, out: Path) -> None:
    """The weights of MODEL's first layer, as pictures."""
    from training import plots
    from training.published import Published, first_filters

    ours = Published.load(ModelStore(store), model)
    _said(plots.save(plots.filters(first_filters(ours)[:count]), out / f"{ours.card.name}-filters"))


@plot.command()
@click.argument("model", default="toy-spiral")
@store_option
@click.option("--seed", type=SEED, default=0, show_default=True, help="of the drawn points")
@out_option
def field(model: str, store: Path, seed: int, out: Path) -> None:
    """Where a MODEL of points in the plane moves them: r(x) - x over its data."""
    from training import plots
    from training.plot_data import learned_points, plane_points
    from training.published import Published

    ours = Published.load(ModelStore(store), model)
    data, start = learned_points(ours.card, 2000, seed), plane_points(24)
    _said(plots.save(plots.vector_field(data, start, ours.run(start)), out / f"{ours.card.name}-field"))


@plot.command()
@click.argument("models", nargs=-1, required=True)
@click.option("--count", type=click.IntRange(min=1), default=100, show_default=True, help="images")
@store_option
@data_options
@out_option
def levels(
    models: tuple[str, ...],
    count: int,
    store: Path,
    data_dir: Path | None,
    images: Path | None,
    seed: int,
    out: Path,
) -> None:
    """PSNR of MODELS against the sigma of Gaussian noise; the training range of the first is marked."""
    from training import plots
    from training.errors import DataError
    from training.plot_data import test_images
    from training.published import Published, psnr_by_level

    loaded = [Published.load(ModelStore(store), model) for model in models]
    labels = [each.card.label for each in loaded]
    if twice := next((label for label in labels if labels.count(label) > 1), None):
        raise DataError(f"{twice} is named twice; once is enough")
    clean = test_images(loaded[0].card, count, data_dir, images, seed).images
    for other in loaded[1:]:
        if other.card.inputs[0] != loaded[0].card.inputs[0]:
            raise DataError(f"{other.card.label} does not take the images that {loaded[0].card.label} takes")
    _said(
        plots.save(
            plots.levels(psnr_by_level(loaded, clean, seed), loaded[0].card.trained_sigma),
            out / f"{loaded[0].card.name}-levels",
        )
    )


def _said(files: list[Path]) -> None:
    for file in files:
        click.echo(file)
