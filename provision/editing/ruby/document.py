"""Replacements of byte ranges, and how they join into the new text.

Edits gathered for one text: splices, what each setting's statements were and become, and notes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from provision.editing.ruby.syntax import Pair, Path, evaluate, pairs, spell
from provision.editing.ruby.values import Plain, render, render_string, same

if TYPE_CHECKING:
    from tree_sitter import Node

    from provision.editing.ruby.locate import Place
    from provision.editing.ruby.syntax import Document


@dataclass(frozen=True)
class Splice:
    """Bytes `start` to `end` become `new`."""

    start: int
    end: int
    new: bytes = field(repr=False)


def join(text: bytes, splices: Iterable[Splice], start: int = 0, end: int | None = None) -> bytes:
    """`text` from `start` to `end` with the splices inside it done; those at one place keep their order."""
    end = len(text) if end is None else end
    parts, at = [], start
    for splice in sorted(splices, key=lambda splice: (splice.start, splice.end)):
        if splice.start < at or splice.end > end:
            raise AssertionError("edits overlap")
        parts += [text[at : splice.start], splice.new]
        at = splice.end
    return b"".join([*parts, text[at:end]])


def replace(document: Document, node: Node, new: str) -> list[Splice]:
    """`node` becomes the Ruby source `new`; bodies of heredocs that began in it go with it."""
    return [Splice(node.start_byte, node.end_byte, encoded(document, new)), *bodies(document, node)]


def bodies(document: Document, node: Node) -> list[Splice]:
    """Removes the heredoc bodies whose `<<MARK` stands in `node` and that lie outside of it."""
    if b"<<" not in document.source(node):
        return []
    return [
        Splice(body.start_byte, body.end_byte, b"")
        for start, body in document.heredocs.items()
        if node.start_byte <= start < node.end_byte <= body.start_byte
    ]


def encoded(document: Document, source: str) -> bytes:
    """Ruby source with the file's line ending."""
    return source.replace("\n", document.newline).encode()


def indent_of(document: Document, offset: int) -> int:
    """How many columns of white space begin the line of `offset`."""
    line = document.text[document.line_start(offset) : offset]
    return len(line) - len(line.lstrip())


def rewrite(document: Document, node: Node, wanted: Plain, *, inline: bool = False) -> list[Splice]:
    """What makes the literal or expression `node` evaluate to `wanted`, inside hashes with the fewest bytes."""
    if same(evaluate(document, node), wanted):
        return []
    if node.type == "hash" and isinstance(wanted, dict):
        splices = _rewrite_hash(document, node, wanted)
        if splices is not None:
            return splices
    indent = indent_of(document, node.start_byte)
    return replace(document, node, render(wanted, indent=indent, inline=inline, ascii_only=not document.utf8))


def _rewrite_hash(document: Document, node: Node, wanted: dict[str, Plain]) -> list[Splice] | None:
    """Pair by pair; None when the hash is better written anew."""
    found = pairs(document, node)
    if not found or len({pair.key for pair in found}) != len(found) or b"<<" in document.source(node):
        return None
    kept = [pair for pair in found if pair.key in wanted]
    if not kept:
        return None
    one_line = node.start_point.row == node.end_point.row
    splices = [
        splice for pair in kept for splice in rewrite(document, pair.value, wanted[str(pair.key)], inline=one_line)
    ]
    new = {key: value for key, value in wanted.items() if key not in {pair.key for pair in found}}
    gone = [pair for pair in found if pair.key not in wanted]
    if not new and not gone:
        return splices
    lines = [_lines(document, pair) for pair in found]
    if None in lines or document.line_start(node.end_byte) == document.line_start(found[-1].node.end_byte):
        if gone or not one_line:
            return None
        source = "".join(f", {_pair(document, key, value, 0, inline=True)}" for key, value in new.items())
        return [*splices, Splice(found[-1].node.end_byte, found[-1].node.end_byte, encoded(document, source))]
    splices += [Splice(*span, b"") for pair, span in zip(found, lines, strict=True) if span and pair in gone]
    return splices + _add_lines(document, found, kept[-1], new)


def _add_lines(document: Document, found: list[Pair], anchor: Pair, new: dict[str, Plain]) -> list[Splice]:
    """New pairs below `anchor`, the last one kept, and its comma put right."""
    end, last = anchor.node.end_byte, found[-1].node
    after = anchor.node.next_sibling
    comma = after if after is not None and after.type == "," else None
    trailing = last.next_sibling is not None and last.next_sibling.type == ","
    splices = []
    if new and comma is None:
        splices.append(Splice(end, end, b","))
    if not new and comma is not None and not trailing and anchor is not found[-1]:
        splices.append(Splice(comma.start_byte, comma.end_byte, b""))
    if new:
        indent = indent_of(document, anchor.node.start_byte)
        lines = [" " * indent + _pair(document, key, value, indent) for key, value in new.items()]
        at = document.line_end(end)
        splices.append(Splice(at, at, encoded(document, ",\n".join(lines) + ("," if trailing else "") + "\n")))
    return splices


