"""Ray, on this machine or on a cluster that is there already: started quietly and closed to others."""

import contextlib
import json
import logging
import os
import secrets
import signal
import socket
import sys
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.archive.cleaner import Cleaner, Told, Work
from service.archive.folders import in_one_line
from service.errors import StartError

_REACH_S = 5.0
_MOST_CORES = 4  # of an engine that shares a machine: as many lanes as the pipeline takes by itself
_OBJECT_STORE_BYTES = 128 * 2**20  # names and errors travel through it, and no images
_ALONE = {
    # Ray binds to every interface where clusters are possible; without, to loopback as on a Mac.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_worker_niceness": "0",  # engines are what the user has started, and not in the background of it
}


@dataclass(frozen=True)
class Pool:
    """How many engines there are, and what each has."""

    engines: int
    cores: int
    gpus: int


@contextmanager
def ray_cluster(address: str | None, threads: int) -> Iterator[None]:
    """Be connected to the cluster at `address` (host:port, or auto), or to one of our own that ends here.

    Args:
        threads: cores that one of our own uses.

    Raises:
        StartError: the cluster cannot be reached, or Ray does not start.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    if address:
        _check_reachable(address)
    else:
        os.environ.update(_ALONE, RAY_AUTH_TOKEN=secrets.token_hex(32))
    import ray

    with (
        tempfile.TemporaryDirectory(
            prefix="quietframe-", dir=_short_folder(), ignore_cleanup_errors=True
        ) as folder,
        _only_our_words(Path(folder) / "ray.log"),
    ):
        try:
            if address:
                ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
            else:
                _start(threads, folder)
        except Exception as error:  # Ray raises that class itself, too
            place = f"the Ray cluster at {address} cannot be used" if address else "Ray does not start"
            raise StartError(f"{place}: {in_one_line(error)[:300]}") from None
        # Ray would end us at once; a run that is told to stop says how far it got.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            yield
        finally:
            ray.shutdown()


def choose_pool(nodes: Sequence[tuple[int, int]], gpu: bool, engines: int | None, cores: int | None) -> Pool:
    """As many engines as fit, unless told how many; as large as leaves no core idle, unless told.

    Args:
        nodes: cores and GPUs of each machine.
        gpu: one engine for each GPU, and none elsewhere.

    Raises:
        StartError: nothing fits.
    """
    if gpu:
        nodes = [(cpus, gpus) for cpus, gpus in nodes if gpus]
        if not nodes:
            raise StartError("device=cuda, but Ray sees no GPU; set device=cpu, or check the driver")
        share = cores or max(1, min(cpus // gpus for cpus, gpus in nodes))
        fits = sum(min(gpus, cpus // share) for cpus, gpus in nodes)
    else:
        sizes = range(1, _MOST_CORES + 1)
        share = cores or max(sizes, key=lambda size: (sum(cpus // size * size for cpus, _ in nodes), size))
        fits = sum(cpus // share for cpus, _ in nodes)
    if not fits or (engines or 0) > fits:
        raise StartError(
            f"there is room for {fits} engines of {share} cores each; choose other --engines or --cores"
        )
    return Pool(engines or fits, share, int(gpu))


def nodes() -> list[tuple[int, int]]:
    """Cores and GPUs of each machine of the cluster that is alive."""
    import ray

    resources = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [(int(each.get("CPU", 0)), int(each.get("GPU", 0))) for each in resources]


def clean_shares(work: Work, pool: Pool, shares: Iterable[list[str]], again: bool) -> Iterator[Told]:
    """What the engines tell while they clean; a share whose engine died is told of no further.

    Args:
        again: names may have been done before, and each must show whether it is what kills engines.

    Raises:
        Exception: of Ray's; the cluster is gone, or engines cannot be made.
    """
    import ray.data

    _calm(ray.data.DataContext.get_current())
    rows = [{"names": json.dumps(share), "again": "again" if again else ""} for share in shares]
    strategy = ray.data.ActorPoolStrategy(
        size=min(pool.engines, len(rows)), max_tasks_in_flight_per_actor=1 if again else 2
    )
    told = ray.data.from_items(rows, override_num_blocks=len(rows)).flat_map(
        Cleaner,
        compute=strategy,
        fn_constructor_args=(work,),
        num_cpus=pool.cores,
        num_gpus=pool.gpus or None,
        max_task_retries=0,  # an engine that died comes back if there is room; its share waits for no room
    )
    for batch in told.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        for row in batch.column("told").to_pylist():
            yield Told(**json.loads(row))


def _start(threads: int, folder: str) -> None:
    """Ray gives its processes 30 s to start, always, which a busy machine does not always keep."""
    import ray

    for last in (False, False, True):
        try:
            ray.init(
                address="local",
                num_cpus=threads,
                object_store_memory=_OBJECT_STORE_BYTES,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                _temp_dir=folder,
            )
            return
        except Exception:
            if last:
                raise


def _short_folder() -> str:
    """Ray's sockets lie 84 characters below, and a socket's path has 107 at most."""
    usual = tempfile.gettempdir()
    return usual if len(os.fsencode(usual)) < 107 - 84 else "/tmp"  # noqa: S108 - a private folder is made there


@contextmanager
def _only_our_words(log: Path) -> Iterator[None]:
    """Ray tells of its machines on standard output, which is not for us to use, and its C++ half writes to
    standard error by its number: both become `log`, and our standard error a copy of what it was."""
    copy, before = os.dup(2), sys.stderr
    sys.stderr = os.fdopen(copy, "w", buffering=1, encoding=before.encoding, errors="backslashreplace")
    with log.open("w", encoding="utf-8") as file, contextlib.redirect_stdout(file):
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(copy, 2)
            sys.stderr.close()
            sys.stderr = before


def _calm(context: Any) -> None:
    from ray.util.annotations import RayDeprecationWarning

    # Without max_task_retries, which Ray 2.64 will not take any more, a share waits for ever for the
    # machine that died with it.
    warnings.filterwarnings("ignore", category=RayDeprecationWarning)
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.target_max_block_size = 1  # each row is handed on when it is there
    context.max_errored_blocks = -1  # an engine that died must not end the others
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)


def _check_reachable(address: str) -> None:
    host, _, port = address.rpartition(":")
    if address == "auto":
        return
    if not host or not port.isdecimal() or "/" in host:
        raise StartError(f"--address is host:port, as `ray start --head` prints it, not {address}")
    try:
        with contextlib.closing(socket.create_connection((host.strip("[]"), int(port)), _REACH_S)):
            pass
    except OSError as error:
        raise StartError(f"no Ray cluster answers at {address}: {error}") from None
