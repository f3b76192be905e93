"""The catalogue as the command line uses it: names that are verbs are left out, and what is not used is reported."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from provision.cli import commands, print_error

if TYPE_CHECKING:
    from provision.engine.catalogue import Catalogue


def catalogue_of(inventories: Sequence[Path]) -> Catalogue:
    """The catalogue of these inventories. Raises InventoryError for one that does not exist."""
    from provision.engine.catalogue import Catalogue

    catalogue = Catalogue.beside(inventories)
    catalogue.leave_out(commands.list_commands(click.Context(commands)))
    return catalogue


def report_unused(catalogue: Catalogue, *, verbose: bool = False, warnings: bool = True) -> None:
    """Prints on stderr what could not be used, with tracebacks if `verbose`."""
    from provision.secret import mask

    for one in catalogue.unused:
        if warnings:
            print_error(f"warning: {mask(one.warning)}")
        details = getattr(one.error, "details", "")
        if verbose and details:
            print_error(mask(details))
