"""What is put under load: a service started here on free ports, or one that runs already."""

import contextlib
import http.client
import ipaddress
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click

from deploy.loadtest.pictures import ROOT

_START_TIMEOUT_S = 120
_STOP_TIMEOUT_S = 40
MODEL = "frames-balanced"


@dataclass(frozen=True)
class Target:
    """Where requests go.

    Attributes:
        url: of the images; `http://127.0.0.1:3000/v1/denoise?model=frames-fast`.
        grpc_address: `127.0.0.1:3001`.
        metrics_url: Prometheus text of a quietframe, None for others.
        pid: of the process whose tree is the service, None where it is not ours.
        model: that the images are for, by either protocol.
    """

    label: str
    url: str
    grpc_address: str
    metrics_url: str | None
    pid: int | None
    model: str = MODEL


@contextmanager
def our_service(
    label: str,
    folder: Path,
    checkout: Path = ROOT,
    settings: Mapping[str, str] | None = None,
    model: str = MODEL,
) -> Iterator[Target]:
    """`quietframe serve` of a checkout, with QUIETFRAME_* `settings`; its output goes to `folder`."""
    port, grpc_port = free_ports(2)
    ours = {f"QUIETFRAME_{name.upper()}": value for name, value in (settings or {}).items()}
    environment = {
        **os.environ,
        "QUIETFRAME_ACCESS_LOG": "false",
        **ours,
        "QUIETFRAME_HOST": "127.0.0.1",
        "QUIETFRAME_PORT": str(port),
        "QUIETFRAME_GRPC_PORT": str(grpc_port),
        "PYTHONPATH": str(checkout),  # before the installed one
    }
    command = [sys.executable, "-m", "service.cli", "serve"]
    base = f"http://127.0.0.1:{port}"
    with started(label, command, environment, checkout, folder, f"{base}/readyz") as pid:
        yield _target(label, base, f"127.0.0.1:{grpc_port}", pid, model)


def running_service(url: str, grpc_address: str, model: str, *, allow_remote: bool) -> Target:
    """A service that somebody else has started.

    Raises:
        click.ClickException: an address is not loopback and nobody said that it may be, it does not
            answer, or has no such model.
    """
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise click.ClickException(f"{url} is no address; give one such as http://127.0.0.1:3000")
    for host in (parts.hostname, grpc_address.rpartition(":")[0].strip("[]")):
        if not allow_remote and not _is_loopback(host):
            raise click.ClickException(f"{host} is another machine; --allow-remote if it is yours to load")
    base = url.rstrip("/")
    try:
        status, _ = get(f"{base}/metrics", 10)
    except OSError as error:
        raise click.ClickException(f"{base} does not answer: {error}") from None
    if status != http.client.OK:
        raise click.ClickException(f"{base}/metrics answers {status}; it must be open, without a token")
    return _target(base, base, grpc_address, None, model)


def _target(label: str, base: str, grpc_address: str, pid: int | None, model: str) -> Target:
    status, _ = get(f"{base}/v1/models/{urllib.parse.quote(model)}", 10)
    if status != http.client.OK:
        raise click.ClickException(f"{base} has no model {model} (status {status}); see /v1/models there")
    url = f"{base}/v1/denoise?{urllib.parse.urlencode({'model': model})}"
    return Target(label, url, grpc_address, f"{base}/metrics", pid, model)


@contextmanager
def started(
    label: str, command: Sequence[str], environment: Mapping[str, str], place: Path, folder: Path, ready: str
) -> Iterator[int]:
    """A process group of its own, once `ready` answers 200; SIGTERM at the end, SIGKILL if that is not heard.

    Raises:
        click.ClickException: it ended, or was not ready in time; its output is named.
    """
    log = folder / f"{label.replace('/', '-').replace('=', '-')}.log"
    with (
        log.open("wb") as output,
        subprocess.Popen(
            command,
            env=dict(environment),
            cwd=place,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as process,
    ):
        try:
            begun = time.monotonic()
            while not _answers(ready):
                if process.poll() is not None or time.monotonic() - begun > _START_TIMEOUT_S:
                    raise click.ClickException(f"{label} did not start; see {log}")
                time.sleep(0.1)
            yield process.pid
        finally:
            _stop(process)


def free_ports(number: int) -> list[int]:
    """Different free loopback ports."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(number)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


def get(url: str, timeout_s: float) -> tuple[int, str]:
    """Status and text, without any proxy.

    Raises:
        OSError: there was no answer in time.
    """
    parts = urllib.parse.urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.netloc, timeout=timeout_s)
    try:
        connection.request("GET", parts.path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    except http.client.HTTPException as error:
        raise OSError(str(error)) from None
    finally:
        connection.close()


def stop_on_sigterm() -> None:
    """Let SIGTERM unwind, so that nothing started here is left behind."""
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))


def _stop(process: "subprocess.Popen[bytes]") -> None:
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_TIMEOUT_S)
        os.killpg(process.pid, signal.SIGKILL)


def _answers(url: str) -> bool:
    try:
        return get(url, 5)[0] == http.client.OK
    except OSError:
        return False


def _is_loopback(host: str) -> bool:
    try:
        addresses = socket.getaddrinfo(host, None)
    except OSError:
        raise click.ClickException(f"no such host: {host}") from None
    return all(ipaddress.ip_address(address[4][0]).is_loopback for address in addresses)
