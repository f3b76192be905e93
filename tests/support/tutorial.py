"""The tutorial in parts: the files that it shows and the commands that the reader types."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
_BLOCK = re.compile(r"^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_NAMED = re.compile(r"(?:#|//|<!--) (?P<path>[\w./-]+)(?P<added>, added)?(?: -->)?\n")


@dataclass(frozen=True)
class Step:
    """A file to write (`path`; `added`: appended to its content), or commands to type."""

    text: str
    path: str = ""
    added: bool = False

    @property
    def commands(self) -> list[str]:
        """The commands, one a line."""
        return [] if self.path else self.text.splitlines()


def steps(name: str) -> list[Step]:
    """All steps of a page in order. A block that is not shell names its file in its first line."""
    found = []
    for block in _BLOCK.finditer((DOCS / name).read_text("utf-8")):
        if block["language"] == "sh":
            found.append(Step(block["text"]))
            continue
        named = _NAMED.match(block["text"])
        assert named, f"{name}: a block names no file: {block['text'][:60]}"
        found.append(Step(block["text"], named["path"], named["added"] is not None))
    return found
