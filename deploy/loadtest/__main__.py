"""`python -m deploy.loadtest`: put a service under load and write a report; `--help` lists the options."""

import contextlib
import sys
from pathlib import Path

import click

from deploy.loadtest.compare import Comparison, Side, compare, write_comparison
from deploy.loadtest.generator import Generator
from deploy.loadtest.machine import describe_machine, revision
from deploy.loadtest.measure import measure
from deploy.loadtest.options import SEED_OPTION
from deploy.loadtest.pictures import MIXES, ROOT, make_pictures
from deploy.loadtest.report import new_folder, write_report
from deploy.loadtest.revisions import checkout_of, settings_of
from deploy.loadtest.steps import FULL, SHORT
from deploy.loadtest.target import MODEL, Target, our_service, running_service, stop_on_sigterm

_IN_SHORT = Comparison(rounds=2, users=8, closed_s=5, loads=((0.7, 10), (1.3, 10)))
_IN_FULL = Comparison(rounds=5, users=8, closed_s=12, loads=((0.7, 25), (1.3, 25)))


@click.command()
@click.option("--full", is_flag=True, help="every step, size and a ramp: under 20 minutes, else under 3")
@click.option(
    "--mix", type=click.Choice(list(MIXES)), default="mixed", show_default=True, help="what to send"
)
@click.option("--model", default=MODEL, show_default=True, help="to ask for, over HTTP and gRPC")
@click.option("--out", type=click.Path(path_type=Path), help="folder; default runs/loadtest/<time>")
@click.option("--url", help="of a service that runs already, such as http://127.0.0.1:3000")
@click.option("--grpc", default="127.0.0.1:3001", show_default=True, help="its gRPC address, with --url")
@click.option("--allow-remote", is_flag=True, help="let --url be another machine; have its owner's leave")
@click.option("--vs", metavar="REVISION", help="compare this checkout with another revision, in turn")
@click.option("--vs-setting", multiple=True, metavar="KEY=VALUE", help="compare with other settings, in turn")
@click.option("--p99-ms", type=click.FloatRange(1), default=5000.0, show_default=True, help="threshold")
@SEED_OPTION
def main(
    full: bool,
    mix: str,
    model: str,
    out: Path | None,
    url: str | None,
    grpc: str,
    allow_remote: bool,
    vs: str | None,
    vs_setting: tuple[str, ...],
    p99_ms: float,
    seed: int,
) -> None:
    """Find the peak, load the service from 10 % to 130 % of it, and write a report.

    Exit status: 0 all thresholds held, 1 some were crossed or something did not run, 2 wrong usage.
    """
    if sum(map(bool, (url, vs, vs_setting))) > 1:
        raise click.UsageError("--url, --vs and --vs-setting exclude each other")
    there = running_service(url, grpc, model, allow_remote=allow_remote) if url else None
    settings = settings_of(vs_setting)
    folder = new_folder(out)
    with contextlib.ExitStack() as stack:
        place = stack.enter_context(checkout_of(vs)) if vs else ROOT
        here = there or stack.enter_context(our_service(revision(ROOT), folder, model=model))
        if vs or settings:
            label = vs or " ".join(vs_setting)
            other = stack.enter_context(our_service(label, folder, place, settings, model))
            crossed = _compare([here, other], mix, _IN_FULL if full else _IN_SHORT, folder, p99_ms, seed)
        else:
            measured = measure(here, mix, FULL if full else SHORT, folder / "runs", p99_ms, seed)
            click.echo(f"\n{write_report(measured, folder)}")
            crossed = any(step.outcome.crossed for step in measured.everything)
    sys.exit(crossed)


def _compare(
    targets: list[Target], mix: str, how: Comparison, folder: Path, p99_ms: float, seed: int
) -> bool:
    generator = Generator(make_pictures(mix, folder / "runs"), folder / "runs", p99_ms)
    sides = [Side(target, "http") for target in targets]
    machine = describe_machine()
    seen = compare(generator, sides, how, seed)
    title = f"{mix} pictures, {targets[0].model}"
    click.echo(f"\n{write_comparison(title, [(sides, seen)], how, machine, folder)}")
    return any(step.outcome.crossed for one in seen for step in one.steps)


if __name__ == "__main__":
    stop_on_sigterm()
    main()
