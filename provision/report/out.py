"""A stream that a report writes to: whole lines, flushed, and never a reason for a run to die half way."""

from __future__ import annotations

import os
import sys
from typing import TextIO


class Out:
    """Writes lines to a stream; characters that its encoding lacks become `?`.

    When the reader goes away (`provision … | head`), the run goes on unseen instead of stopping between
    two changes: that is said once on stderr.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.gone = False

    def line(self, text: str = "") -> None:
        """One line, flushed."""
        self.lines([text])

    def lines(self, texts: list[str]) -> None:
        """Several lines in one write, flushed."""
        if self.gone or not texts:
            return
        text = "\n".join(texts) + "\n"
        try:
            try:
                self.stream.write(text)
            except UnicodeEncodeError:
                encoding = self.stream.encoding or "ascii"
                self.stream.write(text.encode(encoding, "replace").decode(encoding))
            self.stream.flush()
        except BrokenPipeError:
            self._reader_left()

    def width(self) -> int:
        """The terminal's columns; 80 where there is none to ask."""
        try:
            return int(os.environ.get("COLUMNS", "")) or 80
        except ValueError:
            pass  # not set, or no number: the terminal itself knows
        try:
            return os.get_terminal_size(self.stream.fileno()).columns or 80
        except OSError:  # no descriptor, or no terminal behind it
            return 80

    def _reader_left(self) -> None:
        self.gone = True
        print("provision: nobody reads the output any more; the run goes on", file=sys.stderr)
        # The interpreter flushes stdout once more when it exits: give that somewhere to go.
        null = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(null, self.stream.fileno())
        finally:
            os.close(null)


def is_terminal(stream: TextIO) -> bool:
    """Whether people watch the stream on a screen that can redraw: a terminal that is not dumb."""
    return stream.isatty() and os.environ.get("TERM", "") not in ("", "dumb")
