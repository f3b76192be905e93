"""config.toml's tables and statements with the offsets of their bytes, and the edits that bring its data to what is wanted.

The only module that imports tree-sitter-toml. tree-sitter gives the offsets; it is imported only when a file must be
changed. tomllib decides what is valid: the caller parses the text with it first, and also the result of every edit.
"""

from __future__ import annotations

import copy
import datetime
import tomllib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from provision.editing.document import Document, same
from provision.editing.toml.model import (
    Action,
    Data,
    Entry,
    Path,
    RunnerId,
    WantedRunner,
    dotted,
    entries_in,
    match,
    same_url,
    undotted,
)
from provision.errors import Refused

if TYPE_CHECKING:
    from tree_sitter import Language, Node


class Statement(NamedTuple):
    """The whole lines of one `keys = value`, from `start` up to `end`, with the comment after the value."""

    start: int
    end: int
    keys: tuple[str, ...]


@dataclass
class TableBlock:
    """A table as it is written: its header line and the lines up to the next header.

    path        from the root, with the positions of array elements; () for the root, which has no header
    start       where it begins: with the comment lines directly above the header
    header      where the header line begins
    header_end  where the line after the header begins
    end         where the next table begins
    """

    path: Path
    start: int
    header: int
    header_end: int
    end: int = 0
    statements: list[Statement] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Layout(Document):
    """A valid config.toml with its tables in order; the first one is the root."""

    tables: list[TableBlock]

    def positions(self, path: Path) -> list[int]:
        """Return the positions in `tables` of those at `path` and below it, without the root."""
        return [number for number, table in enumerate(self.tables) if number and table.path[: len(path)] == path]

    def table(self, path: Path) -> TableBlock | None:
        """Return the table whose header is `path`; the root for ()."""
        return next((table for table in self.tables if table.path == path), None)

    def statements(self) -> Iterator[tuple[TableBlock, Statement, Path]]:
        """Yield all statements with their table and their full path."""
        for table in self.tables:
            for one in table.statements:
                yield table, one, table.path + one.keys

    def text(self, one: Statement) -> str:
        """Return the lines of a statement."""
        return self.content[one.start : one.end].decode()

    def is_blank(self, start: int, end: int) -> bool:
        """Return whether the bytes from `start` up to `end` are only white space."""
        return not self.content[start:end].strip()

    def blank_tail(self, table: TableBlock) -> int:
        """Return where the blank lines at the end of a table begin; its end when there are none."""
        first = table.statements[-1].end if table.statements else table.header_end
        return self.blank_before(table.end, first)

    def blank_before(self, offset: int, first: int) -> int:
        """Return where the blank lines that end at `offset` begin, not before `first`."""
        while offset > first and self.is_blank(start := max(self.line_start(offset - 1), first), offset):
            offset = start
        return offset


def parse(content: bytes) -> Layout:
    """Return the layout of valid TOML. Raises ValueError for a notation that the grammar does not support."""
    return Layout(content, list(_tables(Document(content))))


def _tables(document: Document) -> Iterator[TableBlock]:
    from tree_sitter import Parser

    root = Parser(_language()).parse(document.content).root_node
    if root.has_error:
        raise ValueError("the grammar does not support this notation")
    block = TableBlock((), document.start, document.start, document.start)
    elements: dict[Path, int] = {}  # array of tables: position of its last element
    for node in root.named_children:
        if node.type in ("table", "table_array_element"):
            following = _block(document, node, elements, block)
            block.end = following.start
            yield block
            block = following
        for child in [node] if node.type == "pair" else node.named_children:
            if child.type == "pair":
                block.statements.append(_statement(document, child))
    block.end = len(document.content)
    yield block


def _block(document: Document, node: Node, elements: dict[Path, int], before: TableBlock) -> TableBlock:
    keys = _keys(node.named_children[0])
    path: Path = ()
    for key in keys[:-1]:
        path += (key,)
        if path in elements:
            path += (elements[path],)
    path += (keys[-1],)
    if node.type == "table_array_element":
        elements[path] = elements.get(path, -1) + 1
        path += (elements[path],)
    header = start = document.line_start(node.start_byte)
    first = before.statements[-1].end if before.statements else before.header_end
    while start > first and document.content[document.line_start(start - 1) : start].lstrip().startswith(b"#"):
        start = document.line_start(start - 1)
    return TableBlock(path, start, header, document.line_end(node.named_children[0].end_byte))


def _statement(document: Document, node: Node) -> Statement:
    start, end = document.line_start(node.start_byte), document.line_end(node.end_byte)
    return Statement(start, end, _keys(node.named_children[0]))


def _keys(node: Node) -> tuple[str, ...]:
    """The keys of a bare, quoted or dotted key."""
    if node.type == "dotted_key":
        return tuple(key for child in node.named_children for key in _keys(child))
    source = (node.text or b"").decode()
    if node.type == "bare_key":
        return (source,)
    return tuple(tomllib.loads(f"{source}=0"))


def value(text: str, keys: tuple[str, ...]) -> Any:
    """Return the data of a statement's value."""
    found: Any = tomllib.loads(text)
    for key in keys:
        found = found[key]
    return found


@lru_cache(maxsize=1)
def _language() -> Language:
    import tree_sitter_toml
    from tree_sitter import Language

    return Language(tree_sitter_toml.language())


@dataclass(frozen=True)
class Put:
    """The value at `path` becomes `value`. The enclosing tables exist already."""

    path: Path
    value: Any = field(repr=False)


class Drop(NamedTuple):
    """The key, table or entry at `path` is removed."""

    path: Path


