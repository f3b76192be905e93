"""What a report may show: no secret, and nothing that a terminal would obey."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from provision.engine.events import ChangeSeen, ErrorSeen, Event, Message, Output, Step, TaskDone
from provision.secret import mask

# The texts that programs, files and servers may have put a secret into. Names of hosts and tasks come from the
# inventory and are keys: masking them for the sake of a password like "docker" would break whoever reads them.
_FREE: dict[type, tuple[str, ...]] = {
    Step: ("text",),
    Output: ("text",),
    TaskDone: ("headline",),
    ChangeSeen: ("resource", "summary", "diff"),
    Message: ("text",),
    ErrorSeen: ("resource", "text", "hint"),
}


def safe(event: Event) -> Event:
    """The event with every known secret blanked out of its free texts."""
    texts = {name: getattr(event, name) for name in _FREE.get(type(event), ())}
    masked: dict[str, Any] = {name: mask(text) for name, text in texts.items()}
    return event if masked == texts else replace(event, **masked)


_ESCAPES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor
    r"|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?"  # OSC: titles, links
    r"|\x1b[@-Z\\-_]?"
)


def printable(line: str) -> str:
    """One line, as harmless text: no escape sequences; tabs widened; what cannot be printed shown as `\\x07`.

    Output of programs and contents of files are theirs: they must not move our cursor or hide what follows.
    """
    if line.isprintable():
        return line
    line = _ESCAPES.sub("", line).expandtabs(8)
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in line)


def printable_lines(text: str) -> list[str]:
    """The lines of a text, each harmless; of a line redrawn with carriage returns, what was left standing."""
    lines = text.replace("\r\n", "\n").strip("\n").split("\n")
    return [printable(line.rstrip("\r").rpartition("\r")[2]) for line in lines]
