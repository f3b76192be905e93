"""The kernel of every edit: a document, replacements of byte ranges, and the check that reads the result back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

from provision.errors import Refused

BOM: Final = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Splice:
    """A replacement: the bytes from `start` up to `end` become `new`. With `start == end` it is an insertion."""

    start: int
    end: int
    new: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, eq=False)
class Document:
    """The content of a file that is edited, with its line endings and an optional UTF-8 byte order mark."""

    content: bytes = field(repr=False)

    @cached_property
    def start(self) -> int:
        """The offset of the first line, after a byte order mark."""
        return len(BOM) if self.content.startswith(BOM) else 0

    @cached_property
    def newline(self) -> str:
        """The line ending that most lines have; it is used for new lines."""
        return "\r\n" if self.content.count(b"\r\n") * 2 > self.content.count(b"\n") else "\n"

    def encode(self, text: str) -> bytes:
        """Return new text in UTF-8 with the line ending of the document."""
        return text.replace("\n", self.newline).encode()

    def line(self, offset: int) -> int:
        """The number of the line that holds byte `offset`, from 1."""
        return self.content.count(b"\n", 0, offset) + 1

    def line_start(self, offset: int) -> int:
        """The offset at which the line of `offset` begins."""
        return max(self.content.rfind(b"\n", 0, offset) + 1, self.start)

    def line_end(self, offset: int) -> int:
        """The offset after the newline that ends the line of `offset`, or the end of the content."""
        return self.content.find(b"\n", offset) + 1 or len(self.content)

    def indentation(self, offset: int) -> str:
        """The spaces and tabs at the beginning of the line of `offset`, up to `offset`."""
        line = self.content[self.line_start(offset) : self.line_end(offset)]
        return line[: len(line) - len(line.lstrip(b" \t"))].decode()

    def splice(self, splices: Iterable[Splice], start: int = 0, end: int | None = None) -> bytes:
        """Return the content, or its part from `start` up to `end`, with all splices applied.

        Several insertions at one offset keep their order. Raises AssertionError when splices overlap, which is an error
        of the caller.
        """
        end = len(self.content) if end is None else end
        parts, at = [], start
        for one in sorted(splices, key=lambda one: (one.start, one.end)):
            if one.start < at or one.end > end:
                raise AssertionError("splices overlap")
            parts += [self.content[at : one.start], one.new]
            at = one.end
        return b"".join([*parts, self.content[at:end]])


def same(one: Any, other: Any) -> bool:
    """Return whether two values are equal in value and type: 1, 1.0 and true differ; the order of keys does not count.

    NaN equals NaN. `NotLiteral` equals nothing, by its own `==`.
    """
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(item, other[key]) for key, item in one.items())
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return repr(one) == repr(other) if isinstance(one, float) else bool(one == other)


def check_read_back(
    name: str, content: bytes, read: Callable[[bytes], Mapping[Any, Any]], planned: Mapping[Any, Any], hint: str
) -> bytes:
    """Return `content` when `read` finds exactly the `planned` data in it.

    name     what is edited, for the message: "config.toml"
    read     an independent parser; it raises Refused for content that is not valid
    planned  plain data: top-level keys or setting names, and their values

    Raises Refused otherwise: it names the first key that differs, with `hint` as what to do.
    """
    try:
        found = read(content)
    except Refused as error:
        raise Refused(f"{name} cannot be edited safely: the result is not valid: {error.text}", hint=hint) from None
    for key in dict.fromkeys([*planned, *found]):
        if key not in found or key not in planned or not same(found[key], planned[key]):
            raise Refused(f"{name} cannot be edited safely: {key} does not read back as planned", hint=hint)
    return content
