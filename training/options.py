"""Options that several commands of `python -m training` share."""

import os
from pathlib import Path
from typing import Any

import click


class _NewFolder(click.Path):
    """A folder that may be there already, and can be made if it is not: said before hours of work."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        path = Path(os.fsdecode(super().convert(value, param, ctx)))
        nearest = next(each for each in (path, *path.absolute().parents) if each.exists())
        if not (nearest.is_dir() and os.access(nearest, os.W_OK)):
            self.fail(f"{path} cannot be made: {nearest} is no folder to write to", param, ctx)
        return path


FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
NEW_FOLDER = _NewFolder(file_okay=False, path_type=Path)
SEED = click.IntRange(min=0, max=2**31 - 1)  # as fit.seed of a recipe
DATA_DIR_OPTION = click.option(
    "--data-dir",
    type=NEW_FOLDER,
    help="folder with mnist/ and fashion-mnist/; else QUIETFRAME_DATA_DIR, else a cache they are fetched to",
)
