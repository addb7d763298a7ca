"""Files that appear complete or not at all."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def draft_of(target: Path) -> Iterator[Path]:
    """A file that becomes `target` when all went well, and is gone when not."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".quietframe-", dir=target.parent) as folder:
        draft = Path(folder) / target.name
        yield draft
        draft.replace(target)
