"""Safe printing of untrusted text: secrets are masked, escape sequences removed, and output is split into lines.

Every text from a host, a program or a file passes through here before it is printed.
"""

from __future__ import annotations

import re
from typing import Any, Literal

from provision.engine.events import ChangeEvent, ErrorEvent, Event, Message, Output, Step, TaskDone
from provision.masking import LONGEST_LINE, mask

# The fields that may contain a secret. Names of hosts and tasks come from the inventory and are keys: masking them
# because a password happens to be "docker" would break the programs that read the events.
_FREE_TEXTS: dict[type, tuple[str, ...]] = {
    Step: ("text",),
    Output: ("text",),
    TaskDone: ("headline",),
    ChangeEvent: ("resource", "summary", "diff"),
    Message: ("text",),
    ErrorEvent: ("resource", "text", "hint"),
}


def mask_event(event: Event) -> Event:
    """The event with every known secret in its free texts replaced by `***`."""
    texts = {name: getattr(event, name) for name in _FREE_TEXTS.get(type(event), ())}
    masked: dict[str, Any] = {name: mask(text) for name, text in texts.items()}
    return event if masked == texts else event._replace(**masked)


_ESCAPES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor movements
    r"|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?"  # OSC: window titles, links
    r"|\x1b[@-Z\\-_]?"
)


def printable(line: str) -> str:
    """One line without escape sequences: tabs are expanded, other unprintable characters are shown as `\\x07`.

    Programs' output and files' contents are untrusted: they must not move the cursor or hide what follows.
    """
    if line.isprintable():
        return line
    line = _ESCAPES.sub("", line).expandtabs(8)
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in line)


def safe_text(text: str) -> str:
    """A text of any number of lines, with secrets masked and each line printable."""
    return "\n".join(printable(line.removesuffix("\r")) for line in mask(text).split("\n"))


def printable_lines(text: str) -> list[str]:
    """The lines of a text, each printable; of a line redrawn with carriage returns, only the last version."""
    lines = text.replace("\r\n", "\n").strip("\n").split("\n")
    return [printable(line.rstrip("\r").rpartition("\r")[2]) for line in lines]


class LineAssembler:
    """Joins each host's output, which arrives in arbitrary pieces, into printable lines of at most about 64 Ki letters."""

    def __init__(self) -> None:
        self._unfinished: dict[str, str] = {}

    def add(self, host: str, text: str) -> list[str]:
        """Adds output and returns the lines that it completes, without empty ones."""
        whole, newline, rest = (self._unfinished.get(host, "") + text).rpartition("\n")
        if len(rest) > LONGEST_LINE:
            whole, newline, rest = whole + newline + rest, "\n", ""
        self._unfinished[host] = rest
        return [line for line in printable_lines(whole) if line] if newline else []

    def flush(self) -> list[tuple[str, str]]:
        """Returns host and text of each last line that has no newline."""
        rest = [(host, line) for host, text in self._unfinished.items() for line in printable_lines(text) if line]
        self._unfinished.clear()
        return rest


DiffLineKind = Literal["header", "hunk", "added", "removed", "context"]


def diff_lines(diff: str) -> list[tuple[DiffLineKind, str]]:
    """The lines of a unified diff, printable, each with its kind. A removed line such as `-- x` is not a header."""
    if not diff:
        return []
    lines = printable_lines(diff)
    kinds: list[tuple[DiffLineKind, str]] = []
    for index, line in enumerate(lines):
        follower = lines[index + 1] if index + 1 < len(lines) else ""
        kind: DiffLineKind = "context"
        after_header = bool(kinds) and kinds[-1][0] == "header" and kinds[-1][1].startswith("--- ")
        if (line.startswith("--- ") and follower.startswith("+++ ")) or (line.startswith("+++ ") and after_header):
            kind = "header"
        elif line.startswith("@@"):
            kind = "hunk"
        elif line.startswith("+"):
            kind = "added"
        elif line.startswith("-"):
            kind = "removed"
        kinds.append((kind, line))
    return kinds
