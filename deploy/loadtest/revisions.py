"""The other side of a comparison: another revision of this repository, or other settings."""

import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click

from deploy.loadtest.pictures import ROOT
from service.settings import Settings


@contextmanager
def checkout_of(revision: str) -> Iterator[Path]:
    """A git worktree of `revision` in a temporary folder.

    Raises:
        click.ClickException: git does not know it.
    """
    with tempfile.TemporaryDirectory(prefix="quietframe-") as folder:
        place = Path(folder) / "checkout"
        _git("worktree", "add", "--detach", str(place), f"{revision}^{{commit}}")
        try:
            yield place
        finally:
            _git("worktree", "remove", "--force", str(place))


def settings_of(pairs: Sequence[str]) -> dict[str, str]:
    """`LANES=1` as a setting by its name in service/settings.py.

    Raises:
        click.ClickException: it is no pair, or there is no such setting, or it is an address of ours.
    """
    settings = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        name = key.lower().removeprefix("quietframe_")
        if not equals or name not in Settings.model_fields:
            raise click.ClickException(
                f"{pair} is no setting; `LANES=1` would be one, see docs/operations.md"
            )
        if name in ("host", "port", "grpc_port"):
            raise click.ClickException(f"{pair}: addresses are chosen by the load test")
        settings[name] = value
    return settings


def _git(*arguments: str) -> None:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise click.ClickException(f"git {arguments[0]}: {done.stderr.strip().splitlines()[-1]}")
