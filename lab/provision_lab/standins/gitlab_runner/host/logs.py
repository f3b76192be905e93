"""Log lines as gitlab-runner writes them (on stderr, the message in 50 columns, then its fields), and its version.

The package writes the version into the file VERSION beside this one.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn

_WIDTH = 50


class Exit(Exception):
    """The program ends with 1 after a last line: FATAL, or PANIC after cleaning up (`panic`)."""

    def __init__(self, text: str, *, panic: bool = False) -> None:
        super().__init__(text)
        self.panic = panic


def info(text: str, **fields: object) -> None:
    """Writes a line without a level."""
    _write("", text, fields)


def warning(text: str, **fields: object) -> None:
    """Writes a line with `WARNING: ` before it."""
    _write("WARNING: ", text, fields)


def error(text: str, **fields: object) -> None:
    """Writes a line with `ERROR: ` before it."""
    _write("ERROR: ", text, fields)


def last(end: Exit) -> NoReturn:
    """Writes the last line, FATAL or PANIC, and ends the program with 1."""
    _write("PANIC: " if end.panic else "FATAL: ", str(end), {})
    raise SystemExit(1)


def fatal(text: str) -> NoReturn:
    """Ends the program with 1."""
    raise Exit(text)


def panic(text: str) -> NoReturn:
    """Ends the program with 1, after the caller has cleaned up."""
    raise Exit(text, panic=True)


def banner() -> None:
    """Writes the first line of nearly every command."""
    info("Runtime platform", arch=ARCHITECTURE, os="linux", pid=os.getpid(), revision=REVISION, version=VERSION)


def mode() -> None:
    """Logs whether root runs the program."""
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


_FILE = Path(__file__).with_name("VERSION")
VERSION = _FILE.read_text().strip() if _FILE.exists() else "19.3.0"
REVISION = "1abd57a0"
ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)


def at_least(major: int, minor: int) -> bool:
    """Whether this version is that one or newer."""
    own = VERSION.split(".")
    return (int(own[0]), int(own[1])) >= (major, minor)


def version_text() -> str:
    """The output of `--version`."""
    branch = "-".join(VERSION.split(".")[:2]) + "-stable"
    return (
        f"Version:      {VERSION}\n"
        f"Git revision: {REVISION}\n"
        f"Git branch:   {branch}\n"
        "GO version:   go1.25.8\n"
        "Built:        2026-08-20T10:12:44Z\n"
        f"OS/Arch:      linux/{ARCHITECTURE}\n"
    )
