"""`cof tune`: values that are chosen on data of their own, never on those that are reported."""

from __future__ import annotations

import click

from cof.cli.tune_heads import heads


@click.group()
def tune() -> None:
    """Choose a setting on a development split."""


tune.add_command(heads)
