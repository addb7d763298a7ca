"""One whole load test of one service, as long as its form says."""

from pathlib import Path

import click

from deploy.loadtest.figures import Step
from deploy.loadtest.generator import PROTOCOLS, Generator
from deploy.loadtest.machine import describe_machine
from deploy.loadtest.pictures import make_pictures
from deploy.loadtest.report import Measured
from deploy.loadtest.steps import Form, Load, best
from deploy.loadtest.target import Target


def measure(target: Target, mix: str, form: Form, folder: Path, p99_ms: float, seed: int) -> Measured:
    """Put `target` under load; k6's plans and answers stay in `folder`."""
    machine = describe_machine()
    load = Load(_generator(mix, folder, p99_ms), target, seed)
    for protocol in PROTOCOLS:
        click.echo("warming up")
        load.closed(protocol, 4, min(3.0, form.peak_s))
    peaks = load.peak("http", form.peak_s)
    top = best(peaks)
    steps = [load.open("http", share * top.goodput, form.step_s, share) for share in form.http_shares]
    over_grpc = load.closed("grpc", top.users or 1, form.peak_s)
    rates = [(share, share * over_grpc.goodput) for share in form.grpc_shares]
    steps += [load.open("grpc", rate, form.step_s, share) for share, rate in rates]
    ramp = None
    if form.ramp_s:
        ramp = load.ramp("http", 0.1 * top.goodput, 1.3 * top.goodput, form.ramp_s)
    sizes: list[tuple[str, Step]] = []
    for size in form.sizes:
        click.echo(size)
        load = Load(_generator(size, folder / size, p99_ms), target, seed)
        sizes += [(size, load.closed(protocol, form.size_users, form.size_s)) for protocol in PROTOCOLS]
    title = f"{mix} pictures, {target.model}, {target.label}"
    return Measured(title, machine, [*peaks, over_grpc], steps, ramp, sizes)


def _generator(mix: str, folder: Path, p99_ms: float) -> Generator:
    folder.mkdir(parents=True, exist_ok=True)
    return Generator(make_pictures(mix, folder), folder, p99_ms)
