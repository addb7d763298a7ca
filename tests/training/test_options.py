"""What several commands take, all of them take alike."""

from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from training.cli import main


def with_seed(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The command, or those below it, that have a --seed."""
    if isinstance(command, click.Group):
        for name, each in command.commands.items():
            yield from with_seed(each, (*path, name))
    elif any("--seed" in option.opts for option in command.params):
        yield path


SEEDED = list(with_seed(main))


def test_those_that_draw_have_a_seed() -> None:
    assert {("fit",), ("own-camera",), ("plot", "field"), ("plot", "levels")} < set(SEEDED)


@pytest.mark.parametrize("seed", ["-1", str(2**31)])
@pytest.mark.parametrize("command", SEEDED, ids=" ".join)
def test_a_seed_that_cannot_be_used_is_refused_with_the_range(command: tuple[str, ...], seed: str) -> None:
    done = CliRunner().invoke(main, [*command, "--seed", seed])
    assert done.exit_code == 2
    assert f"{seed} is not in the range 0<=x<=2147483647" in done.output
