"""The command line: a click Group of verbs. Names that are not verbs are playbooks and tasks, which `run` executes."""

from __future__ import annotations

import atexit
import errno
import os
import re
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final, TextIO, cast

import click

from provision.cli.verbs import find_verb, print_error, verb_names

_OUTPUT_LOST: Final = (errno.ENOSPC, errno.EDQUOT, errno.EIO)  # a full disk, a terminal that hung up


class Verbs(click.Group):
    """The group of all verbs, including those of other distributions."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of all verbs."""
        del ctx
        return verb_names()

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """A verb's command, or None. Raises ClickException when its distribution is missing or cannot be loaded."""
        del ctx
        return find_verb(cmd_name)

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


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line and ends the process with its exit code."""
    from provision.report.console import MaskingStream

    _reopen_closed_streams()
    sys.stderr = cast("TextIO", MaskingStream(sys.stderr))
    code = exit_code_of(sys.argv[1:] if arguments is None else arguments)
    _end_quickly(code)
    sys.exit(code)


def _end_quickly(code: int) -> None:
    """Ends the process without freeing each object first, which takes 0.1 s after the last line of a run.

    Returns if that is not safe: when a thread is still at work, or when the output cannot be written.
    """
    if any(not one.daemon for one in threading.enumerate() if one is not threading.main_thread()):
        return
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError):  # the interpreter's own end reports it
        return
    atexit._run_exitfuncs()
    os._exit(code)


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
