"""Edits of config.toml, each as splices of the statements and tables that it concerns.

One edit is applied after the other, since each moves the offsets of the text after it. New text is laid out as
by gitlab-runner, or like the lines beside it. tomlkit edits the text of one statement, so that the comments and the
spacing of inline tables and arrays stay.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from provision.editing.document import Document, Splice, check_read_back
from provision.editing.toml.model import Data, Entry, Key, Path, Reconciled, RunnerId, WantedRunner, dotted, entries_in
from provision.editing.toml.plan import Append, Drop, Edit, Layout, Put, Statement, TableBlock, make_plan, parse, value
from provision.errors import Refused


def edited(content: bytes, edits: Sequence[Edit]) -> bytes:
    """Return the content with the edits applied in order.

    Raises ValueError, TypeError or LookupError when a notation prevents an edit.
    """
    layout = parse(content)
    for edit in edits:
        match edit:
            case Put(path, wanted):
                layout = _put(layout, path, wanted)
            case Drop(path):
                layout = _drop(layout, path)
            case Append(entry):
                layout = _append(layout, entry)
    return layout.content


def _put(layout: Layout, path: Path, wanted: Any) -> Layout:
    if found := _statement_around(layout, path):
        one, rest = found
        return _replace(layout, one, with_value(layout.text(one), one.keys + rest, wanted, layout.newline))
    present = layout.positions(path)
    position = present[0] if present else None
    if present or any(full[: len(path)] == path for _, _, full in layout.statements()):
        layout = _drop(layout, path)  # a table becomes a value, or an array of tables is replaced
    above, names = path[:-1], _names(path)
    if home := _dotted_home(layout, above):
        table, after = home
        keys = (*after.keys[: len(above) - len(table.path)], names[-1])
        return _insert_statement(layout, table, after, keys, wanted)
    if is_table(wanted) or is_tables(wanted):
        tables = wanted if is_tables(wanted) else [wanted]
        return _insert_tables(layout, above, path, tables, position, array=is_tables(wanted))
    if layout.table(above) is None:
        layout = _insert_tables(layout, above[:-1], above, [{}], position, array=False)
    home_table = layout.table(above)
    assert home_table is not None
    after_last = home_table.statements[-1] if home_table.statements else None
    return _insert_statement(layout, home_table, after_last, names[-1:], wanted)


def _drop(layout: Layout, path: Path) -> Layout:
    found = _statement_around(layout, path)
    if found and found[1]:
        one, rest = found
        return _replace(layout, one, without_value(layout.text(one), one.keys + rest))
    layout = _spliced(
        layout,
        [
            Splice(one.start, one.end)
            for table, one, full in layout.statements()
            if full[: len(path)] == path and table.path[: len(path)] != path
        ],
    )
    is_entry = path[:1] == ("runners",) and len(path) == 2  # comments inside a runner's entry are removed with it
    for number in reversed(layout.positions(path)):
        layout = _spliced(layout, _remove_table(layout, number, keep_comments=not is_entry))
    return layout


def _remove_table(layout: Layout, number: int, *, keep_comments: bool) -> list[Splice]:
    """Remove a table. The comments above its header and the lines after its last statement stay."""
    table, before = layout.tables[number], layout.tables[number - 1]
    last = table.statements[-1].end if table.statements else table.header_end
    kept = _comment_lines(layout, table, last) if keep_comments else []
    splices, at = [], table.header
    for start, end in [*kept, (last, last)]:
        splices.append(Splice(at, start))
        at = end
    if table.start < table.header or kept:
        return splices
    tail_end = layout.line_end(last) if last < table.end else last
    blank_behind = last < table.end and layout.is_blank(last, tail_end)
    if number + 1 == len(layout.tables) and (blank_behind or last == table.end):
        return [Splice(layout.blank_tail(before), table.header), *splices]
    if blank_behind and (before.header_end == before.end or layout.blank_tail(before) < before.end):
        return [*splices, Splice(last, tail_end)]
    return splices


def _comment_lines(layout: Layout, table: TableBlock, end: int) -> list[tuple[int, int]]:
    """The comment lines between the statements of a table, up to `end`."""
    found, at = [], table.header_end
    for one in [*table.statements, Statement(end, end, ())]:
        while at < one.start:
            behind = layout.line_end(at)
            if not layout.is_blank(at, behind):
                found.append((at, behind))
            at = behind
        at = one.end
    return found


def _append(layout: Layout, entry: Data) -> Layout:
    if found := _statement_around(layout, ("runners",)):
        one, _ = found
        text = layout.text(one)
        return _replace(layout, one, with_value(text, (*one.keys, len(value(text, one.keys))), entry, layout.newline))
    count = sum(1 for table in layout.tables if len(table.path) == 2 and table.path[0] == "runners")
    return _insert_tables(layout, (), ("runners", count), [entry], None, array=True)


def _spliced(layout: Layout, splices: list[Splice]) -> Layout:
    return parse(layout.splice(splices)) if splices else layout


def _replace(layout: Layout, one: Statement, text: str) -> Layout:
    return _spliced(layout, [Splice(one.start, one.end, text.encode())])


def _statement_around(layout: Layout, path: Path) -> tuple[Statement, Path] | None:
    """The statement whose value is `path` or encloses it, and the rest of the path inside the value."""
    for _, one, full in layout.statements():
        if path[: len(full)] == full:
            return one, path[len(full) :]
    return None


def _dotted_home(layout: Layout, path: Path) -> tuple[TableBlock, Statement] | None:
    """The last statement of a table that exists only by dotted keys: a new key is inserted after it."""
    found = None
    for table, one, full in layout.statements():
        if len(table.path) < len(path) < len(full) and full[: len(path)] == path:
            found = table, one
    return found


def _insert_statement(
    layout: Layout, table: TableBlock, after: Statement | None, keys: tuple[str, ...], wanted: Any
) -> Layout:
    """Insert a statement after `after`, or as the first one of its table."""
    behind = ""
    if after is not None:
        indent, at = layout.indentation(after.start), after.end
    elif table.path:
        indent, at = layout.indentation(table.header) + _step(layout), table.header_end
    else:  # the root: after its comments, with an empty line before the first table
        indent, at = "", table.end
        behind = layout.newline if len(layout.tables) > 1 else ""
    text = _line_break(layout, at) + statement(keys, wanted, indent, layout.newline) + behind
    return _spliced(layout, [Splice(at, at, text.encode())])


def _insert_tables(
    layout: Layout, above: Path, path: Path, tables: list[Data], position: int | None, *, array: bool
) -> Layout:
    """Insert tables at `position` in the order of tables, or after the last one that belongs to `above`."""
    names, newline = _names(path), layout.newline
    at_top = len(names) == 1
    if position is None:
        position = _position(layout, above, path)
    step = _step(layout)
    indent = "" if at_top else _header_indent(layout, above, step)
    text = newline.join(table_text(names, one, indent, step, newline, array=array) for one in tables)
    before, is_last = layout.tables[position - 1], position == len(layout.tables)
    # Blank lines at the end of the previous table move after the new one; those below the top-level keys stay.
    at = before.end if position == 1 and not is_last else layout.blank_tail(before)
    if at > layout.start:
        text = (
            _line_break(layout, at)
            + ("" if not (at_top or array) or _blank_above(layout, before, at) else newline)
            + text
        )
    if at_top and not is_last and at == before.end:
        text += newline
    return _spliced(layout, [Splice(at, at, text.encode())])


def _blank_above(layout: Layout, table: TableBlock, at: int) -> bool:
    return at > table.header_end and layout.is_blank(layout.line_start(at - 1), at)


def _line_break(layout: Layout, at: int) -> str:
    """The line break that is missing before an insertion at `at`."""
    ended = at <= layout.start or layout.content[at - 1 : at] == b"\n"
    return "" if ended else layout.newline


def _position(layout: Layout, above: Path, path: Path) -> int:
    """The position of a new table: after the tables of its parent. A new top-level table is placed before the runners."""
    if not above and path[0] != "runners":
        runners = layout.positions(("runners",))
        return runners[0] if runners else len(layout.tables)
    below = layout.positions(path)
    if below:
        return below[0]  # the header of a table that had only tables in it
    family = layout.positions(above) if above else layout.positions(("runners",))
    return family[-1] + 1 if family else len(layout.tables)


def _header_indent(layout: Layout, above: Path, step: str) -> str:
    """The indentation of a new header: that of its siblings, else of its parent's keys, else one step in."""
    for number in layout.positions(above):
        table = layout.tables[number]
        if table.path != above and len(_names(table.path)) == len(_names(above)) + 1:
            return layout.indentation(table.header)
    parent = layout.table(above)
    if parent is not None and parent.statements:
        return layout.indentation(parent.statements[-1].start)
    return (layout.indentation(parent.header) if parent is not None and parent.path else "") + step


