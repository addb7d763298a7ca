"""Options that several commands have: each sets its QUIETFRAME_* variable."""

import os
from pathlib import Path
from typing import Any

import click

from model_store import ModelStore
from service.settings import load_settings

STORE = click.option("--store", "model_store", type=click.Path(path_type=Path), help="folder of models")


def set_settings(options: dict[str, Any]) -> None:
    """Command line options are settings given for one run."""
    for name, value in options.items():
        if value is not None:
            os.environ[f"QUIETFRAME_{name.upper()}"] = str(value)


def chosen_store(options: dict[str, Any]) -> ModelStore:
    set_settings(options)
    return ModelStore(load_settings().model_store)
