"""Where a setting that the file lacks would be put by hand."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from provision.resources.gitlab_rb.locate import Places
from provision.resources.gitlab_rb.paths import Path
from provision.resources.gitlab_rb.syntax import parse_once

if TYPE_CHECKING:
    from provision.resources.gitlab_rb.syntax import Document

_BAR = re.compile(rb"^#{20,}[ \t]*\r?$", re.MULTILINE)
_COMMENT = rb"#{1,2}[ \t]?"
_COMMENTED_WORD = re.compile(rb"^[ \t]*(?P<sign>#{1,2})[ \t]?(?P<word>[a-z_]\w*)", re.MULTILINE)
_EXACT_KEY = rb"[ \t]*=(?![=~>])"
_EXACT_CALL = rb"(?:[ \t]+|\([ \t]*)(?:['\"\[{:%]|-?\d|true\b|false\b|nil\b)"  # else it is prose about the setting
_LONGEST_BLOCK = 200  # lines of one commented-out setting


class Section(NamedTuple):
    """A part of the file under a banner of `####`: its title's letters, and the bytes from `start` to `end`."""

    title: str
    start: int
    end: int


def position(document: Document, path: Path, found: Places) -> int:
    """The byte at which a new line for `path` goes: below its commented-out line, else at the end of its section,
    else below the last line of its kind, else at the end of the file. `found`: the file's places.
    """
    commented = _commented(document, path, _EXACT_KEY if len(path) > 1 else _EXACT_CALL)
    if commented:
        return document.after(_block_end(document, commented[0]))
    for length in range(len(path) - 1, 0, -1):
        hints = _commented(document, path[:length], rb"[ \t]*\[")
        live = [
            place.statement
            for place in found.near(path[:1])
            if place.kind == "set" and place.path[:length] == path[:length]
        ]
        section = (
            _most_hits(document, hints + [statement.start_byte for statement in live])
            or _titled(document, path[: length + 1])
            or _titled(document, path[:length])
        )
        if section:
            return _section_end(document, section)
        if live:
            return document.after(max(statement.end_byte for statement in live) - 1)
        if hints:
            return document.after(_block_end(document, hints[-1]))
    return document.end


@lru_cache(maxsize=2)
def sections(document: Document) -> list[Section]:
    """The banners: a bar, comment lines, a bar; each section ends where the next one's banner begins."""
    text = document.text
    bars = [found.start() for found in _BAR.finditer(text)]
    heads: list[tuple[str, int, int]] = []
    index = 0
    while index + 1 < len(bars):
        top, bottom = bars[index], bars[index + 1]
        between = text[document.line_end(top) : bottom].splitlines()
        if between and len(between) <= 15 and all(line.startswith(b"#") for line in between):
            heads.append((_letters(between[0].decode(errors="replace")), top, document.line_end(bottom)))
            index += 1
        index += 1
    ends = [top for _, top, _ in heads[1:]] + [document.end]
    return [Section(title, start, end) for (title, _, start), end in zip(heads, ends, strict=False)]


def _letters(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())


def _most_hits(document: Document, offsets: list[int]) -> Section | None:
    found = sections(document)
    starts = [section.start for section in found]
    at = [bisect_right(starts, offset) - 1 for offset in offsets]
    hits = Counter(index for index in at if index >= 0)
    return found[max(hits, key=lambda index: (hits[index], -index))] if hits else None


def _titled(document: Document, path: Path) -> Section | None:
    title = _letters("".join(path))
    return next((section for section in sections(document) if section.title == title), None)


def _section_end(document: Document, section: Section) -> int:
    body = document.text[section.start : section.end].rstrip()
    return document.after(section.start + len(body) - 1) if body else document.after(section.start - 1)


def _reference(path: Path) -> bytes:
    keys = (re.escape(key) for key in path[1:])
    spelled = re.escape(path[0]) + "".join(rf"\[\s*(?:'{key}'|\"{key}\"|:{key})\s*\]" for key in keys)
    return spelled.encode()


def _commented(document: Document, path: Path, behind: bytes) -> list[int]:
    """Where comment lines spell `path`, followed by `behind`."""
    pattern = re.compile(_COMMENT + _reference(path) + behind)
    return [at for at in _comments(document).get(path[0].encode(), []) if pattern.match(document.text, at)]


@lru_cache(maxsize=2)
def _comments(document: Document) -> dict[bytes, list[int]]:
    """Where top-level comment lines begin, by the word they begin with: not those in heredocs, conditions or block
    comments."""
    found: dict[bytes, list[int]] = {}
    starts = set(document.starts)
    for match in _COMMENTED_WORD.finditer(document.text):
        if match.start("sign") in starts:
            found.setdefault(match["word"], []).append(match.start("sign"))
    return found


def _block_end(document: Document, start: int) -> int:
    """The last byte of the commented-out statement that begins at `start`, which may be many lines long."""
    at, source = start, b""
    first = document.line_end(start)
    for _ in range(_LONGEST_BLOCK):
        end = document.line_end(at)
        line = document.text[at:end].lstrip()
        if not line.startswith(b"#"):
            break
        source += re.sub(rb"^#{1,2}[ \t]?", b"", line)
        if parse_once(source).error_line is None:
            return end - 1
        at = end
    return first - 1
