"""Styled lines, as plain text or with a terminal's colours."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Final, Literal

Style = Literal["", "bold", "dim", "good", "bad", "warn", "info", "name"]
Span = tuple[str, Style]
Line = list[Span]

_CODES: Final[dict[Style, str]] = {
    "bold": "1",
    "dim": "2",
    "good": "32",
    "bad": "1;31",
    "warn": "33",
    "info": "34",
    "name": "36",
}


def plain(line: Line) -> str:
    """The text alone."""
    return "".join(text for text, _ in line).rstrip()


def colour(line: Line) -> str:
    """The text with SGR colour codes: the eight basic ones, which follow the reader's theme."""
    return "".join(f"\x1b[{_CODES[style]}m{text}\x1b[0m" if style and text else text for text, style in line)


def hang(text: str, width: int, *, first: Line, indent: str, style: Style = "") -> list[Line]:
    """`first`, then the text, wrapped at `width` (0: not at all); later lines begin with `indent`."""
    used = sum(len(one) for one, _ in first)
    if not width or used + len(text) <= width:
        return [[*first, (text, style)]]
    pieces = textwrap.wrap(
        text,
        max(width, used + 20),
        initial_indent="x" * used,
        subsequent_indent=indent,
        break_on_hyphens=False,
    )
    return [[*first, (pieces[0][used:], style)], *([(one, style)] for one in pieces[1:])]


def table(heads: Sequence[str], rows: Sequence[Sequence[Span]]) -> list[Line]:
    """Columns: the first to the left, the others to the right."""
    widths = [max(len(head), *(len(row[at][0]) for row in rows)) for at, head in enumerate(heads)]

    def cell(at: int, text: str) -> str:
        return text.ljust(widths[at]) if at == 0 else "  " + text.rjust(widths[at])

    lines: list[Line] = [[(cell(at, head), "dim") for at, head in enumerate(heads)]]
    lines += [[(cell(at, text), style) for at, (text, style) in enumerate(row)] for row in rows]
    return lines
