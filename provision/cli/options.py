"""Options that several verbs share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def inventory_option(*, required: bool) -> Decorator:
    """`-i FILE`, any number of times."""
    return click.option(
        "-i",
        "--inventory",
        multiple=True,
        required=required,
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="The inventory; several: later files override.",
    )


set_option: Decorator = click.option(
    "-e", "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Override a setting; VALUE is TOML or a word."
)
