"""A unified diff's lines by kind, harmless to show."""

from __future__ import annotations

from typing import Literal

from provision.report.clean import printable_lines

Kind = Literal["head", "at", "plus", "minus", "same"]


def diff_lines(diff: str) -> list[tuple[Kind, str]]:
    """Each line with its kind. A removed line that itself begins with `--` is no heading."""
    if not diff:
        return []
    lines = printable_lines(diff)
    kinds: list[tuple[Kind, str]] = []
    for index, line in enumerate(lines):
        follower = lines[index + 1] if index + 1 < len(lines) else ""
        kind: Kind = "same"
        after_head = bool(kinds) and kinds[-1][0] == "head" and kinds[-1][1].startswith("--- ")
        if (line.startswith("--- ") and follower.startswith("+++ ")) or (line.startswith("+++ ") and after_head):
            kind = "head"
        elif line.startswith("@@"):
            kind = "at"
        elif line.startswith("+"):
            kind = "plus"
        elif line.startswith("-"):
            kind = "minus"
        kinds.append((kind, line))
    return kinds
