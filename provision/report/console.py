"""Where reports are written: a rich console, on a stream whose failure does not end the run.

rich decides about width, styles and colours, from the stream and from NO_COLOR, FORCE_COLOR, TERM, COLUMNS,
TTY_COMPATIBLE and TTY_INTERACTIVE. Source: https://rich.readthedocs.io/en/stable/console.html
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, Final, TextIO, cast

if TYPE_CHECKING:
    from rich.console import Console

# The eight basic colours: terminals show them in the colours of the user's own theme.
STYLES: Final = {
    "heading": "bold",
    "soft": "dim",
    "host": "cyan",
    "good": "green",
    "warning": "yellow",
    "bad": "bold red",
    "action": "blue",
    "diff.header": "bold",
    "diff.hunk": "cyan",
    "diff.added": "green",
    "diff.removed": "red",
    "diff.context": "none",
}


def open_console(stream: TextIO, *, terminal: bool | None = None, width: int | None = None) -> Console:
    """A console that writes to `stream`. `terminal` and `width` replace what rich detects (for tests).

    Text is never interpreted as rich's markup: output of hosts may contain anything.
    """
    from rich.console import Console
    from rich.theme import Theme

    return Console(
        file=cast("TextIO", SafeStream(stream)),
        force_terminal=terminal,
        # COLUMNS=0 is a width that nothing fits in: rich would print nothing at all.
        width=80 if width is None and not os.environ.get("COLUMNS", "1").strip("0") else width,
        theme=Theme(STYLES),
        highlight=False,
        markup=False,
        emoji=False,
    )


class PlainConsole:
    """Prints plain lines on a stream that is no terminal, as a rich console does there, without importing rich."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = SafeStream(stream)

    def print(self, text: str = "", *, soft_wrap: bool = True) -> None:
        """Prints the text and a line break. Lines are never wrapped; `soft_wrap` is there for rich's callers."""
        del soft_wrap
        self._stream.write(f"{text}\n")
        self._stream.flush()

    def styled(self) -> Console:
        """A rich console on the same stream, for reports with tables."""
        return open_console(cast("TextIO", self._stream))


def console_for(stream: TextIO) -> Console | PlainConsole:
    """A rich console, or a plain one where rich would find no terminal: a run then need not import rich, which takes 30 ms."""
    if stream.isatty() or any(os.environ.get(name) for name in ("FORCE_COLOR", "TTY_COMPATIBLE")):
        return open_console(stream)
    return PlainConsole(stream)


def is_styled(console: Console) -> bool:
    """Whether the output is styled and wrapped. Otherwise it is plain text, one fact per line, for files and pipes."""
    return console.is_terminal and not console.is_dumb_terminal


def is_animated(console: Console) -> bool:
    """Whether lines may be redrawn: only on an interactive terminal.

    FORCE_COLOR makes rich treat a CI job's log as a terminal; redrawn lines would fill such a log.
    """
    return is_styled(console) and console.is_interactive and console.file.isatty() and not os.environ.get("CI")


class SafeStream:
    """A text stream that drops text that it cannot write any more, so that the run continues to its end.

    A run that stopped between two changes because `provision … | head` closed the pipe would leave hosts half configured.
    The first failure is reported on stderr. Characters that the stream's encoding lacks are written as `?`.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._failed = False

    @property
    def encoding(self) -> str:
        """The stream's encoding, which rich reads."""
        return self._stream.encoding or "utf-8"

    def write(self, text: str) -> int:
        """Writes the text, or drops it if an earlier write failed."""
        if not self._failed:
            try:
                self._write(text)
            except (OSError, ValueError) as error:
                self._fail(error)
        return len(text)

    def flush(self) -> None:
        """Flushes the stream; a closed pipe is often noticed only here."""
        if not self._failed:
            try:
                self._stream.flush()
            except (OSError, ValueError) as error:
                self._fail(error)

    def isatty(self) -> bool:
        """Whether the stream is a terminal."""
        return self._stream.isatty()

    def fileno(self) -> int:
        """The stream's file descriptor."""
        return self._stream.fileno()

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
        except UnicodeEncodeError:
            self._stream.write(text.encode(self.encoding, "replace").decode(self.encoding))

    def _fail(self, error: OSError | ValueError) -> None:
        """Reports the first failure; ValueError: the stream is closed in this process."""
        self._failed = True
        closed = isinstance(error, BrokenPipeError | ValueError)
        reason = "stdout was closed" if closed else f"cannot write to stdout: {getattr(error, 'strerror', '') or error}"
        _discard(self._stream)
        try:
            print(f"provision: {reason}; the run continues", file=sys.stderr, flush=True)
        except (OSError, ValueError):  # `2>&1 | head`: stderr was closed as well
            _discard(sys.stderr)


class MaskingStream:
    """A text stream that masks every text and makes it printable: for stderr.

    Errors, warnings, logs of libraries and tracebacks of threads are written there from many places.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Writes the text. A secret in two calls is not recognised: writers of stderr pass on whole lines."""
        from provision.report.text import safe_text  # most runs write nothing on stderr

        self._stream.write(safe_text(text))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        if name == "buffer":  # nothing is written around `write`
            raise AttributeError(name)
        return getattr(self._stream, name)


def _discard(stream: TextIO) -> None:
    """Redirects the stream to /dev/null: at exit the interpreter flushes its buffer, which would fail again."""
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, stream.fileno())
    except (OSError, ValueError):
        pass  # not a real file, or a closed one: nothing is flushed at exit
    finally:
        os.close(null)