def _step(layout: Layout) -> str:
    """How far keys are indented from their header in this file; two spaces where nothing shows it."""
    for table in layout.tables[1:]:
        outer = layout.indentation(table.header)
        if table.statements and (inner := layout.indentation(table.statements[0].start)).startswith(outer):
            return inner[len(outer) :]
    return "  "


def _names(path: Path) -> tuple[str, ...]:
    return tuple(key for key in path if isinstance(key, str))


def is_table(wanted: Any) -> bool:
    """Whether the value is written under a header."""
    return isinstance(wanted, dict)


def is_tables(wanted: Any) -> bool:
    """Whether the value is written as `[[…]]`: an array of tables that is not empty."""
    return isinstance(wanted, list) and bool(wanted) and all(isinstance(one, dict) for one in wanted)


def table_text(path: Sequence[str], table: Data, indent: str, step: str, newline: str, *, array: bool = False) -> str:
    """Return a table with its header in gitlab-runner's layout: keys are indented one step, tables follow the keys."""
    name = dotted(tuple(path))
    text = f"{indent}[[{name}]]{newline}" if array else f"{indent}[{name}]{newline}"
    inner = indent + step
    for key, one in table.items():
        if not is_table(one) and not is_tables(one):
            text += statement((key,), one, inner, newline)
    for key, one in table.items():
        if is_table(one):
            text += table_text((*path, key), one, inner, step, newline)
        elif is_tables(one):
            for element in one:
                text += newline + table_text((*path, key), element, inner, step, newline, array=True)
    return text


