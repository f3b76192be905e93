"""Where a setting that the file lacks would be put by hand.

Bringing one setting to its wanted value with the fewest bytes changed.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from provision.editing.ruby.document import Plan
from provision.editing.ruby.locate import Place, Places, apply, fold, put
from provision.editing.ruby.syntax import Path, covers, name, pairs, parse_once
from provision.editing.ruby.values import MISSING, NotLiteral, Plain, lookup, same
from provision.errors import Refused

if TYPE_CHECKING:
    from tree_sitter import Node

    from provision.editing.ruby.syntax import Document


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


def settle(plan: Plan, path: Path, wanted: Plain, found: Places) -> None:
    """Adds to `plan` what gives `path` the value `wanted`; nothing when it has it. `found`: places under its root.

    Raises Refused where an assignment that counts stands in a condition, or the value is changed in place.
    """
    near = [place for place in found.near(path) if place.kind in ("set", "change")]
    covering = [
        index
        for index, place in enumerate(near)
        if covers(place.path, path) and place.kind == "set" and place.how != "conditional"
    ]
    base = near[covering[-1]] if covering else None
    for index in covering[:-1]:
        plan.note(
            f"line {near[index].line} sets {name(path)} too; line {near[covering[-1]].line} comes later and counts"
        )
    if same(fold(found.near(path), path), wanted):
        return
    after = near[covering[-1] + 1 :] if covering else near
    _refuse(path, wanted, after, found.near(path[:1]))
    parts = [place for place in after if place.how != "conditional"]
    kept, value = _parts(plan, path, wanted, base, parts)
    if same(value, wanted):
        return
    if base is not None:
        _base(plan, path, wanted, base)
    elif kept:
        _complete(plan, path, wanted, value, kept[-1])
    else:
        at = plan.document.after(parts[-1].statement.end_byte - 1) if parts else position(plan.document, path, found)
        plan.add(path, at, path, wanted)


def _refuse(path: Path, wanted: Plain, after: list[Place], found: list[Place]) -> None:
    """Stops at what would overrule us, or be overruled against its author's intent."""
    for place in after:
        if place.kind == "change":
            raise Refused(
                f"gitlab.rb, line {place.line}: {name(place.path)} is changed in place there, which {name(path)} cannot "
                "be reconciled with",
                hint="write the value as one plain assignment, or take the line out",
            )
        if place.how == "conditional" and not _agrees(place, path, wanted):
            raise Refused(
                f"gitlab.rb, line {place.line}: {name(place.path)} is set inside {place.context}, so that it depends on "
                f"more than this file whether {name(path)} is as wanted",
                hint="move the assignment out of it or take it out, or leave this setting out of the inventory",
            )
    for place in found:
        if place.kind == "variable" and place.path[0] == path[0] and (len(path) > 1 or isinstance(wanted, list)):
            raise Refused(
                f"gitlab.rb, line {place.line}: `{path[0]} = …` makes {path[0]} a local variable, and what follows no "
                "longer reaches GitLab",
                hint="take that line out",
            )


def _agrees(place: Place, path: Path, wanted: Plain) -> bool:
    if covers(place.path, path):
        return same(lookup(place.literal, path[len(place.path) :]), wanted)
    return same(place.literal, lookup(wanted, place.path[len(path) :]))


def _parts(plan: Plan, path: Path, wanted: Plain, base: Place | None, parts: list[Place]) -> tuple[list[Place], Plain]:
    """Puts right the assignments of single keys under `path`; returns those that stay, and what they come to."""
    value = apply(MISSING, base.path, base.literal, path, base.line) if base else MISSING
    kept = []
    for index, place in enumerate(parts):
        keys = place.path[len(path) :]
        goal, literal = lookup(wanted, keys), place.literal
        if goal is MISSING:
            _plain(place, path)
            plan.drop(path, place)
            continue
        if not same(literal, goal) and not any(covers(later.path, place.path) for later in parts[index + 1 :]):
            _plain(place, path)
            _assign(plan, path, place, goal)
            literal = goal
        kept.append(place)
        value = put(value, keys, literal, place.line)
    return kept, value


def _plain(place: Place, path: Path) -> None:
    if place.how != "plain":
        raise Refused(
            f"gitlab.rb, line {place.line}: {name(place.path)} is set together with something else, and has to change "
            f"for {name(path)}",
            hint="write that line as plain assignments, one a line",
        )


def _assign(plan: Plan, path: Path, place: Place, value: Plain) -> None:
    """The plain assignment `place` gets `value`."""
    node, target = place.node, place.value
    brace = node.type == "call" and not plan.document.source(node).endswith(b")")
    risky = brace and (isinstance(value, dict) or (isinstance(value, int | float) and str(value).startswith("-")))
    if target is None or risky or node.type not in ("assignment", "call"):
        plan.respell(path, place, value)
    else:
        plan.rewrite(path, place, target, value)


def _base(plan: Plan, path: Path, wanted: Plain, base: Place) -> None:
    """`base`, the last assignment of `path` or of what holds it, is made to say `wanted`, or overruled below."""
    keys = path[len(base.path) :]
    if not keys and base.how == "plain":
        _assign(plan, path, base, wanted)
        return
    node: Node | None = base.value
    for key in keys:
        held = pairs(plan.document, node) if node is not None and node.type == "hash" else None
        found = [pair for pair in held or [] if pair.key == key]
        node = found[0].value if len(found) == 1 else None
    if keys and node is not None and base.how == "plain":
        plan.rewrite(path, base, node, wanted)
        return
    if keys and base.node.type == "operator_assignment":
        raise Refused(
            f"gitlab.rb, line {base.line}: what {name(base.path)} comes to there depends on what it was before, so that "
            f"{name(path)} cannot be set inside it",
            hint="make that line a plain assignment, or take it out",
        )
    for length in range(len(keys)):
        holder = lookup(base.literal, keys[:length])
        if holder is not MISSING and not isinstance(holder, dict | NotLiteral):
            raise Refused(
                f"gitlab.rb, line {base.line}: {name(path[: len(base.path) + length])} is no hash there, so that "
                f"{name(path)} cannot be set",
                hint="take that line out, or make it a hash",
            )
        if isinstance(holder, NotLiteral):
            plan.note(f"line {base.line} sets {name(base.path)} to something computed; {name(path)} is set below it")
            break
    plan.add(path, plan.document.after(base.statement.end_byte - 1), path, wanted)


def _complete(plan: Plan, path: Path, wanted: Plain, value: Plain, last: Place) -> None:
    """Below `last`, the last of the single keys: those that are missing, or the whole when that does not do."""
    at = plan.document.after(last.statement.end_byte - 1)
    missing = _missing(value, wanted)
    for keys, item in missing:
        value = put(value, keys, item, 0)
    if not same(value, wanted):
        missing = [((), wanted)]
    for keys, item in missing:
        plan.add(path, at, (*path, *keys), item)


def _missing(value: Plain, wanted: Plain) -> list[tuple[Path, Plain]]:
    if not isinstance(value, dict) or not isinstance(wanted, dict):
        return []
    found: list[tuple[Path, Plain]] = []
    for key, item in wanted.items():
        if key not in value:
            found.append(((key,), item))
        else:
            found += [((key, *keys), deeper) for keys, deeper in _missing(value[key], item)]
    return found
