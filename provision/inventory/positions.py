"""On which line a key stands: asked only when something is wrong, so that reading stays fast.

The text is known to be valid TOML (tomllib took it), so the scanner only has to follow it.
"""

from __future__ import annotations

import re
import tomllib

from provision.inventory.tree import KeyPath

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_STRING = re.compile(
    r'"""(?:[^\\]|\\.)*?"""(?!")' r"|'''.*?'''(?!')" r'|"(?:[^"\\\n]|\\.)*"' r"|'[^'\n]*'",
    re.DOTALL,
)
_SCALAR = re.compile(r"[^,\]}\n#]+")


def lines_of(text: str) -> dict[KeyPath, int]:
    """Every key path of a valid TOML text with the line (from 1) on which it first stands."""
    return _Scanner(text).scan()


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.counted_to, self.counted_line = 0, 1
        self.found: dict[KeyPath, int] = {}
        self.arrays: dict[KeyPath, int] = {}  # arrays of tables, and how many of their tables were seen

    def scan(self) -> dict[KeyPath, int]:
        table: KeyPath = ()
        self.skip()
        while self.at < len(self.text):
            if self.text.startswith("[[", self.at):
                table = self.header("[[", "]]")
            elif self.text[self.at] == "[":
                table = self.header("[", "]")
            else:
                self.pair(table)
            self.skip()
        return self.found

    def header(self, opening: str, closing: str) -> KeyPath:
        line = self.line()
        self.at += len(opening)
        parts = self.key()
        self.at = self.text.index(closing, self.at) + len(closing)
        path: KeyPath = ()
        for place, part in enumerate(parts):
            path += (part,)
            self.found.setdefault(path, line)
            last = place == len(parts) - 1
            if last and opening == "[[":
                self.arrays[path] = self.arrays.get(path, 0) + 1
            if path in self.arrays:
                path += (self.arrays[path] - 1,)
                self.found.setdefault(path, line)
        return path

    def pair(self, table: KeyPath) -> None:
        line = self.line()
        path = table
        for part in self.key():
            path += (part,)
            self.found.setdefault(path, line)
        self.at = self.text.index("=", self.at) + 1
        self.skip()
        self.value(path)

    def key(self) -> list[str]:
        parts = []
        while True:
            self.skip()
            if quoted := _STRING.match(self.text, self.at):
                parts.append(str(tomllib.loads(f"k={quoted[0]}")["k"]))
                self.at = quoted.end()
            elif bare := _BARE.match(self.text, self.at):
                parts.append(bare[0])
                self.at = bare.end()
            self.skip()
            if not self.text.startswith(".", self.at):
                return parts
            self.at += 1

    def value(self, path: KeyPath) -> None:
        start = self.text[self.at : self.at + 1]
        if start == "[":
            self.members(path, "]")
        elif start == "{":
            self.members(path, "}")
        elif token := _STRING.match(self.text, self.at) or _SCALAR.match(self.text, self.at):
            self.at = token.end()

    def members(self, path: KeyPath, closing: str) -> None:
        self.at += 1
        self.skip()
        place = 0
        while self.at < len(self.text) and self.text[self.at] != closing:
            if closing == "]":
                self.found.setdefault((*path, place), self.line())
                self.value((*path, place))
            else:
                self.pair(path)
            self.skip()
            self.at += self.text.startswith(",", self.at)
            self.skip()
            place += 1
        self.at += 1

    def skip(self) -> None:
        blank = _BLANK.match(self.text, self.at)
        self.at = blank.end() if blank else self.at

    def line(self) -> int:
        """Of where the scanner is. It only moves on, so each stretch is counted once."""
        self.counted_line += self.text.count("\n", self.counted_to, self.at)
        self.counted_to = self.at
        return self.counted_line
