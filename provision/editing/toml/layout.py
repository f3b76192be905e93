"""A TOML text as sections and statements, each with its own bytes: joined again they are the text.

tomllib judges where a statement ends: a line belongs to the statement before it until that one parses.
The text given must be valid TOML (the caller has parsed it).
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from provision.editing.toml.model import Path, single_path


@dataclass
class Trivia:
    """A blank or comment line."""

    text: str

    @property
    def blank(self) -> bool:
        """Nothing stands on it."""
        return not self.text.strip(" \t\r\n")


@dataclass
class Pair:
    """A statement `keys = value`, over one line or several."""

    text: str
    keys: tuple[str, ...]
    value: Any


Line = Trivia | Pair


@dataclass
class Section:
    """A header line and what stands under it. The first section of a text has no header.

    path   from the root, with the positions of array elements; () for the root
    array  `[[…]]`
    lead   comment lines that touch the header from above: they belong to it
    """

    header: str
    path: Path
    array: bool = False
    lead: list[Trivia] = field(default_factory=list)
    body: list[Line] = field(default_factory=list)

    @property
    def indent(self) -> str:
        """The white space before the header."""
        return indent_of(self.header)

    @property
    def pairs(self) -> list[Pair]:
        """The statements alone."""
        return [line for line in self.body if isinstance(line, Pair)]

    def cut_blank_tail(self) -> list[Line]:
        """Takes the blank lines off the end, and returns them."""
        keep = len(self.body)
        while keep and isinstance(line := self.body[keep - 1], Trivia) and line.blank:
            keep -= 1
        tail = self.body[keep:]
        del self.body[keep:]
        return tail


@dataclass
class Layout:
    """The whole text. newline is what new lines end in."""

    sections: list[Section]
    newline: str = "\n"

    @property
    def text(self) -> str:
        """The bytes, joined again."""
        return "".join(
            "".join(line.text for line in section.lead) + section.header + "".join(line.text for line in section.body)
            for section in self.sections
        )

    def under(self, path: Path) -> list[int]:
        """The positions of the sections at `path` and below it, the root's own section left out."""
        return [
            number
            for number, section in enumerate(self.sections)
            if number and section.path[: len(path)] == path and len(section.path) >= len(path)
        ]

    def at(self, path: Path) -> Section | None:
        """The section whose header (or, for (), whose place) is `path`."""
        return next((section for section in self.sections if section.path == path), None)

    def pairs(self) -> Iterator[tuple[Section, Pair, Path]]:
        """All statements with their section and full path."""
        for section in self.sections:
            for pair in section.pairs:
                yield section, pair, section.path + pair.keys


def parse(text: str) -> Layout:
    """The layout of a valid TOML text."""
    root = Section("", ())
    layout = Layout([root], "\r\n" if text.partition("\n")[0].endswith("\r") else "\n")
    elements: dict[Path, int] = {}  # array of tables -> position of its last element
    lines = _lines(text)
    for line in lines:
        section = layout.sections[-1]
        bare = line.strip(" \t\r\n")
        if not bare or bare.startswith("#"):
            section.body.append(Trivia(line))
        elif bare.startswith("["):
            layout.sections.append(_section(line, elements, section))
        else:
            section.body.append(_pair(line, lines))
    return layout


def indent_of(text: str) -> str:
    """The white space at the start of a line."""
    return text[: len(text) - len(text.lstrip(" \t"))]


def _lines(text: str) -> Iterator[str]:
    """Lines by newline alone: str.splitlines would also break at characters that TOML strings may hold."""
    start = 0
    while start < len(text):
        end = text.find("\n", start) + 1 or len(text)
        yield text[start:end]
        start = end


def _pair(line: str, more: Iterator[str]) -> Pair:
    while True:
        try:
            keys, value = _statement(line)
        except tomllib.TOMLDecodeError:
            line += next(more)  # an array or a long string goes on
        else:
            return Pair(line, keys, value)


def _statement(text: str) -> tuple[tuple[str, ...], Any]:
    """The keys and value of one statement; the value may itself be a table, so the key's end is looked for."""
    value: Any = tomllib.loads(text)
    end = text.find("=")
    while True:
        try:
            keys, _ = single_path(tomllib.loads(f"{text[:end]}=0"))
            break
        except tomllib.TOMLDecodeError:
            end = text.index("=", end + 1)  # that one stood inside a quoted key
    for key in keys:
        value = value[key]
    return keys, value


def _section(line: str, elements: dict[Path, int], before: Section) -> Section:
    keys, end = single_path(tomllib.loads(line))
    array = isinstance(end, list)
    path: Path = ()
    for key in keys[:-1]:
        path += (key,)
        if path in elements:
            path += (elements[path],)
    path += (keys[-1],)
    if array:
        elements[path] = elements.get(path, -1) + 1
        path += (elements[path],)
    lead: list[Trivia] = []
    while before.body and isinstance(last := before.body[-1], Trivia) and not last.blank:
        before.body.pop()
        lead.insert(0, last)
    return Section(line, path, array, lead)
