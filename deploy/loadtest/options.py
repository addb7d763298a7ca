"""Options that the load test and that of the peers share."""

import click

SEED_OPTION = click.option(
    "--seed",
    type=click.IntRange(0, 2**31 - 1),
    default=0,
    show_default=True,
    help="of arrivals and their pictures",
)