def statement(keys: Sequence[str], wanted: Any, indent: str, newline: str) -> str:
    """Return one line `keys = value`; tables in the value are written inline."""
    return f"{indent}{dotted(tuple(keys))} = {_item(wanted).as_string()}{newline}"


def with_value(text: str, path: Sequence[Key], wanted: Any, newline: str) -> str:
    """Return a statement with the value at `path` (its keys, then keys inside inline tables) replaced or added."""
    import tomlkit

    document = tomlkit.parse(text)
    table: Any = _at(document, path[:-1])
    last: Any = path[-1]
    if isinstance(table, list) and last == len(table):
        table.append(_item(wanted))
        return document.as_string()
    old: Any = table[last] if isinstance(table, list) or last in table else None
    many_lines = isinstance(wanted, list) and bool(wanted) and "\n" in getattr(old, "as_string", str)()
    table[last] = _array_of_lines(wanted, text) if many_lines else _item(wanted)
    written: str = document.as_string()
    return written.replace("\r\n", "\n").replace("\n", newline) if many_lines else written


def without_value(text: str, path: Sequence[Key]) -> str:
    """Return a statement without the value at `path`, which is inside its inline value."""
    import tomlkit

    document = tomlkit.parse(text)
    del _at(document, path[:-1])[path[-1]]
    return document.as_string()


def _at(node: Any, path: Sequence[Key]) -> Any:
    for key in path:
        node = node[key]
    return node


