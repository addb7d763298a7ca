"""One run at a time of a SOURCE into a DEST: two would clean everything twice and spoil each other's list."""

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from service.archive.plan import Plan
from service.errors import StartError


@contextmanager
def alone(plan: Plan) -> Iterator[None]:
    """Hold a lock beside the list of what fails; the system lets go of it however this process ends.

    An object store has no locks, nor have some network file systems; there it does nothing.

    Raises:
        StartError: another run holds it, and the text says which; or its file cannot be written.
    """
    place = plan.dest.path_on_disk(f"{plan.report}.lock")
    if place is None:
        yield
        return
    with _opened(place) as file:
        _lock(file, place, plan)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        try:
            yield
        finally:
            with suppress(OSError):
                place.unlink()


def _opened(place: Path) -> TextIO:
    try:
        return place.open("a+", encoding="utf-8")
    except OSError as error:
        raise StartError(
            f"{place} cannot be written: {error.strerror}; remove it if no run goes on"
        ) from None


def _lock(file: TextIO, place: Path, plan: Plan) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        raise StartError(
            f"another run, {file.read()}, cleans {plan.source.url} into {plan.dest.url};"
            " wait until it ends, or end it"
        ) from None
    except OSError:  # of file systems without locks
        return
    if not os.fstat(file.fileno()).st_nlink:  # the other removed it between our opening and our locking
        raise StartError(f"another run into {plan.dest.url} has just ended; start again")
