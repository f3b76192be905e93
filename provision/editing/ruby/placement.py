"""The position of a new setting in gitlab.rb: where someone who knows the file would write it."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from provision.editing.ruby.source import Path, parse_uncached

if TYPE_CHECKING:
    from provision.editing.ruby.assignments import Assignments
    from provision.editing.ruby.source import RubyDocument

_BAR = re.compile(rb"^#{20,}[ \t]*\r?$", re.MULTILINE)
_COMMENT = rb"#{1,2}[ \t]?"
_COMMENTED_WORD = re.compile(rb"^[ \t]*(?P<sign>#{1,2})[ \t]?(?P<word>[a-z_]\w*)", re.MULTILINE)
_ASSIGNED = rb"[ \t]*=(?![=~>])"
_CALLED = rb"(?:[ \t]+|\([ \t]*)(?:['\"\[{:%]|-?\d|true\b|false\b|nil\b)"  # a word without an argument is prose
_LONGEST_BLOCK = 200  # lines of one commented-out setting
_LONGEST_BANNER = 15  # lines between its two bars


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
