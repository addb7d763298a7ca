"""`python -m service.archive.compare`: how fast an archive is beside `denoise`, and how it scales."""

import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import click

from service.settings import load_settings
from service.throughput import synthetic_frame

_SIDES = {"1280x720": (1280, 720), "640x360": (640, 360)}


@click.command()
@click.option("--images", default=120, show_default=True, help="in the archive of each run")
@click.option("--size", type=click.Choice(list(_SIDES)), default="1280x720", show_default=True)
@click.option("--rounds", default=3, show_default=True, help="all commands in turn, so often")
def main(images: int, size: str, rounds: int) -> None:
    """Print what the commands say of their rates, from where their engines are loaded, and ratios."""
    cores = load_settings().threads_per_worker
    contestants = {
        f"denoise, {cores} cores": ["denoise", "frames", "--out"],
        f"archive, {cores} cores": ["archive", "frames"],
        "archive, 1 engine of 1 core": ["archive", "--engines", "1", "--cores", "1", "frames"],
        "archive, 2 engines of 1 core": ["archive", "--engines", "2", "--cores", "1", "frames"],
    }
    if cores == 1:
        contestants.popitem()
    rates: dict[str, list[float]] = {name: [] for name in contestants}
    with tempfile.TemporaryDirectory() as folder:
        frames = Path(folder) / "frames"
        frames.mkdir()
        for number in range(images):
            (frames / f"{number:05}.jpg").write_bytes(synthetic_frame(*_SIDES[size]))
        for turn in range(rounds):
            for name, arguments in contestants.items():
                rates[name].append(_rate([*arguments, f"clean/{turn}/{name}"], folder))
                click.echo(f"{name:30} {rates[name][-1]:8.2f} images/s")
    _print({name: statistics.median(seen) for name, seen in rates.items()})


def _rate(arguments: list[str], folder: str) -> float:
    command = [sys.executable, "-m", "service.cli", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    found = re.findall(r"([0-9.]+) images/s", done.stderr)
    if done.returncode or not found:
        raise click.ClickException(f"{' '.join(arguments)}: {done.stderr[-500:]}")
    return float(found[-1])


def _print(medians: dict[str, float]) -> None:
    in_process, archive, *scaling = medians.values()
    click.echo("\nmedians")
    for name, rate in medians.items():
        click.echo(f"{name:30} {rate:8.2f} images/s")
    click.echo(f"{'archive / denoise':30} {archive / in_process:8.3f}")
    if len(scaling) == 2:
        click.echo(f"{'2 engines / 1 engine':30} {scaling[1] / scaling[0]:8.3f}")


if __name__ == "__main__":
    main()
