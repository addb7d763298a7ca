"""Files of another user: what an operator leaves who copies as root with umask 077."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NOBODY = 65534


@contextmanager
def closed(path: Path) -> Iterator[None]:
    """Nobody may read `path`; root, who may read everything, is nobody meanwhile.

    Args:
        path: below the working folder and relative to it, as temporary folders are root's alone.
    """
    mode, user = path.stat().st_mode, os.geteuid()
    path.chmod(0)
    try:
        if user == 0:
            os.seteuid(NOBODY)
        yield
    finally:
        os.seteuid(user)
        path.chmod(mode)
