"""The planned edits of one gitlab.rb, as splices: replaced values, new lines, removed statements.

A new line is placed where someone who knows the file would write it.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

from provision.editing.document import Splice, same
from provision.editing.ruby.source import Pair, evaluate, pairs, parse_uncached
from provision.editing.ruby.values import Path, Plain, render, render_string, statement

if TYPE_CHECKING:
    from tree_sitter import Node

    from provision.editing.ruby.assignments import Assignment, Assignments
    from provision.editing.ruby.source import RubyDocument

Action: TypeAlias = Literal["create", "update", "delete"]
_BAR = re.compile(rb"^#{20,}[ \t]*\r?$", re.MULTILINE)
_COMMENT = rb"#{1,2}[ \t]?"
_COMMENTED_WORD = re.compile(rb"^[ \t]*(?P<sign>#{1,2})[ \t]?(?P<word>[a-z_]\w*)", re.MULTILINE)
_ASSIGNED = rb"[ \t]*=(?![=~>])"
_CALLED = rb"(?:[ \t]+|\([ \t]*)(?:['\"\[{:%]|-?\d|true\b|false\b|nil\b)"  # a word without an argument is prose
_LONGEST_BLOCK = 200  # lines of one commented-out setting
_LONGEST_BANNER = 15  # lines between its two bars


class Draft:
    """Collects edits of one document. `content()` is the result.

    notes    what the user should know about the file
    changes  the changed settings in order, each with its action
    """

    def __init__(self, document: RubyDocument) -> None:
        self.document = document
        self.notes: list[str] = []
        self.changes: dict[Path, Action] = {}
        self._splices: list[Splice] = []

    def content(self) -> bytes:
        """Return the new bytes."""
        return self.document.splice(self._splices)

    def note(self, text: str) -> None:
        """Add a note, once."""
        if text not in self.notes:
            self.notes.append(text)

    def add_line(self, path: Path, at: int, setting: Path, value: Plain) -> None:
        """Insert a line that sets `setting`, which is `path` or below it, at byte `at`, the start of a line."""
        document = self.document
        source = statement(setting, render(value, ascii_only=not document.utf8))
        first = not any(splice.start == splice.end == at for splice in self._splices)
        unended = at > document.start and document.content[at - 1 : at] != b"\n" and first
        self._splices.append(Splice(at, at, document.encode(("\n" if unended else "") + source + "\n")))
        self._record(path, "create")

    def replace_value(self, path: Path, node: Node, value: Plain) -> None:
        """Replace the literal or expression `node` by `value`. Inside a hash only the different keys are edited."""
        self._splices += _replace_value(self.document, node, value)
        self._record(path, "update")

    def replace_statement(self, path: Path, assignment: Assignment, value: Plain) -> None:
        """Rewrite the whole assignment, for `||=` and for calls with several arguments."""
        source = statement(assignment.path, render(value, ascii_only=not self.document.utf8))
        self._splices += _replace_node(self.document, assignment.node, source)
        self._record(path, "update")

    def remove_key(self, path: Path, node: Node, rest: dict[str, Plain]) -> None:
        """Reduce the hash literal `node` to `rest`: the last key of `path` is not in it."""
        self._splices += _replace_value(self.document, node, rest)
        self._record(path, "delete")

    def remove_statement(self, path: Path, assignment: Assignment) -> None:
        """Remove the statement of `assignment`, and its line when it holds nothing else but a comment."""
        self._record(path, "delete")
        document, node = self.document, assignment.statement
        start, end = document.line_start(node.start_byte), document.line_end(node.end_byte)
        behind = document.content[node.end_byte : end].strip().removeprefix(b";").lstrip()
        if not document.content[start : node.start_byte].strip() and (not behind or behind.startswith(b"#")):
            self._splices.append(Splice(start, document.next_line(node.end_byte - 1)))
            return
        after, before = node.next_sibling, node.prev_sibling
        start, end = node.start_byte, node.end_byte
        if after is not None and after.type == ";":
            end = after.end_byte
            end += len(document.content[end:]) - len(document.content[end:].lstrip(b" \t"))
        elif before is not None and before.type == ";":
            start = before.start_byte
        self._splices += [Splice(start, end), *_remove_heredoc_bodies(document, node)]

    def _record(self, path: Path, action: Action) -> None:
        self.changes[path] = action if self.changes.get(path, action) == action else "update"


def _replace_node(document: RubyDocument, node: Node, source: str) -> list[Splice]:
    """Replace `node` by Ruby source; the bodies of heredocs that began in it are removed."""
    return [
        Splice(node.start_byte, node.end_byte, document.encode(source)),
        *_remove_heredoc_bodies(document, node),
    ]


def _remove_heredoc_bodies(document: RubyDocument, node: Node) -> list[Splice]:
    """Remove the heredoc bodies whose `<<MARK` is in `node` and that follow it."""
    if b"<<" not in document.source(node):
        return []
    return [
        Splice(body.start_byte, body.end_byte)
        for start, body in document.heredocs.items()
        if node.start_byte <= start < node.end_byte <= body.start_byte
    ]


def _replace_value(document: RubyDocument, node: Node, wanted: Plain, *, inline: bool = False) -> list[Splice]:
    if same(evaluate(document, node), wanted):
        return []
    if node.type == "hash" and isinstance(wanted, dict):
        splices = _edit_hash(document, node, wanted)
        if splices is not None:
            return splices
    indent = len(document.indentation(node.start_byte))
    return _replace_node(document, node, render(wanted, indent=indent, inline=inline, ascii_only=not document.utf8))


def _edit_hash(document: RubyDocument, node: Node, wanted: dict[str, Plain]) -> list[Splice] | None:
    """Edit a hash literal pair by pair. None when the whole literal must be rewritten."""
    found = pairs(document, node)
    if not found or len({pair.key for pair in found}) != len(found) or b"<<" in document.source(node):
        return None
    kept = [pair for pair in found if pair.key in wanted]
    if not kept:
        return None
    one_line = node.start_point.row == node.end_point.row
    splices = [
        splice
        for pair in kept
        for splice in _replace_value(document, pair.value, wanted[str(pair.key)], inline=one_line)
    ]
    new = {key: value for key, value in wanted.items() if key not in {pair.key for pair in found}}
    removed = [pair for pair in found if pair.key not in wanted]
    if not new and not removed:
        return splices
    lines = [_own_lines(document, pair) for pair in found]
    if None in lines or document.line_start(node.end_byte) == document.line_start(found[-1].node.end_byte):
        if removed or not one_line:
            return None
        source = "".join(f", {_pair(document, key, value, 0, inline=True)}" for key, value in new.items())
        return [*splices, Splice(found[-1].node.end_byte, found[-1].node.end_byte, document.encode(source))]
    splices += [Splice(*span) for pair, span in zip(found, lines, strict=True) if span and pair in removed]
    return splices + _add_pairs(document, found, kept[-1], new)


def _add_pairs(document: RubyDocument, found: list[Pair], last_kept: Pair, new: dict[str, Plain]) -> list[Splice]:
    """Insert new pairs below the last one that is kept, and correct the comma after that one."""
    end, last = last_kept.node.end_byte, found[-1].node
    after = last_kept.node.next_sibling
    comma = after if after is not None and after.type == "," else None
    trailing = last.next_sibling is not None and last.next_sibling.type == ","
    splices = []
    if new and comma is None:
        splices.append(Splice(end, end, b","))
    if not new and comma is not None and not trailing and last_kept is not found[-1]:
        splices.append(Splice(comma.start_byte, comma.end_byte))
    if new:
        indent = len(document.indentation(last_kept.node.start_byte))
        lines = [" " * indent + _pair(document, key, value, indent) for key, value in new.items()]
        at = document.line_end(end)
        splices.append(Splice(at, at, document.encode(",\n".join(lines) + ("," if trailing else "") + "\n")))
    return splices


def _pair(document: RubyDocument, key: str, value: Plain, indent: int, *, inline: bool = False) -> str:
    ascii_only = not document.utf8
    rendered = render(value, indent=indent, inline=inline, ascii_only=ascii_only)
    return f"{render_string(key, ascii_only=ascii_only)} => {rendered}"


def _own_lines(document: RubyDocument, pair: Pair) -> tuple[int, int] | None:
    """The whole lines of a pair when only its comma and a comment are on them; else None."""
    start, end = document.line_start(pair.node.start_byte), document.line_end(pair.node.end_byte)
    before, behind = document.content[start : pair.node.start_byte], document.content[pair.node.end_byte : end]
    rest = behind.strip().removeprefix(b",").lstrip()
    return (start, end) if not before.strip() and (not rest or rest.startswith(b"#")) else None


class Section(NamedTuple):
    """A part of the file under a banner of `####`: the letters and digits of its title, and its bytes `start` to `end`."""

    title: str
    start: int
    end: int


def insertion_point(document: RubyDocument, path: Path, found: Assignments) -> int:
    """Return the offset for a new line that sets `path`; `found` are the assignments of the file.

    The line is placed below the commented-out line of the setting; else at the end of the setting's section; else below the last
    assignment under the same name; else at the end of the file.
    """
    commented = _commented(document, path, _ASSIGNED if len(path) > 1 else _CALLED)
    if commented:
        return document.next_line(_block_end(document, commented[0]))
    for length in range(len(path) - 1, 0, -1):
        hints = _commented(document, path[:length], rb"[ \t]*\[")
        live = [
            one.statement
            for one in found.affecting(path[:1])
            if one.kind == "set" and one.path[:length] == path[:length]
        ]
        section = (
            _section_with_most(document, hints + [statement.start_byte for statement in live])
            or _section_titled(document, path[: length + 1])
            or _section_titled(document, path[:length])
        )
        if section:
            return _section_end(document, section)
        if live:
            return document.next_line(max(statement.end_byte for statement in live) - 1)
        if hints:
            return document.next_line(_block_end(document, hints[-1]))
    return document.end


@lru_cache(maxsize=2)
def _sections(document: RubyDocument) -> list[Section]:
    """The sections. A banner is a bar, comment lines and a bar; a section ends where the next banner begins."""
    content = document.content
    bars = [found.start() for found in _BAR.finditer(content)]
    banners: list[tuple[str, int, int]] = []
    index = 0
    while index + 1 < len(bars):
        top, bottom = bars[index], bars[index + 1]
        between = content[document.line_end(top) : bottom].splitlines()
        if between and len(between) <= _LONGEST_BANNER and all(line.startswith(b"#") for line in between):
            banners.append((_letters(between[0].decode(errors="replace")), top, document.line_end(bottom)))
            index += 1
        index += 1
    ends = [top for _, top, _ in banners[1:]] + [document.end]
    return [Section(title, start, end) for (title, _, start), end in zip(banners, ends, strict=False)]


def _letters(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())


def _section_with_most(document: RubyDocument, offsets: list[int]) -> Section | None:
    """The section that holds most of the offsets."""
    found = _sections(document)
    starts = [section.start for section in found]
    at = [bisect_right(starts, offset) - 1 for offset in offsets]
    hits = Counter(index for index in at if index >= 0)
    return found[max(hits, key=lambda index: (hits[index], -index))] if hits else None


def _section_titled(document: RubyDocument, path: Path) -> Section | None:
    """The section whose title is the path: "Registry NGINX" for ("registry", "nginx")."""
    title = _letters("".join(path))
    return next((section for section in _sections(document) if section.title == title), None)


def _section_end(document: RubyDocument, section: Section) -> int:
    body = document.content[section.start : section.end].rstrip()
    return document.next_line(section.start + len(body) - 1) if body else document.next_line(section.start - 1)


def _commented(document: RubyDocument, path: Path, behind: bytes) -> list[int]:
    """The offsets of comment lines that name `path`, followed by `behind`."""
    keys = (re.escape(key) for key in path[1:])
    name = re.escape(path[0]) + "".join(rf"\[\s*(?:'{key}'|\"{key}\"|:{key})\s*\]" for key in keys)
    pattern = re.compile(_COMMENT + name.encode() + behind)
    return [at for at in _comments(document).get(path[0].encode(), []) if pattern.match(document.content, at)]


@lru_cache(maxsize=2)
def _comments(document: RubyDocument) -> dict[bytes, list[int]]:
    """The offsets of top-level comment lines by their first word; comments in heredocs and conditions are left out."""
    found: dict[bytes, list[int]] = {}
    starts = set(document.starts)
    for match in _COMMENTED_WORD.finditer(document.content):
        if match.start("sign") in starts:
            found.setdefault(match["word"], []).append(match.start("sign"))
    return found


def _block_end(document: RubyDocument, start: int) -> int:
    """The last byte of the commented-out statement that begins at `start`; it may be many lines long."""
    at, source = start, b""
    first = document.line_end(start)
    for _ in range(_LONGEST_BLOCK):
        end = document.line_end(at)
        line = document.content[at:end].lstrip()
        if not line.startswith(b"#"):
            break
        source += re.sub(rb"^#{1,2}[ \t]?", b"", line)
        if parse_uncached(source).error_line is None:
            return end - 1
        at = end
    return first - 1
