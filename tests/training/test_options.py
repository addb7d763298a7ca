"""What several commands take, all of them take alike."""

from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from training.cli import main


def having(name: str, command: click.Command = main, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The command, or those below it, that have an option of this name."""
    if isinstance(command, click.Group):
        for word, each in command.commands.items():
            yield from having(name, each, (*path, word))
    elif any(name in option.opts for option in command.params):
        yield path


SEEDED = list(having("--seed"))
FOLDERS = [(*path, name) for name in ("--out", "--run") for path in having(name)]


def test_those_that_draw_have_a_seed() -> None:
    assert {("fit",), ("own-camera",), ("plot", "field"), ("plot", "levels")} < set(SEEDED)


@pytest.mark.parametrize("seed", ["-1", str(2**31)])
@pytest.mark.parametrize("command", SEEDED, ids=" ".join)
def test_a_seed_that_cannot_be_used_is_refused_with_the_range(command: tuple[str, ...], seed: str) -> None:
    done = CliRunner().invoke(main, [*command, "--seed", seed])
    assert done.exit_code == 2
    assert f"{seed} is not in the range 0<=x<=2147483647" in done.output


def test_those_that_write_folders_are_found() -> None:
    assert {("fit", "--run"), ("own-camera", "--run"), ("plot", "filters", "--out")} < set(FOLDERS)


@pytest.mark.parametrize("command", FOLDERS, ids=" ".join)
def test_a_file_where_a_folder_belongs_is_refused(command: tuple[str, ...]) -> None:
    done = CliRunner().invoke(main, [*command, __file__])
    assert done.exit_code == 2
    assert "is a file" in done.output


@pytest.mark.parametrize("command", [each for each in FOLDERS if each != ("evaluate", "--run")], ids=" ".join)
def test_a_folder_below_a_file_is_refused(command: tuple[str, ...]) -> None:
    done = CliRunner().invoke(main, [*command, f"{__file__}/below"])
    assert done.exit_code == 2
    assert f"cannot be made: {__file__} is no folder to write to" in done.output
