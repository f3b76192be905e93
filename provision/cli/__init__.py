"""The command line: a click Group of verbs. Names that are not verbs are playbooks and tasks, which `run` executes.

Other distributions add verbs by the entry point group `provision.commands`; each entry point is a click command.
A verb's module is imported when the verb is called, so that `--help` takes less than 0.2 s.
"""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO, cast

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
    "logs": "provision.cli.logs",
    "help": "provision.cli.inventory",
}  # verb: the module with a command of this name, or of this name and `_`

_OUTPUT_LOST: Final = (errno.ENOSPC, errno.EDQUOT, errno.EIO)  # a full disk, a terminal that hung up

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


class Verbs(click.Group):
    """The group of all verbs, including those of other distributions."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of all verbs."""
        del ctx
        return [*_VERBS, *sorted({one.name for one in added(ENTRY_POINTS)} - _VERBS.keys())]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """A verb's command, or None. Raises ClickException when its distribution is missing or cannot be loaded."""
        del ctx
        if cmd_name in _VERBS:
            module = import_module(_VERBS[cmd_name])
            command: click.Command = getattr(module, f"{cmd_name}_", None) or getattr(module, cmd_name)
            return command
        points = [one for one in added(ENTRY_POINTS) if one.name == cmd_name]
        if cmd_name == LAB and not points:
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
                    f"the verb {cmd_name} of the distribution {of} cannot be loaded: {error}\n"
                    "  → update or uninstall it"
                ) from error
            return command
        return None

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """The context of the named verb, or of `run` if the first argument that is no option is not a verb."""
        from provision.cli.run import run

        place = _first_name(args, run)
        if place is not None and self.get_command(click.Context(self), args[place]) is not None:
            return super().make_context(info_name, self._verb_first(args, place), parent, **extra)
        return run.make_context(info_name, args, parent, **extra)

    def _verb_first(self, args: list[str], place: int) -> list[str]:
        """`-i FILE list` becomes `list -i FILE`, and `-i FILE lab up` becomes `lab up -i FILE`."""
        before, verb, after = args[:place], args[place], args[place + 1 :]
        inner = isinstance(self.get_command(click.Context(self), verb), click.Group) and before
        names = 1 if inner and after and not after[0].startswith("-") else 0
        return [verb, *after[:names], *before, *after[names:]]

    def describe(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the verbs and their help, for the end of `provision --help`."""
        rows = []
        for name in self.list_commands(ctx):
            # Verbs of other distributions are not loaded, since that may be slow or fail.
            command = self.get_command(ctx, name) if name in _VERBS else None
            rows.append((name, command.get_short_help_str(100) if command else f"See provision {name} --help."))
        with formatter.section("Other commands"):
            formatter.write_dl(rows)


def _first_name(args: Sequence[str], command: click.Command) -> int | None:
    """The place of the first argument that is neither an option of the command nor an option's value."""
    with_value = {
        name
        for one in command.params
        if isinstance(one, click.Option) and not one.is_flag and not one.count
        for name in one.opts
    }
    place = 0
    while place < len(args):
        word = args[place]
        if not word.startswith("-") or word == "-":
            return place
        if word.startswith("--"):
            takes_next = word in with_value
        else:  # `-Cl web1`: the value of the first option that has one is the rest of the word, or the next word
            letter = next((at for at in range(1, len(word)) if f"-{word[at]}" in with_value), None)
            takes_next = letter == len(word) - 1
        place += 2 if takes_next else 1
    return None


commands = Verbs("provision", context_settings={"help_option_names": ["-h", "--help"]})


def catalogue_of(inventories: Sequence[Path]) -> Catalogue:
    """The catalogue of these inventories, without names of verbs. Raises InventoryError for one that does not exist."""
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


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line and ends the process with its exit code."""
    from provision.report.console import MaskingStream

    _reopen_closed_streams()
    sys.stderr = cast("TextIO", MaskingStream(sys.stderr))
    sys.exit(exit_code_of(sys.argv[1:] if arguments is None else arguments))


def exit_code_of(arguments: Sequence[str]) -> int:
    """Runs the command line and returns its exit code. Errors are printed to stderr, secrets masked."""
    from provision.errors import ProvisionError, UsageError
    from provision.secret import mask

    try:
        with commands.make_context("provision", list(arguments)) as context:
            code = context.command.invoke(context)
        return code if isinstance(code, int) else 0
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.ClickException as error:
        _suggest_carefully(error)
        with suppress(OSError):
            error.show()
        return 2
    except UsageError as error:
        details, verbose = getattr(error, "details", ""), is_verbose(arguments)
        if details and verbose:
            print_error(mask(details))
        more = " (-v prints the traceback)" if details and not verbose else ""
        print_error(f"error: {mask(str(error))}{more}")
        return 2
    except ProvisionError as error:
        print_error(f"error: {mask(str(error))}")
        return 1
    except (KeyboardInterrupt, click.Abort):
        print_error("interrupted: no change was in progress on any host")
        return 130
    except BrokenPipeError:
        # The reader of our output has ended (`provision list | head`): nothing more can be printed.
        sys.stderr.close()
        return 141
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _OUTPUT_LOST:
            print_error(f"error: cannot write {error.filename or 'the output'}: {error.strerror}")
            return 1
        import traceback

        print_error(mask(traceback.format_exc()))
        print_error("error: this is a bug in provision: please report the text above")
        return 1


def print_error(text: str) -> None:
    """Prints a line on stderr. If it cannot be written (a full disk, a closed terminal), only the exit code tells of the error."""
    with suppress(OSError):
        click.echo(text, err=True)


def is_verbose(arguments: Sequence[str]) -> bool:
    """Whether the arguments have -v: it is also read where the command line cannot be parsed."""
    return any(re.fullmatch(r"--verbose|-[CDKv]*v[CDKv]*", one) for one in arguments)


# What users of similar tools type, and what it is called here.
_ELSEWHERE: Final = {
    "--tags": "name the tasks instead: provision docker runner -i …",
    "-t": "name the tasks instead: provision docker runner -i …",
    "--skip-tags": "name the tasks that should run: provision docker runner -i …",
    "--dry-run": "--check plans and changes nothing",
    "--extra-vars": "--set KEY=VALUE overrides a setting",
    "--hosts": "--limit selects hosts",
    "--become": "sudo is used by default; see [ssh] become in the inventory",
    "-b": "sudo is used by default; see [ssh] become in the inventory",
    "--user": "--set ssh.user=NAME",
    "-u": "--set ssh.user=NAME",
    "--private-key": "--set ssh.identity_file=PATH",
    "--list-hosts": "provision inventory -i … prints hosts, groups and settings",
    "--list-tasks": "provision list prints playbooks and tasks",
    "--syntax-check": "provision inventory -i … checks the inventory",
}
_NEVER_SUGGESTED: Final = frozenset({"down"})  # `lab down` removes hosts


def _suggest_carefully(error: click.ClickException) -> None:
    """Keeps only suggestions that are certainly meant: click suggests --stats for --tags, too."""
    from provision.errors import misspelt

    if not isinstance(error, click.NoSuchOption | click.exceptions.NoSuchCommand):
        return
    word = error.option_name if isinstance(error, click.NoSuchOption) else error.command_name
    meant = misspelt(word, set(error.possibilities or ()) - _NEVER_SUGGESTED)
    hint = _ELSEWHERE.get(word)
    error.possibilities = [meant] if meant and not hint else None  # type: ignore[misc]  # click declares it final
    if hint:
        error.message = f"{error.message.rstrip('.')}: {hint}"  # type: ignore[misc]


def _reopen_closed_streams() -> None:
    """Opens the null device for streams that the caller closed (`>&-`): otherwise a socket would get their numbers."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: PTH123, SIM115  open until the process ends
