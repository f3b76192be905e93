"""Values and statements as TOML text, written by tomlkit.

Edits carried out on a layout: the statement or section concerned is rewritten, all else is left alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from provision.editing.toml.layout import Layout, Line, Pair, Section, Trivia, indent_of, parse
from provision.editing.toml.model import Key, Path, Table, dotted
from provision.editing.toml.plan import Append, Drop, Edit, Put


def statement(keys: Sequence[str], value: Any, indent: str, newline: str) -> str:
    """One line `keys = value`; tables are written inline."""
    return f"{indent}{dotted(tuple(keys))} = {_item(value).as_string()}{newline}"


def changed(text: str, path: Sequence[Key], value: Any, newline: str) -> str:
    """A statement with the value at `path` (its keys, and on into inline tables) replaced or added."""
    import tomlkit

    document = tomlkit.parse(text)
    table: Any = _at(document, path[:-1])
    last: Any = path[-1]
    if isinstance(table, list) and last == len(table):
        table.append(_item(value))
        return document.as_string()
    old: Any = table[last] if isinstance(table, list) or last in table else None
    many = isinstance(value, list) and bool(value) and "\n" in getattr(old, "as_string", str)()
    table[last] = _lines(value, text) if many else _item(value)
    written: str = document.as_string()
    return written.replace("\r\n", "\n").replace("\n", newline) if many else written


def without(text: str, path: Sequence[Key]) -> str:
    """A statement with what stands at `path`, inside its inline value, taken out."""
    import tomlkit

    document = tomlkit.parse(text)
    del _at(document, path[:-1])[path[-1]]
    return document.as_string()


def section(path: Sequence[str], table: Table, indent: str, step: str, newline: str, *, array: bool = False) -> str:
    """A header and all under it, laid out as gitlab-runner does: keys one step in, tables after the keys."""
    name = dotted(tuple(path))
    text = f"{indent}[[{name}]]{newline}" if array else f"{indent}[{name}]{newline}"
    inner = indent + step
    for key, value in table.items():
        if not is_table(value) and not is_tables(value):
            text += statement((key,), value, inner, newline)
    for key, value in table.items():
        if is_table(value):
            text += section((*path, key), value, inner, step, newline)
        elif is_tables(value):
            for one in value:
                text += newline + section((*path, key), one, inner, step, newline, array=True)
    return text


def is_table(value: Any) -> bool:
    """It is written under a header of its own."""
    return isinstance(value, dict)


def is_tables(value: Any) -> bool:
    """It is written as `[[…]]`: an array of tables that has some."""
    return isinstance(value, list) and bool(value) and all(isinstance(one, dict) for one in value)


def _at(node: Any, path: Sequence[Key]) -> Any:
    for key in path:
        node = node[key]
    return node


def _item(value: Any) -> Any:
    """tomlkit's item, with every table in it inline."""
    import tomlkit

    if isinstance(value, dict):
        inline = tomlkit.inline_table()
        for key, one in value.items():
            inline[key] = _item(one)
        return inline
    if isinstance(value, list):
        array = tomlkit.array()
        for one in value:
            array.append(_item(one))
        return array
    return tomlkit.item(value)


def _lines(values: list[Any], text: str) -> Any:
    """An array with one element a line, as far in as the statement's own elements are."""
    import tomlkit

    first, *rest = text.split("\n")
    outer = first[: len(first) - len(first.lstrip(" \t"))]
    inner = next((line[: len(line) - len(line.lstrip(" \t"))] for line in rest if line.strip()[:1] in {'"', "'"}), "")
    array = tomlkit.array()
    for value in values:
        array.add_line(_item(value), indent=inner or f"{outer}  ")
    array.add_line(indent=outer)
    return array


def edited(text: str, edits: list[Edit]) -> str:
    """The text with the edits done in order."""
    layout = parse(text)
    for edit in edits:
        match edit:
            case Put(path, value):
                _put(layout, path, value)
            case Drop(path):
                _drop(layout, path)
            case Append(entry):
                _append(layout, entry)
        layout = parse(layout.text)
    return layout.text


def _put(layout: Layout, path: Path, value: Any) -> None:
    if holder := _holder(layout, path):
        pair, rest = holder
        pair.text = changed(pair.text, pair.keys + rest, value, layout.newline)
        return
    siblings = layout.under(path)
    place = siblings[0] if siblings else None
    if place is not None or any(full[: len(path)] == path for _, _, full in layout.pairs()):
        _drop(layout, path)  # a table becomes a value, or an array of tables another one
    above = path[:-1]
    names = _names(path)
    home = _dotted_home(layout, above)
    if home is not None:
        section, after = home
        keys = (*after.keys[: len(above) - len(section.path)], names[-1])
        _insert(layout, section, after, keys, value)
    elif is_table(value):
        _insert_sections(layout, above, path, [value], place, array=False)
    elif is_tables(value):
        _insert_sections(layout, above, path, value, place, array=True)
    else:
        section = layout.at(above) or _insert_sections(layout, above[:-1], above, [{}], place, array=False)
        _insert(layout, section, section.pairs[-1] if section.pairs else None, names[-1:], value)


def _drop(layout: Layout, path: Path) -> None:
    if holder := _holder(layout, path):
        pair, rest = holder
        if rest:
            pair.text = without(pair.text, pair.keys + rest)
            return
    for section in layout.sections:
        if section.path == path or section.path[: len(path)] == path:
            continue
        section.body = [
            line
            for line in section.body
            if not (isinstance(line, Pair) and (section.path + line.keys)[: len(path)] == path)
        ]
    whole = path[:1] == ("runners",) and len(path) == 2  # an entry: comments inside it go with it
    for number in reversed(layout.under(path)):
        _remove_section(layout, number, keep_comments=not whole)


