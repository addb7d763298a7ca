"""`python -m deploy.loadtest.peers`: the same model behind three servers, under the same load."""

import contextlib
from pathlib import Path

import click

from deploy.loadtest.compare import Comparison, Side, compare, write_comparison
from deploy.loadtest.generator import Generator
from deploy.loadtest.machine import describe_machine, revision
from deploy.loadtest.options import SEED_OPTION
from deploy.loadtest.peers.same import check_same_pixels
from deploy.loadtest.peers.servers import mlserver, starlette, versions
from deploy.loadtest.pictures import MIXES, ROOT, make_pictures
from deploy.loadtest.report import new_folder
from deploy.loadtest.target import our_service, stop_on_sigterm

_IN_SHORT = Comparison(rounds=1, users=8, closed_s=6, loads=((2.0, 25),))
_IN_FULL = Comparison(rounds=2, users=8, closed_s=15, loads=((2.0, 30),))


@click.command()
@click.option("--full", is_flag=True, help="2 longer rounds; else one, in 7 minutes")
@click.option("--mix", type=click.Choice(list(MIXES)), default="720p", show_default=True, help="what to send")
@click.option("--out", type=click.Path(path_type=Path), help="folder; default runs/loadtest/<time>")
@SEED_OPTION
def main(full: bool, mix: str, out: Path | None, seed: int) -> None:
    """Throughput at saturation and latency at twice that load; each peer by its own protocol.

    Ours is there twice: as it ships, and with the float32 file that the peers run.
    """
    how = _IN_FULL if full else _IN_SHORT
    folder = new_folder(out)
    machine = [*describe_machine(), *versions()]
    pictures = make_pictures(mix, folder / "runs")
    generator = Generator(pictures, folder / "runs")
    with contextlib.ExitStack() as stack:
        ours = f"quietframe {revision(ROOT)}"
        shipped = stack.enter_context(our_service(ours, folder))
        same = stack.enter_context(our_service(f"{ours} fp32", folder, settings={"PRECISION": "fp32"}))
        peers = [
            [Side(same, "http"), Side(stack.enter_context(starlette(folder)), "http")],
            [Side(same, "grpc"), Side(stack.enter_context(mlserver(folder)), "grpc")],
        ]
        check_same_pixels([side for sides in peers for side in sides], pictures[0].file)
        groups = [[Side(shipped, sides[0].protocol), *sides] for sides in peers]
        results = [(sides, compare(generator, sides, how, seed)) for sides in groups]
    click.echo(f"\n{write_comparison(f'{mix} pictures', results, how, machine, folder)}")


if __name__ == "__main__":
    stop_on_sigterm()
    main()
