"""`quietframe archive` as a process, what it starts, and a cluster of two machines to kill one of."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.conftest import ROOT

TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "t" * 64, "RAY_USAGE_STATS_ENABLED": "0"}
# In a process of its own: Ray reads its environment once. It goes on a step with each line it gets.
TWO_MACHINES = """
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
worker = cluster.add_node(num_cpus=1)
print(cluster.address, flush=True)
input()
cluster.remove_node(worker, allow_graceful=False)
print("killed", flush=True)
input()
cluster.shutdown()
"""


@contextmanager
def archiving(*arguments: object, **environment: str) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-m", "service.cli", "archive", *map(str, arguments)]
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def files_below(folder: Path) -> set[str]:
    return {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and path.relative_to(folder).parts[0] != "_quietframe"
    }


def wait_for(condition: Callable[[], bool], process: "subprocess.Popen[str] | None" = None) -> None:
    """Until `condition`, for five minutes at most, and no longer than `process` runs."""
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline
        assert process is None or process.poll() is None, process.communicate()[0]
        time.sleep(0.1)


def strange_lines(said: str) -> list[str]:
    """Ray's own words, which are not for our user."""
    ours = r"failed: |.*images/s|\d+ failed: |interrupted; "
    return [line for line in said.splitlines() if line and not re.match(ours, line)]


def listening_addresses(marker: Path, process: "subprocess.Popen[str]") -> set[str]:
    """IPv4 and IPv6 addresses, as /proc has them, that Ray's processes listen on when an engine runs."""
    seen: set[str] = set()
    while process.poll() is None and not (seen and any_engine(marker)):
        inodes = {
            link.removeprefix("socket:[").removesuffix("]")
            for pid in processes_of(marker)
            for link in links(Path(f"/proc/{pid}/fd"))
        }
        for table in ("/proc/net/tcp", "/proc/net/tcp6"):
            for line in Path(table).read_text().splitlines()[1:]:
                _, address, _, state, *_, inode = line.split()[:10]
                if state == "0A" and inode in inodes:
                    seen.add(address.split(":")[0][-8:])
        time.sleep(0.2)
    return seen


def processes_of(marker: Path) -> list[int]:
    """Those that have MARK=marker, as the command and all that it starts do."""
    wanted = f"MARK={marker}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdecimal() and wanted in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def any_engine(marker: Path) -> int | None:
    """The process of an engine, if there is one."""
    for pid in processes_of(marker):
        try:
            if b"Cleaner" in Path(f"/proc/{pid}/cmdline").read_bytes():
                return pid
        except OSError:
            continue
    return None


def links(folder: Path) -> list[str]:
    try:
        return [str(path.readlink()) for path in folder.iterdir()]
    except OSError:
        return []


@contextmanager
def two_machines() -> Iterator[tuple[str, Callable[[], None]]]:
    """A Ray cluster of a head and a worker with one core each: its address, and what kills the worker."""
    with subprocess.Popen(
        [sys.executable, "-c", TWO_MACHINES],
        env={**os.environ, **TOKEN},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as cluster:
        requests, answers = cluster.stdin, cluster.stdout
        assert requests
        assert answers

        def kill_one() -> None:
            requests.write("\n")
            requests.flush()
            assert answers.readline() == "killed\n"

        yield answers.readline().strip(), kill_one
        requests.write("\n")
