"""`python -m training quantise | bf16 | fp16`: further precisions of a published model."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from model_store import ModelStore, StoredModel, default_root
from training.options import FOLDER

if TYPE_CHECKING:
    from training.variants import HeldOut

_PUBLISHING: tuple[Callable[[Callable[..., None]], Callable[..., None]], ...] = (
    click.argument("model"),
    click.argument("folders", nargs=-1, required=True, type=FOLDER),
    click.option("--store", type=click.Path(path_type=Path), default=default_root(), help="where MODEL is"),
    click.option("--into", type=click.Path(path_type=Path), help="where to publish; default --store"),
    click.option("--every", type=click.IntRange(min=1), default=1, help="measure on every Nth image"),
    click.option(
        "--most-loss", type=float, default=0.05, show_default=True, help="dB of mean PSNR, of a corruption"
    ),
    click.option(
        "--least-speed", type=float, default=1.15, show_default=True, help="times as fast as float32"
    ),
)


def _publishing(command: Callable[..., None]) -> Callable[..., None]:
    for decorate in reversed(_PUBLISHING):
        command = decorate(command)
    return command


@click.command()
@_publishing
@click.option(
    "--photos", required=True, type=FOLDER, help="photographs to calibrate on, not those of FOLDERS"
)
def quantise(
    model: str,
    folders: tuple[Path, ...],
    store: Path,
    into: Path | None,
    every: int,
    most_loss: float,
    least_speed: float,
    photos: Path,
) -> None:
    """Publish the next version of MODEL with an int8 variant, measured on FOLDERS as `evaluate` measures.

    Nothing is published unless it is faster on this machine and loses little.
    """
    from training.variants import Bounds, HeldOut, publish_int8

    held_out = HeldOut(folders, every, Bounds(most_loss, least_speed))
    _tell(publish_int8(ModelStore(store).resolve(model), ModelStore(into or store), photos, held_out))


def _measuring(publish: Callable[[StoredModel, ModelStore, "HeldOut"], StoredModel]) -> click.Command:
    """A command by the name and the words of `publish`, which is given what it is measured on."""

    @click.command(publish.__name__, help=publish.__doc__)
    @_publishing
    def command(
        model: str,
        folders: tuple[Path, ...],
        store: Path,
        into: Path | None,
        every: int,
        most_loss: float,
        least_speed: float,
    ) -> None:
        from training.variants import Bounds, HeldOut

        held_out = HeldOut(folders, every, Bounds(most_loss, least_speed))
        _tell(publish(ModelStore(store).resolve(model), ModelStore(into or store), held_out))

    return command


@_measuring
def bf16(stored: StoredModel, into: ModelStore, held_out: "HeldOut") -> StoredModel:
    """Publish the next version of MODEL with what OpenVINO's bfloat16 loses and gains, measured on FOLDERS.

    Needs onnxruntime-openvino in place of onnxruntime. Nothing is published unless it is faster on this
    machine and loses little.
    """
    from training.variants import publish_bf16

    return publish_bf16(stored, into, held_out)


@_measuring
def fp16(stored: StoredModel, into: ModelStore, held_out: "HeldOut") -> StoredModel:
    """Publish the next version of MODEL with a float16 variant for GPUs, measured on FOLDERS.

    Needs a GPU, and onnxruntime-gpu in place of onnxruntime. Nothing is published unless it is faster on
    that GPU and loses little.
    """
    from training.variants import publish_fp16

    return publish_fp16(stored, into, held_out)


def _tell(published: StoredModel) -> None:
    variant = published.card.variants[-1]
    for name, loss in variant.psnr_loss.items():
        click.echo(f"{name}: {-loss:+.3f} dB")
    click.echo(f"{variant.speed_ratio:.2f} times as fast on {variant.measured_on}")
    click.echo(f"published {published.card.label}: {published.folder}")
