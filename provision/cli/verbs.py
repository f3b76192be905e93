"""The verbs, and what they share: options, the catalogue of an inventory, lines on stderr.

Other distributions add verbs by the entry point group `provision.commands`; each entry point is a click command.
A verb's module is imported when the verb is called, so that `--help` takes less than 0.2 s.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from provision.distributions import added

if TYPE_CHECKING:
    from provision.engine.catalogue import Catalogue

ENTRY_POINTS: Final = "provision.commands"
LAB: Final = "lab"  # the verb of the distribution provision-lab
_VERBS: Final = {
    "list": "provision.cli.inventory",
    "inventory": "provision.cli.inventory",
    "schema": "provision.cli.inventory",
    "explain": "provision.cli.inventory",
    "init": "provision.cli.inventory",
    "logs": "provision.cli.follow",
    "ci": "provision.cli.follow",
    "status": "provision.cli.hosts",
    "images": "provision.cli.hosts",
    "help": "provision.cli.inventory",
}  # verb: the module with a command of this name, or of this name and `_`

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def inventory_option(*, required: bool) -> Decorator:
    """`-i FILE`, any number of times: `inventory: tuple[Path, ...]`."""
    return click.option(
        "-i",
        "--inventory",
        multiple=True,
        required=required,
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="The inventory; given several times, later files override.",
    )


verbose_option: Decorator = click.option("-v", "--verbose", count=True, help="Print tracebacks of broken playbooks.")
set_option: Decorator = click.option(
    "-e", "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Override a setting; VALUE is TOML or a word."
)


def verb_names() -> list[str]:
    """The names of all verbs: ours, then those of other distributions."""
    return [*_VERBS, *sorted({one.name for one in added(ENTRY_POINTS)} - _VERBS.keys())]


def find_verb(name: str) -> click.Command | None:
    """A verb's command, or None. Raises ClickException when its distribution is missing or cannot be loaded."""
    if name in _VERBS:
        module = import_module(_VERBS[name])
        command: click.Command = getattr(module, f"{name}_", None) or getattr(module, name)
        return command
    points = [one for one in added(ENTRY_POINTS) if one.name == name]
    if name == LAB and not points:
        raise click.ClickException(
            "the verb lab is in the distribution provision-lab, which is not installed\n"
            "  → install it: pip install 'provision[lab]'; in a checkout, pip install . ./lab"
        )
    for point in points:
        try:
            command = point.load()
        except Exception as error:
            of = point.dist.name if point.dist else point.value
            raise click.ClickException(
                f"the verb {name} of the distribution {of} cannot be loaded: {error}\n  → update or uninstall it"
            ) from error
        return command
    return None


def describe_verbs(formatter: click.HelpFormatter) -> None:
    """Writes the verbs and their help, for the end of `provision --help`."""
    rows = []
    for name in verb_names():
        # Verbs of other distributions are not loaded, since that may be slow or fail.
        command = find_verb(name) if name in _VERBS else None
        rows.append((name, command.get_short_help_str(100) if command else f"See provision {name} --help."))
    with formatter.section("Other commands"):
        formatter.write_dl(rows)


def catalogue_of(inventories: Sequence[Path]) -> Catalogue:
    """The catalogue of these inventories, without names of verbs. Raises InventoryError for one that does not exist."""
    from provision.engine.catalogue import Catalogue

    catalogue = Catalogue.beside(inventories)
    catalogue.leave_out(verb_names())
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


def print_error(text: str) -> None:
    """Prints a line on stderr. If it cannot be written (a full disk, a closed terminal), only the exit code tells of the error."""
    with suppress(OSError):
        click.echo(text, err=True)
