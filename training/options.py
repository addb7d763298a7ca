"""Options that several commands of `python -m training` share."""

from pathlib import Path

import click

FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
NEW_FOLDER = click.Path(file_okay=False, path_type=Path)  # it may be there already
SEED = click.IntRange(min=0, max=2**31 - 1)  # as fit.seed of a recipe
DATA_DIR_OPTION = click.option(
    "--data-dir",
    type=NEW_FOLDER,
    help="folder with mnist/ and fashion-mnist/; else QUIETFRAME_DATA_DIR, else a cache they are fetched to",
)