def _pair(document: Document, key: str, value: Plain, indent: int, *, inline: bool = False) -> str:
    ascii_only = not document.utf8
    rendered = render(value, indent=indent, inline=inline, ascii_only=ascii_only)
    return f"{render_string(key, ascii_only=ascii_only)} => {rendered}"


def _lines(document: Document, pair: Pair) -> tuple[int, int] | None:
    """The whole lines of a pair that shares them with nothing but its comma and a comment; else None."""
    start, end = document.line_start(pair.node.start_byte), document.line_end(pair.node.end_byte)
    before, behind = document.text[start : pair.node.start_byte], document.text[pair.node.end_byte : end]
    rest = behind.strip().removeprefix(b",").lstrip()
    return (start, end) if not before.strip() and (not rest or rest.startswith(b"#")) else None


class Plan:
    """Collects; `text()` is the outcome."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.splices: list[Splice] = []
        self.notes: list[str] = []
        self._touched: dict[Path, dict[int, Node]] = {}
        self._added: dict[Path, list[str]] = {}

    def text(self) -> bytes:
        return join(self.document.text, self.splices)

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def add(self, path: Path, at: int, setting: Path, value: Plain) -> None:
        """A new line at byte `at`, a line's start, that sets `setting`, for the sake of the wanted `path`."""
        source = spell(setting, render(value, ascii_only=not self.document.utf8))
        first = not any(splice.start == splice.end == at for splice in self.splices)
        broken = at > self.document.start and self.document.text[at - 1 : at] != b"\n" and first
        self.splices.append(Splice(at, at, encoded(self.document, ("\n" if broken else "") + source + "\n")))
        self._added.setdefault(path, []).append(source)

    def rewrite(self, path: Path, place: Place, node: Node, value: Plain) -> None:
        """The value node `node` inside `place` becomes `value`."""
        self._touch(path, place)
        self.splices += rewrite(self.document, node, value)

    def respell(self, path: Path, place: Place, value: Plain) -> None:
        """The whole statement of `place` is written anew: `||=`, several arguments."""
        self._touch(path, place)
        source = spell(place.path, render(value, ascii_only=not self.document.utf8))
        node = place.node
        self.splices.append(Splice(node.start_byte, node.end_byte, encoded(self.document, source)))
        self.splices += bodies(self.document, node)

    def drop(self, path: Path, place: Place) -> None:
        """The statement of `place` goes, with its line when it has it for itself, a comment behind it included."""
        self._touch(path, place)
        document, node = self.document, place.statement
        start, end = document.line_start(node.start_byte), document.line_end(node.end_byte)
        behind = document.text[node.end_byte : end].strip().removeprefix(b";").lstrip()
        if not document.text[start : node.start_byte].strip() and (not behind or behind.startswith(b"#")):
            self.splices.append(Splice(start, document.after(node.end_byte - 1), b""))
            return
        after, before = node.next_sibling, node.prev_sibling
        start, end = node.start_byte, node.end_byte
        if after is not None and after.type == ";":
            end = after.end_byte
            end += len(document.text[end:]) - len(document.text[end:].lstrip(b" \t"))
        elif before is not None and before.type == ";":
            start = before.start_byte
        self.splices += [Splice(start, end, b""), *bodies(document, node)]

    def _touch(self, path: Path, place: Place) -> None:
        self._touched.setdefault(path, {})[place.statement.start_byte] = place.statement

    def sources(self) -> list[tuple[Path, str | None, str | None]]:
        """Per setting, in order: its touched statements before, and the same with new ones after."""
        told: list[tuple[Path, str | None, str | None]] = []
        for path in dict.fromkeys([*self._touched, *self._added]):
            nodes = list(self._touched.get(path, {}).values())
            old = [self.document.source(node).decode(errors="replace") for node in nodes]
            new = [self._after(node) for node in nodes] + self._added.get(path, [])
            told.append((path, "\n".join(old) or None, "\n".join(text for text in new if text) or None))
        return told

    def _after(self, node: Node) -> str:
        start, end = node.start_byte, node.end_byte
        inside = [splice for splice in self.splices if splice.start < end and splice.end > start]
        if any(splice.start <= start and splice.end >= end and not splice.new for splice in inside):
            return ""
        held = [
            s for s in self.splices if start <= s.start and s.end <= end and (s.start < s.end or start < s.start < end)
        ]
        return join(self.document.text, held, start, end).decode(errors="replace")
