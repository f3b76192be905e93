"""The command line: one verb per file, and `provision NAME…` for everything else.

Only what a verb needs is imported, so that `--help` answers at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import click

# verb: (module, function); what is not a verb is a playbook or a task
VERBS = {
    "list": ("provision.cli.listing", "listing"),
    "inventory": ("provision.cli.inventory", "inventory"),
    "schema": ("provision.cli.schema", "schema"),
    "init": ("provision.cli.init", "init"),
    "logs": ("provision.cli.logs", "logs"),
}


ENTRY_POINTS = "provision.commands"  # the group in which other distributions offer verbs; each is a click command


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line and ends the process with its exit code."""
    _stand_in_for_closed_streams()
    given = list(sys.argv[1:] if arguments is None else arguments)
    sys.exit(_guarded(given))


def _stand_in_for_closed_streams() -> None:
    """What the caller closed (`>&-`) is nothing to Python, and its number would become that of a connection."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: PTH123, SIM115  for the process's life


def _guarded(given: list[str]) -> int:
    import click

    from provision.errors import ProvisionError, UsageError
    from provision.secret import mask

    verb = given[0] if given else ""
    try:
        command = _verb(verb)
        if command is None:
            from provision.cli.run import run

            command = run
        else:
            given = given[1:]
        name = "provision" if command.name == "provision" else f"provision {verb}"
        with command.make_context(name, given) as context:
            code = command.invoke(context)
        return code if isinstance(code, int) else 0
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.ClickException as error:
        error.show()
        return 2
    except UsageError as error:
        click.echo(f"error: {mask(str(error))}", err=True)
        return 2
    except ProvisionError as error:
        click.echo(f"error: {mask(str(error))}", err=True)
        return 1
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted: nothing is left half done on any host", err=True)
        return 130
    except BrokenPipeError:
        # Whoever read our output has gone (`provision list | head`): nobody is left to tell.
        sys.stderr.close()
        return 141
    except Exception:
        import traceback

        click.echo(mask(traceback.format_exc()), err=True)
        click.echo("error: this is a fault in provision itself: please report what stands above", err=True)
        return 1


def _verb(name: str) -> click.Command | None:
    """The command of a verb: one of ours, or one that another distribution offers; None for a playbook or a task."""
    if name in VERBS:
        module, function = VERBS[name]
        command: click.Command = getattr(import_module(module), function)
        return command
    if not name or name.startswith("-"):
        return None
    from importlib.metadata import entry_points

    for found in entry_points(group=ENTRY_POINTS, name=name):
        return found.load()  # type: ignore[no-any-return]
    if name == "lab":
        from provision.errors import UsageError

        raise UsageError(
            "`provision lab` is not installed: it is in a package of its own, provision-lab",
            hint="install it beside provision; in a checkout: pip install ./lab",
        )
    return None