def _item(wanted: Any) -> Any:
    """tomlkit's item for plain data, with every table in it inline."""
    import tomlkit

    if isinstance(wanted, dict):
        inline = tomlkit.inline_table()
        for key, one in wanted.items():
            inline[key] = _item(one)
        return inline
    if isinstance(wanted, list):
        array = tomlkit.array()
        for one in wanted:
            array.append(_item(one))
        return array
    return tomlkit.item(wanted)


def _array_of_lines(wanted: list[Any], text: str) -> Any:
    """An array with one element on each line, indented like the elements in the statement's `text`."""
    import tomlkit

    first, *rest = text.split("\n")
    outer = first[: len(first) - len(first.lstrip(" \t"))]
    inner = next((line[: len(line) - len(line.lstrip(" \t"))] for line in rest if line.strip()[:1] in {'"', "'"}), "")
    array = tomlkit.array()
    for one in wanted:
        array.add_line(_item(one), indent=inner or f"{outer}  ")
    array.add_line(indent=outer)
    return array


_BY_HAND: Final = "nothing was changed; write these tables in the usual form ([[runners]], [runners.docker])"
_PLACE = re.compile(r"^(?P<what>.*) \(at (?:line (?P<line>\d+), column (?P<column>\d+)|end of document)\)$", re.DOTALL)


def reconcile(
    text: str,
    *,
    top: Mapping[str, Any],
    runners: Sequence[WantedRunner],
    owned_top: Collection[str] = (),
    dropped: Sequence[RunnerId] = (),
    owned_keys: Mapping[str, Collection[str]] | None = None,
) -> Reconciled:
    """Return the file with `top` and `runners` set, and everything else unchanged.

    text        the text of the file; "" when there is none
    top         top-level keys and tables (`concurrent`, `session_server`), without `runners`
    owned_top   dotted top-level keys that we set earlier: those that `top` no longer has are removed
    dropped     entries that we wrote earlier and that are no longer wanted
    owned_keys  by runner name, dotted keys that we set earlier in its entry: those no longer wanted are removed

    An entry is identified by its token and server; otherwise by the fingerprint of a token that we wrote earlier, or by
    its number in GitLab, and its token is replaced. A second entry of the same runner is removed. Arrays are replaced
    as a whole.

    Raises Refused: the text is not valid TOML (line and column are named), two wanted runners are identical, a
    runner without a known token has no entry, or the result would not read back as planned.
    """
    content = text.encode()
    data = _load(content)
    plan = make_plan(data, top, runners, owned_top, dropped, owned_keys or {})
    if not plan.edits:
        return Reconciled(text, False)

    try:
        new = edited(content, plan.edits)
    except (LookupError, TypeError, ValueError) as error:  # tomlkit cannot edit a statement
        raise Refused(f"config.toml cannot be edited safely: {type(error).__name__}", hint=_BY_HAND) from None
    planned = {key: value for key, value in plan.data.items() if key != "runners" or value != []}
    check_read_back("config.toml", new, _load, planned, _BY_HAND)
    return Reconciled(new.decode(), new != content, tuple(plan.actions))


def entries(text: str) -> list[Entry]:
    """Return the `[[runners]]` of a file, with tokens in clear. Raises Refused for what is not valid TOML."""
    return entries_in(_load(text.encode()))


def _load(content: bytes) -> Data:
    """The data of the file, by the standard library's parser."""
    text = content[Document(content).start :].decode()
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = _PLACE.match(str(error))
        line = (found and found["line"]) or str(text.count("\n") + 1)
        column = (found and found["column"]) or str(len(text.rpartition("\n")[2]) + 1)
        what = found["what"] if found else str(error)
        raise Refused(
            f"config.toml is not valid TOML: line {line}, column {column}: {what}",
            hint="fix that line on the host; the running gitlab-runner keeps the configuration that it loaded before",
        ) from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, values nested too deeply
        raise Refused(
            f"config.toml cannot be read: {error}", hint="correct it on the host; it was not changed"
        ) from error
    return {key: value for key, value in data.items() if key != "runners" or value != []}
