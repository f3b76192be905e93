"""Shell commands and their results, as values. Arguments are quoted by construction.

`sh("install -d -- %s", path)` is the only way to build a script: the template is a literal, and each `%s` takes one
argument and quotes it. A `Secret` is refused as an argument, since a script may become part of an argv: secrets are
passed on standard input.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import NamedTuple

from provision.secret import Secret

Argument = str | int | PurePath | list[str] | tuple[str, ...]


@dataclass(frozen=True)
class Command:
    """A script for `/bin/sh`, and its standard input. `stdin` may contain secrets and is never printed."""

    script: str
    stdin: bytes = field(default=b"", repr=False)

    def reading(self, stdin: str | bytes | Secret) -> Command:
        """The same script with `stdin` as its standard input."""
        if isinstance(stdin, Secret):
            stdin = stdin.reveal()
        return Command(self.script, stdin.encode() if isinstance(stdin, str) else stdin)


class Result(NamedTuple):
    """A command's exit code and its outputs, byte by byte."""

    stdout: bytes = b""
    stderr: bytes = b""
    code: int = 0

    @property
    def text(self) -> str:
        """stdout as text; bytes that are not UTF-8 become surrogates."""
        return self.stdout.decode("utf-8", "surrogateescape")

    @property
    def errors(self) -> str:
        """stderr as text; bytes that are not UTF-8 are replaced."""
        return self.stderr.decode("utf-8", "replace")


def sh(template: str, *arguments: Argument) -> Command:
    """A command from a template: each `%s` is one quoted argument (a list: several), `%%` a percent sign.

    Raises TypeError for a Secret, and when the number of arguments does not match.
    """
    quoted = tuple(_quote(argument) for argument in arguments)
    return Command(template % quoted)


def _quote(argument: Argument) -> str:
    if isinstance(argument, list | tuple):
        return " ".join(_quote(one) for one in argument)
    if isinstance(argument, Secret) or not isinstance(argument, str | int | PurePath):
        raise TypeError(f"{type(argument).__name__} cannot be a shell argument: pass it on standard input")
    return shlex.quote(str(argument))
