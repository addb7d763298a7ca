"""`quietframe serve | denoise | video | archive | models | health | bench`."""

import http.client
import os
import ssl
import sys
import tempfile
import urllib.request
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, get_args

import click

from model_store import StoreError
from service.cli_models import models
from service.cli_options import STORE, chosen_store, set_settings
from service.errors import ServiceError, StartError
from service.preflight import check_certificate, check_model, check_ports
from service.settings import ImageFormat, Settings, load_settings
from service.tracing import check_tracing

FORMATS = click.Choice(get_args(ImageFormat))
DEVICE = click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), help="where to run")


class _Errors(click.Group):
    """Says what is wrong in one line, without a traceback, for errors made to be read."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except (StartError, StoreError, ServiceError) as error:
            raise click.ClickException(str(error)) from None


@click.group(cls=_Errors)
@click.version_option(package_name="quietframe")
def main() -> None:
    """Denoise images: as a service, or in this process."""


@main.command()
@click.option("--host", help="IP address to listen on; default 127.0.0.1, loopback only")
@click.option("--port", type=int, help="of HTTP; default 3000")
@click.option("--grpc-port", type=int, help="of gRPC; default 3001, 0 for none")
@click.option("--workers", type=int, help="processes; default 1")
@DEVICE
@STORE
def serve(**options: Any) -> None:
    """Start the service, HTTP and gRPC. Every QUIETFRAME_* variable of service/settings.py applies."""
    set_settings(options)
    settings = load_settings()
    check_ports(settings)
    check_certificate(settings)
    check_model(settings)
    check_tracing()
    # By -P and the package's own folder, or a folder `service` where the command is given would shadow it.
    supervisor = str(Path(__file__).with_name("supervisor.py"))
    command = [sys.executable, "-P", supervisor, "serve", "service.app:Quietframe"]
    place = ["--working-dir", str(Path(__file__).parent.parent)]
    address = ["--host", settings.host, "--port", str(settings.port)]
    grace = ["--timeout-graceful-shutdown", "1"]  # what needs more has had it: see drain.py
    # Longer than load balancers keep an idle connection, 60 s as a rule: who closes first cuts requests off.
    patience = ["--timeout-keep-alive", "75"]
    tls = ["--ssl-certfile", str(settings.tls_cert), "--ssl-keyfile", str(settings.tls_key)]
    sys.stdout.flush()
    os.execve(
        sys.executable,
        [*command, *place, *address, *grace, *patience, *(tls if settings.tls_cert else [])],
        _workers_environment(settings),
    )


@main.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "-o", "--out", required=True, type=click.Path(path_type=Path), help="folder, or file for one file"
)
@click.option("--model", help="`name` or `name:version`")
@click.option("--strength", type=click.FloatRange(0, 1), default=1.0, show_default=True)
@click.option("--format", "format", type=FORMATS, help="output format; default that of the input")
@click.option("--quality", type=click.IntRange(1, 100), help="of JPEG and WebP output")
@click.option("--noise", type=click.Choice(["auto"]), help="print each file's noise, in levels of 255")
@DEVICE
@STORE
def denoise(
    paths: tuple[Path, ...],
    out: Path,
    model: str | None,
    strength: float,
    format: ImageFormat | None,
    quality: int | None,
    noise: Literal["auto"] | None,
    **options: Any,
) -> None:
    """Denoise files and folders of images, without a server.

    Exit status: 0 all done, 1 some failed (each is named), 2 wrong usage.
    """
    from service.files import denoise_files, plan_files
    from service.order import Order
    from service.pipeline import Pipeline

    set_settings(options)
    settings = load_settings()
    jobs = plan_files(paths, out, format)
    pipeline = Pipeline(_for_one_model(settings, model))
    failed = denoise_files(pipeline, jobs, Order(None, strength, format, quality, noise))
    if failed:
        sys.exit(1)


@main.command()
@click.argument("source")
@click.argument("target", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--server", help="host:port of a service's gRPC; without it frames are cleaned in this process")
@click.option("--model", help="`name` or `name:version`")
@click.option("--strength", type=click.FloatRange(0, 1), default=1.0, show_default=True)
@click.option(
    "--token", envvar="QUIETFRAME_CLIENT_TOKEN", show_envvar=True, help="bearer token for that server"
)
@click.option("--tls", is_flag=True, help="speak TLS to that server")
@click.option("--ca", type=click.Path(exists=True, path_type=Path), help="PEM file to trust for TLS")
@click.option("--frames", type=click.IntRange(1), help="stop after so many, as with a camera")
@DEVICE
@STORE
def video(
    source: str,
    target: Path,
    server: str | None,
    model: str | None,
    strength: float,
    token: str | None,
    tls: bool,
    ca: Path | None,
    frames: int | None,
    **options: Any,
) -> None:
    """Clean a video file, or a camera by its URL or device; audio is passed through.

    A camera that sends nothing for 15 seconds has ended: what came before is in TARGET.

    Exit status: 0 all frames clean, 1 some left as they were or left out (it says why), 2 wrong usage.
    """
    try:
        from service.video import clean_video
    except ModuleNotFoundError:
        raise click.ClickException("videos need PyAV: pip install 'quietframe[video]'") from None
    from service import frame_cleaners
    from service.order import Order
    from service.pipeline import Pipeline

    set_settings(options)
    settings = load_settings()
    if server:
        there = frame_cleaners.Server(server, token, tls, ca, settings.max_body_bytes)
        cleaner = frame_cleaners.clean_there(there, model or settings.default_model, strength)
    else:
        pipeline = Pipeline(_for_one_model(settings, model))
        cleaner = frame_cleaners.clean_here(pipeline, Order(None, strength, "raw"))
    if not clean_video(source, target, cleaner, frames):
        sys.exit(1)


@main.command()
@click.argument("source")
@click.argument("dest")
@click.option(
    "--address",
    envvar="RAY_ADDRESS",
    show_envvar=True,
    help="host:port of a Ray cluster; without it, this machine",
)
@click.option("--engines", type=click.IntRange(1), help="at once; default as many as there is room for")
@click.option(
    "--cores", type=click.IntRange(1), help="of each engine; default up to 4, or its share of a GPU"
)
@click.option("--model", help="`name` or `name:version`")
@click.option("--strength", type=click.FloatRange(0, 1), default=1.0, show_default=True)
@click.option("--format", "format", type=FORMATS, help="of images; default that of the input")
@click.option("--quality", type=click.IntRange(1, 100), help="of JPEG and WebP output")
@DEVICE
@STORE
def archive(
    source: str,
    dest: str,
    address: str | None,
    engines: int | None,
    cores: int | None,
    model: str | None,
    strength: float,
    format: ImageFormat | None,
    quality: int | None,
    **options: Any,
) -> None:
    """Clean a folder or object store of images and videos with Ray, here or on a cluster.

    SOURCE and DEST are folders or URLs (s3://bucket/folder, gs://...). What DEST has is not done again,
    so the same command goes on after an interruption; what failed is in DEST/_quietframe/failed-*.jsonl.

    Exit status: 0 all done, 1 some failed (each is named), 2 wrong usage, 130 interrupted.
    """
    if not (find_spec("ray") and find_spec("fsspec")):
        raise click.ClickException("archives need Ray: pip install 'quietframe[ray]'")
    from service.archive.plan import Terms, plan_archive
    from service.archive.run import run_archive

    store = chosen_store(options)
    settings = load_settings()
    card = store.resolve(model or settings.default_model).card
    name = f"{card.name}:{card.version}"  # a version that is published meanwhile must not mix in
    terms = Terms(name, card.sha256, strength, format, quality or settings.jpeg_quality)
    sys.exit(run_archive(plan_archive(source, dest, terms), settings, address, engines, cores))


def _for_one_model(settings: Settings, model: str | None) -> Settings:
    """Settings under which a model that was named cleans everything."""
    return settings.model_copy(update={"default_model": model, "gray_model": None}) if model else settings


main.add_command(models)


@main.command()
@click.option("--host", help="default 127.0.0.1")
@click.option("--port", type=int, help="default 3000")
def health(**options: Any) -> None:
    """Exit status 0 if the service on this host is ready, else 1."""
    set_settings({**options, "grpc_port": 0})  # it is not asked, and may be anywhere
    settings = load_settings()
    host = "127.0.0.1" if settings.host == "0.0.0.0" else settings.host
    url = f"{'https' if settings.tls_cert else 'http'}://{host}:{settings.port}/readyz"
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}), *_own_certificate(settings))
    try:
        with direct.open(url, timeout=5):
            click.echo("ready")
    except (OSError, http.client.HTTPException) as error:
        raise click.ClickException(f"{url}: {error}") from None


@main.command()
@click.argument("image", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=False)
@click.option("--requests", default=30, show_default=True, help="timed requests on each side")
@click.option("--seconds", default=12.0, show_default=True, help="of each throughput; 0 leaves them out")
def bench(image: Path | None, requests: int, seconds: float) -> None:
    """Time HTTP and gRPC against decode + run + encode called directly, and the graph as such."""
    from service.bench import run_bench

    run_bench(load_settings(), image, requests, seconds)


def _own_certificate(settings: Settings) -> list[urllib.request.HTTPSHandler]:
    """Our certificate vouches for itself: it need not name this address, nor its issuer be known here."""
    if not settings.tls_cert:
        return []
    context = ssl.create_default_context(cafile=str(settings.tls_cert))
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # the default from Python 3.13 on
    return [urllib.request.HTTPSHandler(context=context)]


def _workers_environment(settings: Settings) -> dict[str, str]:
    """Ours, with paths that hold in the folder of the workers, too."""
    paths = {
        "QUIETFRAME_MODEL_STORE": settings.model_store,
        "QUIETFRAME_TLS_CERT": settings.tls_cert,
        "QUIETFRAME_TLS_KEY": settings.tls_key,
    }
    return {
        **os.environ,
        "BENTOML_HOME": os.environ.get("BENTOML_HOME") or _private_folder(settings.port),
        "BENTOML_DO_NOT_TRACK": "true",
        **{name: str(path) for name, path in paths.items() if path},
    }


def _private_folder(port: int) -> str:
    """Where BentoML keeps the counters of this instance: shared, a second one would wipe them."""
    folder = Path(tempfile.gettempdir()) / f"quietframe-{os.getuid()}-{port}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        if not folder.is_symlink() and folder.stat().st_uid == os.getuid():
            return str(folder)
    except OSError as error:
        raise StartError(f"{folder} cannot be made: {error.strerror}; set TMPDIR or BENTOML_HOME") from None
    raise StartError(f"{folder} belongs to somebody else; set BENTOML_HOME to a folder of yours")


if __name__ == "__main__":
    main()
