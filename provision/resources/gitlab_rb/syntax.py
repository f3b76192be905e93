"""The file and its syntax tree. The only module that imports tree-sitter, and only when a file is looked into."""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

from provision.errors import Refused

if TYPE_CHECKING:
    from tree_sitter import Language, Node, Query

_BOM = b"\xef\xbb\xbf"
_MAGIC = re.compile(rb"#.*?coding[:=][ \t]*([\w.-]+)")


@dataclass(frozen=True, eq=False)
class Document:
    """A gitlab.rb: its bytes, and the top-level nodes of its tree in order."""

    text: bytes = field(repr=False)
    root: Node = field(repr=False)
    children: list[Node] = field(repr=False)

    @cached_property
    def newline(self) -> str:
        """The line ending that most lines have."""
        return "\r\n" if self.text.count(b"\r\n") * 2 > self.text.count(b"\n") else "\n"

    @cached_property
    def statements(self) -> list[Node]:
        return [node for node in self.children if node.is_named and node.type not in _NO_STATEMENT]

    @cached_property
    def starts(self) -> list[int]:
        """The byte at which each of `children` begins."""
        return [node.start_byte for node in self.children]

    @cached_property
    def start(self) -> int:
        """Where the first line begins: past a byte order mark."""
        return len(_BOM) if self.text.startswith(_BOM) else 0

    @cached_property
    def end(self) -> int:
        """Where a last line may be added: the end, or the line of `__END__`."""
        last = self.children[-1] if self.children else None
        return (
            self.line_start(last.start_byte - 1)
            if last is not None and last.type == "uninterpreted"
            else len(self.text)
        )

    @cached_property
    def utf8(self) -> bool:
        """Ruby reads letters outside ASCII as UTF-8 here."""
        head = b"\n".join(self.text[self.start :].split(b"\n", 2)[:2])
        magic = _MAGIC.search(head)
        if magic and magic[1].lower() not in (b"utf-8", b"utf8"):
            return False
        try:
            self.text.decode()
        except UnicodeDecodeError:
            return False
        return True

    @cached_property
    def heredocs(self) -> dict[int, Node]:
        """The body of each heredoc, by the byte at which its `<<MARK` begins."""
        beginnings = self.captured("(heredoc_beginning) @beginning")
        bodies = self.captured("(heredoc_body) @body")
        return {one.start_byte: other for one, other in zip(beginnings, bodies, strict=False)}

    def captured(self, pattern: str) -> list[Node]:
        """All nodes that a tree-sitter query captures, in order."""
        from tree_sitter import QueryCursor

        found = QueryCursor(_query(pattern)).captures(self.root)
        return sorted((node for nodes in found.values() for node in nodes), key=lambda node: node.start_byte)

    @cached_property
    def error_line(self) -> int | None:
        """The first line (1-based) that is no Ruby, None when all is well."""
        if self.root.has_error:
            return self.line(_first_error(self.root))
        if b"<<" in self.text:
            for body in self.heredocs.values():
                end = body.children[-1] if body.children else body
                if end.start_byte == end.end_byte:  # the closing mark is missing
                    return self.line(body.start_byte)
        return None

    def line(self, offset: int) -> int:
        """The 1-based number of the line that holds byte `offset`."""
        return self.text.count(b"\n", 0, offset) + 1

    def line_start(self, offset: int) -> int:
        return max(self.text.rfind(b"\n", 0, offset) + 1, self.start)

    def line_end(self, offset: int) -> int:
        """Just past the newline that ends the line of `offset`, or the end of the text."""
        return self.text.find(b"\n", offset) + 1 or len(self.text)

    def after(self, offset: int) -> int:
        """The first start of a line at or after the line of `offset` where a statement may be put: not inside another
        statement, a heredoc or a block comment."""
        while True:
            end = self.line_end(offset)
            if end >= self.end:
                return self.end
            index = bisect_right(self.starts, end - 1) - 1
            if index < 0 or self.children[index].end_byte <= end:
                return end
            offset = self.children[index].end_byte - 1

    def source(self, node: Node) -> bytes:
        return self.text[node.start_byte : node.end_byte]


_NO_STATEMENT = {"comment", "heredoc_body", "empty_statement", "uninterpreted"}


@lru_cache(maxsize=8)
def parse(text: bytes) -> Document:
    """The tree of any bytes, also of broken Ruby (see `Document.error_line`); the last few are remembered."""
    return parse_once(text)


def parse_once(text: bytes) -> Document:
    """`parse` for passing snippets."""
    from tree_sitter import Parser

    # The grammar knows a heredoc's closing mark by the newline behind it.
    whole = text if text.endswith(b"\n") else text + b"\n"
    root = Parser(_language()).parse(whole).root_node
    return Document(text, root, root.children)


def valid(text: bytes) -> Document:
    """The tree of sound Ruby. Raises Refused naming the first line that is not."""
    document = parse(text)
    if document.error_line is not None:
        raise Refused(
            f"gitlab.rb, line {document.error_line}: this is not Ruby that can be read safely",
            hint="check it with /opt/gitlab/embedded/bin/ruby -c /etc/gitlab/gitlab.rb and mend that line",
        )
    return document


def _first_error(node: Node) -> int:
    if node.is_error or node.is_missing:
        return node.start_byte
    for child in node.children:
        if child.has_error or child.is_missing:
            return _first_error(child)
    return node.start_byte


@lru_cache(maxsize=8)
def _query(pattern: str) -> Query:
    from tree_sitter import Query

    return Query(_language(), pattern)


@lru_cache(maxsize=1)
def _language() -> Language:
    import tree_sitter_ruby
    from tree_sitter import Language

    return Language(tree_sitter_ruby.language())