def _remove_section(layout: Layout, number: int, *, keep_comments: bool) -> None:
    """Takes a section out. What stands above its header stays, and what follows its last statement."""
    section, before = layout.sections[number], layout.sections[number - 1]
    last = max((n for n, line in enumerate(section.body) if isinstance(line, Pair)), default=-1)
    inside, tail = section.body[: last + 1], section.body[last + 1 :]
    kept: list[Line] = [line for line in inside if keep_comments and isinstance(line, Trivia) and not line.blank]
    if not section.lead and not kept and (not tail or _blank(tail[0])) and number + 1 >= len(layout.sections):
        before.cut_blank_tail()
    elif not section.lead and not kept and tail and _blank(tail[0]) and (not before.body or _blank(before.body[-1])):
        tail = tail[1:]
    del layout.sections[number]
    before.body += [*section.lead, *kept, *tail]


def _append(layout: Layout, entry: Table) -> None:
    number = 1 + sum(1 for section in layout.sections if len(section.path) == 2 and section.path[0] == "runners")
    if holder := _holder(layout, ("runners",)):
        pair, _ = holder
        pair.text = changed(pair.text, (*pair.keys, len(pair.value)), entry, layout.newline)
        return
    _insert_sections(layout, (), ("runners", number - 1), [entry], None, array=True)


def _holder(layout: Layout, path: Path) -> tuple[Pair, Path] | None:
    """The statement whose value is `path` or encloses it, and the way on from its keys."""
    for _, pair, full in layout.pairs():
        if path[: len(full)] == full:
            return pair, path[len(full) :]
    return None


def _dotted_home(layout: Layout, table: Path) -> tuple[Section, Pair] | None:
    """Where a table that exists by dotted keys alone gets its next one."""
    found = None
    for section, pair, full in layout.pairs():
        if len(section.path) < len(table) < len(full) and full[: len(table)] == table:
            found = section, pair
    return found


def _insert(layout: Layout, section: Section, after: Pair | None, keys: tuple[str, ...], value: Any) -> None:
    """A new statement behind `after`, or as the first of its section."""
    if after is not None:
        indent, place = indent_of(after.text), next(n for n, line in enumerate(section.body) if line is after) + 1
        _end_line(layout, after)
    else:
        is_root = not section.path
        indent = "" if is_root else section.indent + _step(layout)
        place = len(section.body) if is_root else 0
        if is_root and len(layout.sections) > 1:
            section.body.append(Trivia(layout.newline))
        if not is_root and not section.header.endswith("\n"):
            section.header += layout.newline
        if is_root and place:
            _end_line(layout, section.body[place - 1])
    text = statement(keys, value, indent, layout.newline)
    section.body.insert(place, Pair(text, keys, value))


def _insert_sections(
    layout: Layout, above: Path, path: Path, tables: list[Table], place: int | None, *, array: bool
) -> Section:
    """New sections at `place` (where what they replace stood), else behind the last of those under `above`."""
    names, newline = _names(path), layout.newline
    is_top = len(names) == 1
    kin = layout.under(above)
    if place is None:
        place = _place(layout, above, path)
    step = _step(layout)
    indent = "" if is_top else _header_indent(layout, above, kin, step)
    text = newline.join(section(names, one, indent, step, newline, array=array) for one in tables)
    fresh = parse(text).sections[1:]
    fresh[0].path = path

    before = layout.sections[place - 1]
    tail = [] if place == 1 and place < len(layout.sections) else before.cut_blank_tail()
    spaced = is_top or array  # gitlab-runner leaves a blank line above these
    if before.header or before.body:
        _end_line(layout, before.body[-1] if before.body else before)
        if spaced and not (before.body and _blank(before.body[-1])):
            before.body.append(Trivia(newline))
    if is_top and place < len(layout.sections) and not tail:
        tail = [Trivia(newline)]
    fresh[-1].body += tail
    layout.sections[place:place] = fresh
    return fresh[0]


def _place(layout: Layout, above: Path, path: Path) -> int:
    """Where a new section goes: with its kin; a new table of the top before the runners."""
    if not above and path[0] != "runners":
        runners = layout.under(("runners",))
        return runners[0] if runners else len(layout.sections)
    below = layout.under(path)
    if below:
        return below[0]  # the header of a table that had only subtables
    kin = layout.under(above) if above else layout.under(("runners",))
    return kin[-1] + 1 if kin else len(layout.sections)


def _header_indent(layout: Layout, above: Path, kin: list[int], step: str) -> str:
    for number in kin:
        section = layout.sections[number]
        if section.path != above and len(_names(section.path)) == len(_names(above)) + 1:
            return section.indent
    parent = layout.at(above)
    if parent is not None and parent.pairs:
        return indent_of(parent.pairs[-1].text)
    return (parent.indent if parent is not None else "") + step


def _step(layout: Layout) -> str:
    """How far keys stand in from their header here; two spaces where nothing says so."""
    for section in layout.sections[1:]:
        if section.pairs and (indent := indent_of(section.pairs[0].text)).startswith(section.indent):
            return indent[len(section.indent) :]
    return "  "


def _names(path: Path) -> tuple[str, ...]:
    return tuple(key for key in path if isinstance(key, str))


def _blank(line: Line) -> bool:
    return isinstance(line, Trivia) and line.blank


def _end_line(layout: Layout, line: Line | Section) -> None:
    if isinstance(line, Section):
        line.header += "" if line.header.endswith("\n") or not line.header else layout.newline
    elif not line.text.endswith("\n"):
        line.text += layout.newline
