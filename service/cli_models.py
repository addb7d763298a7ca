"""`quietframe models`: what is in a store."""

import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import click

from model_store import ModelStore, StoredModel, StoreError, card_markdown
from model_store.store import PAGE_FILE
from service.cli_options import STORE, chosen_store


@click.group()
def models() -> None:
    """Look at the models of the store."""


@models.command("list")
@STORE
def list_models(**options: Any) -> None:
    """Every version: name, parameters, multiply-adds, summary.

    Exit status: 0 all are listed, 1 there are none, or some are broken (each is named), 2 wrong usage.
    """
    store = chosen_store(options)
    _check_not_empty(store)
    _with_each(store, _references(store), _list)


@models.command()
@click.argument("reference")
@STORE
def show(reference: str, **options: Any) -> None:
    """The card of `name` or `name:version`, as JSON."""
    click.echo(chosen_store(options).resolve(reference).card.model_dump_json(indent=2))


@models.command("card")
@click.argument("reference")
@STORE
def print_card(reference: str, **options: Any) -> None:
    """The card of `name` or `name:version` for people, as Markdown."""
    click.echo(card_markdown(chosen_store(options).resolve(reference).card), nl=False)


@models.command("update-cards")
@STORE
def update_cards(**options: Any) -> None:
    """Write README.md, the card for people, into every version where it is missing or old.

    Exit status: 0 all are as their cards, 1 some are not (each is named), 2 wrong usage.
    """
    store = chosen_store(options)
    _check_not_empty(store)
    _with_each(store, _references(store), _update_page)


@models.command()
@click.argument("reference", required=False)
@STORE
def verify(reference: str | None, **options: Any) -> None:
    """Check the hash of one model, or of all.

    Exit status: 0 all are as published, 1 some are not (each is named), 2 wrong usage.
    """
    store = chosen_store(options)
    if not reference:
        _check_not_empty(store)
    _with_each(store, [reference] if reference else _references(store), _verify)


def _list(stored: StoredModel) -> None:
    card = stored.card
    size = f"{card.parameters / 1000:.0f}k parameters, {card.macs_per_pixel / 1000:.1f}k MAC/pixel"
    click.echo(f"{card.name}:{card.version}  {size}  {card.summary}")


def _update_page(stored: StoredModel) -> None:
    if stored.update_page():
        click.echo(f"wrote {stored.folder / PAGE_FILE}")


def _verify(stored: StoredModel) -> None:
    for precision, sha256 in stored.card.hashes.items():
        stored.read_verified(precision)
        click.echo(f"ok  {stored.card.label}  {sha256}" + ("" if precision == "fp32" else f"  {precision}"))


def _references(store: ModelStore) -> Iterator[str]:
    return (f"{name}:{version}" for name in store.names() for version in store.versions(name))


def _check_not_empty(store: ModelStore) -> None:
    if not store.names():
        raise click.ClickException(f"{store.root} holds no models")


def _with_each(store: ModelStore, references: Iterable[str], work: Callable[[StoredModel], None]) -> None:
    """One broken version is named and must not hide the rest; the exit status is 1 then."""
    failed = False
    for reference in references:
        try:
            work(store.resolve(reference))
        except StoreError as error:
            failed = True
            click.echo(f"failed: {error}", err=True)
    if failed:
        sys.exit(1)
