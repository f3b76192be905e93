"""Log lines as gitlab-runner writes them: everything on stderr, the message in 50 columns, then its fields."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

from .version import ARCHITECTURE, REVISION, VERSION

_WIDTH = 50


class Exit(Exception):
    """The program ends with 1 after a last line (FATAL), or unwinds first (`panic`)."""

    def __init__(self, text: str, *, panic: bool = False) -> None:
        super().__init__(text)
        self.panic = panic


def info(text: str, **fields: object) -> None:
    """A plain line."""
    _write("", text, fields)


def warning(text: str, **fields: object) -> None:
    """A line behind `WARNING: `."""
    _write("WARNING: ", text, fields)


def error(text: str, **fields: object) -> None:
    """A line behind `ERROR: `."""
    _write("ERROR: ", text, fields)


def last(end: Exit) -> NoReturn:
    """The last line, FATAL or PANIC, and exit code 1."""
    _write("PANIC: " if end.panic else "FATAL: ", str(end), {})
    raise SystemExit(1)


def fatal(text: str) -> NoReturn:
    """Ends the program with 1."""
    raise Exit(text)


def panic(text: str) -> NoReturn:
    """Ends the program with 1, after what must be undone is undone."""
    raise Exit(text, panic=True)


def banner() -> None:
    """The first line of nearly every command."""
    info("Runtime platform", arch=ARCHITECTURE, os="linux", pid=os.getpid(), revision=REVISION, version=VERSION)


def mode() -> None:
    """Whether root runs it."""
    if os.geteuid() == 0:
        info("Running in system-mode.")
    else:
        warning("Running in user-mode.")
        warning("Use sudo for system-mode:")
        warning("$ sudo gitlab-runner...")
    info("")


def _write(level: str, text: str, fields: dict[str, object]) -> None:
    line = f"{level}{text:<{_WIDTH - len(level)}} "
    line += "".join(f" {name}={fields[name]}" for name in sorted(fields))
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
