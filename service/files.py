"""Files and folders through the pipeline, without a server."""

import asyncio
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from service.draft import draft_of
from service.errors import ServiceError
from service.order import Order
from service.pipeline import Pipeline
from service.settings import ImageFormat
from service.suffixes import FORMATS, format_of, renamed

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    source: Path
    target: Path


def plan_files(paths: Sequence[Path], out: Path, format: ImageFormat | None) -> list[Job]:
    """What to read and where to write; folders keep their structure below `out`.

    Raises:
        click.UsageError: a path is missing or holds no images, or a result would overwrite an
            input or another result.
    """
    single_file = len(paths) == 1 and paths[0].is_file() and not out.is_dir() and format_of(out)
    if single_file:
        if format and format != format_of(out):
            raise click.UsageError(f"--format {format} contradicts the name {out}; leave one out")
        jobs = [Job(paths[0], out)]
    else:
        jobs = [
            Job(source, out / renamed(source.relative_to(base), format))
            for path in paths
            for base, source in _images(path)
        ]
    _refuse_overwriting(jobs)
    return jobs


def denoise_files(pipeline: Pipeline, jobs: Sequence[Job], order: Order) -> int:
    """Run jobs with a progress bar; one that fails is named and the rest go on.

    Where the order asks for the noise, a line for each file goes to standard output: its name, a tab,
    the standard deviation.

    Returns:
        The number of failed files.
    """
    console = Console(stderr=True)
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]:.2f} images/s"),
        TimeRemainingColumn(),
    )
    # Where standard output is a file or a pipe, what is printed there must not go to the bar's terminal.
    with Progress(*columns, console=console, redirect_stdout=sys.stdout.isatty()) as progress:
        bar = progress.add_task("denoise", total=len(jobs), rate=0.0)
        failed = asyncio.run(_denoise_all(pipeline, jobs, order, progress, bar))
        rate = len(jobs) / max(progress.tasks[bar].finished_time or 0.0, 1e-9)
    console.print(f"{len(jobs) - failed} of {len(jobs)} images, {rate:.2f} images/s")
    return failed


async def _denoise_all(
    pipeline: Pipeline, jobs: Sequence[Job], order: Order, progress: Progress, bar: TaskID
) -> int:
    failed = 0
    # Enough at once that decoding and encoding go on beside inference, and no more in memory.
    settings = pipeline.settings
    places = asyncio.Semaphore(
        max(1, min(settings.threads_per_worker + 1, settings.max_queue_pixels // settings.max_pixels))
    )

    async def one(job: Job) -> None:
        nonlocal failed
        async with places:
            try:
                await _denoise_one(pipeline, job, order)
            except Exception as error:  # one bad file must not stop the rest
                failed += 1
                progress.console.print(f"failed: {job.source}: {error}", markup=False, soft_wrap=True)
                if not isinstance(error, ServiceError | OSError):
                    log.error("a bug met %s", job.source, exc_info=error)
        elapsed = progress.tasks[bar].elapsed or 1e-9
        progress.update(bar, advance=1, rate=(progress.tasks[bar].completed + 1) / elapsed)

    try:
        async with asyncio.TaskGroup() as group:
            for job in jobs:
                group.create_task(one(job))
    finally:
        await pipeline.close()
    return failed


async def _denoise_one(pipeline: Pipeline, job: Job, order: Order) -> None:
    data = await asyncio.to_thread(job.source.read_bytes)
    order = replace(order, format=order.format or format_of(job.target))
    done = await pipeline.denoise(data, order)
    await asyncio.to_thread(_write, job.target, done.data)
    if done.noise_sigma is not None:
        click.echo(f"{job.source}\t{done.noise_sigma:.1f}")


def _write(target: Path, content: bytes) -> None:
    with draft_of(target) as draft:
        draft.write_bytes(content)


def _images(path: Path) -> list[tuple[Path, Path]]:
    """(folder that names are relative to, file) for a file or everything below a folder."""
    if path.is_file():
        return [(path.parent, path)]
    if not path.exists():
        raise click.UsageError(f"{path} does not exist")
    found = sorted(file for file in path.rglob("*") if format_of(file) and file.is_file())
    if not found:
        raise click.UsageError(f"{path} holds no images ({', '.join(sorted(FORMATS))})")
    return [(path, file) for file in found]


def _refuse_overwriting(jobs: Sequence[Job]) -> None:
    sources = {job.source.resolve() for job in jobs}
    taken: dict[Path, Path] = {}
    for job in jobs:
        target = job.target.resolve()
        if target in sources:
            raise click.UsageError(f"{job.target} is an input; choose another --out")
        if target in taken:
            raise click.UsageError(f"{taken[target]} and {job.source} would both become {job.target}")
        taken[target] = job.source
