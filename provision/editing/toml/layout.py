"""config.toml as tables and statements, each with the offsets of its bytes. The only module that imports
tree-sitter-toml.

tree-sitter gives the offsets; it is imported only when a file must be changed. tomllib decides what is valid: the
caller parses the text with it first, and also the result of every edit.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from provision.editing.document import Document
from provision.editing.toml.model import Path

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
