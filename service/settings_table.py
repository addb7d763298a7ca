"""`python -m service.settings_table`: every setting as Markdown, as docs/operations.md has it."""

from typing import Literal, get_args, get_origin

import click
from annotated_types import Ge, Gt, Le
from pydantic.fields import FieldInfo

from service.settings import Settings


def settings_table() -> str:
    """A line for each setting: variable, default, what is allowed, meaning."""
    lines = ["| variable | default | allowed | meaning |", "|---|---|---|---|"]
    for name, field in Settings.model_fields.items():
        cells = (f"`QUIETFRAME_{name.upper()}`", _default(field), _allowed(field), field.description)
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def _default(field: FieldInfo) -> str:
    if field.default_factory:
        return "that of the package"
    value = field.default
    if isinstance(value, frozenset):
        return ", ".join(sorted(value)) or "none"
    if isinstance(value, bool):
        return str(value).lower()
    return "none" if value is None else str(value)


def _allowed(field: FieldInfo) -> str:
    if get_origin(field.annotation) is Literal:
        return ", ".join(get_args(field.annotation))
    words = {Ge: ("from {}", "ge"), Gt: ("above {}", "gt"), Le: ("to {}", "le")}
    bounds = [
        words[type(bound)][0].format(getattr(bound, words[type(bound)][1]))
        for bound in field.metadata
        if type(bound) in words
    ]
    return " ".join(bounds)


if __name__ == "__main__":
    click.echo(settings_table())