@dataclass(frozen=True)
class Append:
    """One more `[[runners]]` entry at the end."""

    entry: Data = field(repr=False)


Edit = Put | Drop | Append


@dataclass
class Plan:
    """Edits in the order in which they must be applied, what they amount to, and the resulting data."""

    data: Data = field(repr=False)
    edits: list[Edit] = field(default_factory=list)
    actions: list[Action] = field(default_factory=list)

    def merge(self, above: Path, want: Mapping[str, Any], owned: Collection[str] = ()) -> list[str]:
        """Merge `want` into the table at `above`, and remove the `owned` keys that `want` lacks.

        Returns descriptions of the changes: "set docker.image", "remove limit".
        """
        done = []
        for path, value in list(_differences(above, _at(self.data, above), want)):
            self._put(path, value)
            done.append(f"set {dotted(path[len(above) :])}")
        for key in sorted(owned):
            keys = undotted(key)
            if not _has(want, keys) and _has(_at(self.data, above), keys) and self._drop(above, keys, want):
                done.append(f"remove {key}")
        return done

    def append(self, entry: Data) -> None:
        """Add an entry to `[[runners]]`."""
        self.edits.append(Append(entry))
        self.data.setdefault("runners", []).append(entry)

    def drop_entry(self, index: int) -> None:
        """Remove an entry of `[[runners]]`."""
        self.edits.append(Drop(("runners", index)))
        del self.data["runners"][index]

    def _put(self, path: Path, value: Any) -> None:
        self.edits.append(Put(path, value))
        _at(self.data, path[:-1])[path[-1]] = copy.deepcopy(value)

    def _drop(self, above: Path, keys: Sequence[str], want: Mapping[str, Any]) -> bool:
        """Remove a key, and the tables that are empty without it. Returns False if the key is a table with other keys in it."""
        if isinstance(_at(self.data, above + tuple(keys)), dict) and _at(self.data, above + tuple(keys)):
            return False
        while len(keys) > 1 and len(_at(self.data, above + tuple(keys[:-1]))) == 1:
            keys = keys[:-1]
            if _has(want, keys):  # wanted but empty: written again, since a table may exist only by its keys
                self._put(above + tuple(keys), {})
                return True
        path = above + tuple(keys)
        self.edits.append(Drop(path))
        del _at(self.data, path[:-1])[path[-1]]
        return True


def make_plan(
    data: Data,
    top: Mapping[str, Any],
    runners: Sequence[WantedRunner],
    owned_top: Collection[str],
    dropped: Sequence[RunnerId],
    owned_keys: Mapping[str, Collection[str]],
) -> Plan:
    """Plan everything that `reconcile` does. Raises Refused for changes that are impossible or unsafe."""
    plan = Plan(copy.deepcopy(data))
    top = plain(top)
    if "runners" in top:
        raise ValueError("runners are given as WantedRunner, not among the top-level keys")
    if done := plan.merge((), top, owned_top):
        plan.actions.append(Action("update", "", ", ".join(done)))
    found = entries_in(data)
    matches = match(found, runners, dropped)
    new: list[Data] = []
    for want, index in zip(runners, matches.of, strict=True):
        if index is None:
            new.append(_new_entry(want))
            plan.actions.append(Action("create", want.name, f"add runner {want.name} ({want.url})"))
        elif done := plan.merge(("runners", index), _wanted_keys(want, found[index]), owned_keys.get(want.name, ())):
            plan.actions.append(Action("update", want.name, f"{want.name}: {', '.join(done)}"))
    for index in sorted(matches.surplus, reverse=True):
        plan.drop_entry(index)
        entry, why = found[index], matches.surplus[index]
        plan.actions.append(Action("delete", entry.name, f"remove runner {entry.name} ({entry.url}): {why}"))
    for entry_data in new:
        plan.append(entry_data)
    return plan


def plain(value: Any) -> Any:
    """Return mappings as dicts and sequences as lists. Raises TypeError for values that TOML lacks: None, a Secret."""
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if not isinstance(value, str | bool | int | float | datetime.date | datetime.time):
        raise TypeError(f"{type(value).__name__} cannot be written in TOML")
    return value


def _new_entry(want: WantedRunner) -> Data:
    if want.token is None:
        raise Refused(
            f"runner {want.name} has no entry in config.toml, and its token is not known",
            hint="give its token in the inventory, or have it created again through the API",
        )
    entry: Data = {"name": want.name, "url": want.url}
    if want.id is not None:
        entry["id"] = want.id
    entry |= {"token": want.token} | plain(want.settings)
    return entry


def _wanted_keys(want: WantedRunner, found: Entry) -> Data:
    """The keys that an existing entry must have; another URL of the same server stays."""
    keys: Data = {"name": want.name}
    if not same_url(found.url, want.url):
        keys["url"] = want.url
    if want.id is not None:
        keys["id"] = want.id
    if want.token is not None:
        keys["token"] = want.token
    keys |= plain(want.settings)
    return keys


def _differences(above: Path, have: Data, want: Mapping[str, Any]) -> Iterator[tuple[Path, Any]]:
    for key, value in want.items():
        was = have.get(key)
        if isinstance(value, dict) and isinstance(was, dict):
            yield from _differences((*above, key), was, value)
        elif key not in have or not same(was, value):
            yield (*above, key), value


def _at(data: Any, path: Path) -> Any:
    for key in path:
        data = data[key]
    return data


def _has(table: Mapping[str, Any], keys: Sequence[Any]) -> bool:
    node: Any = table
    for key in keys:
        if not isinstance(node, Mapping) or key not in node:
            return False
        node = node[key]
    return True
