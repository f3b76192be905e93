"""Shell commands as values, with their arguments quoted by construction.

`sh("install -d -- %s", path)` is the only way that a script is put together: the template is a
literal, each `%s` takes one argument and quotes it. A `Secret` is refused as an argument, since what
stands in a script may stand in an argv: secrets travel on standard input.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from pathlib import PurePath

from provision.secret import Secret

Argument = str | int | PurePath | list[str] | tuple[str, ...]


@dataclass(frozen=True)
class Command:
    """A script for `/bin/sh` and what it reads: `stdin` may hold secrets and is never shown."""

    script: str
    stdin: bytes = field(default=b"", repr=False)

    def reading(self, stdin: str | bytes | Secret) -> Command:
        """The same script with `stdin` on its standard input."""
        if isinstance(stdin, Secret):
            stdin = stdin.reveal()
        return Command(self.script, stdin.encode() if isinstance(stdin, str) else stdin)


def sh(template: str, *arguments: Argument) -> Command:
    """A command from a template: every `%s` is one quoted argument (a list: several), `%%` a percent sign.

    Raises TypeError for a Secret and for a count that does not fit.
    """
    quoted = tuple(_quote(argument) for argument in arguments)
    return Command(template % quoted)


def _quote(argument: Argument) -> str:
    if isinstance(argument, list | tuple):
        return " ".join(_quote(one) for one in argument)
    if isinstance(argument, Secret) or not isinstance(argument, str | int | PurePath):
        raise TypeError(f"{type(argument).__name__} cannot be a shell argument: give it on standard input")
    return shlex.quote(str(argument))


@dataclass(frozen=True)
class Result:
    """What a command left: exit code and both outputs, binary-safe."""

    stdout: bytes = b""
    stderr: bytes = b""
    code: int = 0

    @property
    def text(self) -> str:
        """stdout as text; bytes that are not UTF-8 survive as surrogates."""
        return self.stdout.decode("utf-8", "surrogateescape")

    @property
    def errors(self) -> str:
        """stderr as text."""
        return self.stderr.decode("utf-8", "replace")
