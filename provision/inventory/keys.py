"""Key paths: where a value stands in a TOML file, as a tuple and as people write it."""

from __future__ import annotations

import re

KeyPath = tuple[str | int, ...]


def dotted(path: KeyPath) -> str:
    """`("hosts", "runner-[01:20]", "groups", 0)` as `hosts."runner-[01:20]".groups[0]`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += ("." if text else "") + (part if re.fullmatch(r"[A-Za-z0-9_-]+", part) else f'"{part}"')
    return text


def in_table(path: KeyPath) -> KeyPath:
    """The path inside the settings: without a leading `hosts.NAME` or `groups.NAME`."""
    return path[2:] if path and path[0] in ("hosts", "groups") else path
