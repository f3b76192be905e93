"""The file and its syntax tree. The only module that imports tree-sitter, and only when a file is looked into.

A setting's path, and how it is spelled in Ruby.

Literal values, read from the tree.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from provision.editing.ruby.values import NotLiteral, Plain, Symbol, Unreadable, heredoc, quoted
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


Path: TypeAlias = tuple[str, ...]

_ROOT = re.compile(r"[a-z_][A-Za-z0-9_]*\Z")


def covers(outer: Path, inner: Path) -> bool:
    """`outer` is `inner` or holds it."""
    return inner[: len(outer)] == outer


def related(one: Path, other: Path) -> bool:
    """Setting one of them bears on the other."""
    return covers(one, other) or covers(other, one)


def name(path: Path) -> str:
    """The path as Ruby reads it: `registry['nginx']['enable']`. Raises Refused for what cannot be a setting's name."""
    from provision.editing.ruby.values import render_string

    if not path or not _ROOT.match(path[0]):
        raise Refused(
            f"{'.'.join(path) or '(nothing)'} is no name of a gitlab.rb setting",
            hint="the first part must be a Ruby method's name, like gitlab_rails",
        )
    return path[0] + "".join(f"[{render_string(key)}]" for key in path[1:])


def spell(path: Path, value: str) -> str:
    """The statement that sets `path` to the Ruby source `value`: a call for one part, else an assignment."""
    if len(path) > 1:
        return f"{name(path)} = {value}"
    # Without parentheses Ruby takes a brace for a block and may take a minus for a subtraction.
    return f"{name(path)}({value})" if value[:1] in ("{", "-") else f"{name(path)} {value}"


def nginx_path(version: str) -> Path:
    """Where the registry's NGINX settings live in GitLab `version` ("19.3.0", "19.3.0-ce.0", "v19.3.0+ce.0").

    From 19.2 `registry['nginx']`; before that the new form is silently ignored and `registry_nginx` counts.
    Raises Refused when the text starts with no version.
    """
    found = re.match(r"v?(\d+)\.(\d+)", version.strip())
    if not found:
        raise Refused(f"{version!r} is no GitLab version", hint="expected something like 19.3.0 or 19.3.0-ce.0")
    return ("registry", "nginx") if (int(found[1]), int(found[2])) >= (19, 2) else ("registry_nginx",)


_INTEGER = re.compile(
    r"(?:0[xX](?P<x>[0-9a-fA-F_]+)|0[bB](?P<b>[01_]+)|0[oO]?(?P<o>[0-7_]+)|(?:0[dD])?(?P<d>[0-9_]+))\Z"
)
_WORDS = {"true": True, "false": False, "nil": None}


class Pair(NamedTuple):
    """One `key => value` of a hash literal; `value` is its node."""

    key: str | int
    node: Node
    value: Node


def evaluate(document: Document, node: Node) -> Plain:
    """The value of a literal; NotLiteral (also inside arrays and hashes) where only Ruby can tell."""
    try:
        return _evaluate(document, node)
    except (Unreadable, UnicodeDecodeError):
        return NotLiteral(document.line(node.start_byte))


def pairs(document: Document, node: Node) -> list[Pair] | None:
    """The pairs of a hash literal in order, None when it holds anything else (`**other`, computed keys)."""
    found: list[Pair] = []
    for child in node.named_children:
        if child.type in ("comment", "heredoc_body"):
            continue
        if child.type != "pair":
            return None
        key_node, value = child.child_by_field_name("key"), child.child_by_field_name("value")
        if key_node is None or value is None:
            return None
        text = document.source(key_node).decode(errors="surrogateescape")
        key = text if key_node.type == "hash_key_symbol" else evaluate(document, key_node)
        if isinstance(key, bool) or not isinstance(key, str | int):
            return None
        found.append(Pair(str(key) if isinstance(key, str) else key, child, value))  # Mash: symbols become strings
    return found


def _evaluate(document: Document, node: Node) -> Plain:
    kind = node.type
    if kind in _WORDS:
        return _WORDS[kind]
    if kind == "string":
        return _string(document, node)
    if kind == "chained_string":
        if any(document.source(child)[:1] == b"%" for child in node.named_children[1:]):
            raise Unreadable  # to Ruby that is a `%` operator
        return "".join(_string(document, child) for child in node.named_children)
    if kind == "simple_symbol":
        return Symbol(_text(document, node)[1:])
    if kind == "delimited_symbol":
        return Symbol(_string(document, node))
    if kind in ("integer", "float", "unary"):
        return _number(document, node)
    if kind in ("array", "right_assignment_list"):
        return [evaluate(document, child) for child in node.named_children if child.type not in _SILENT]
    if kind in ("string_array", "symbol_array"):
        return _words(document, node)
    if kind == "hash":
        found = pairs(document, node)
        if found is None:
            raise Unreadable
        return {pair.key: evaluate(document, pair.value) for pair in found}
    if kind == "heredoc_beginning":
        return _heredoc(document, node)
    if kind == "character" and node.end_byte - node.start_byte == 2 and _text(document, node)[1] != "\\":
        return _text(document, node)[1]  # behind a backslash, what follows counts too
    raise Unreadable


_SILENT = ("comment", "heredoc_body")


def _text(document: Document, node: Node) -> str:
    raw = document.source(node)
    if not raw.isascii() and not document.utf8:
        raise Unreadable
    return raw.decode()


def _string(document: Document, node: Node) -> str:
    if node.type not in ("string", "delimited_symbol") or any(c.type == "interpolation" for c in node.children):
        raise Unreadable
    text = _text(document, node)
    opening = document.source(node.children[0]).decode()
    closing = document.source(node.children[-1]).decode()
    return quoted(opening.lstrip(":") or opening, text[len(opening) : len(text) - len(closing)])


def _number(document: Document, node: Node) -> int | float:
    if node.type == "unary":
        operand = node.child_by_field_name("operand")
        if operand is None or document.source(node)[:1] != b"-" or operand.type not in ("integer", "float"):
            raise Unreadable
        return -_number(document, operand)
    text = _text(document, node)
    if node.type == "float":
        if text[-1:] in "ri":
            raise Unreadable
        return float(text)
    found = _INTEGER.match(text)
    if not found:
        raise Unreadable
    base = {"x": 16, "b": 2, "o": 8, "d": 10}[str(found.lastgroup)]
    return int(found[str(found.lastgroup)], base)


def _words(document: Document, node: Node) -> list[str]:
    text = _text(document, node)
    if "\\" in text or "#{" in text:
        raise Unreadable
    kind = Symbol if node.type == "symbol_array" else str
    return [kind(_text(document, child)) for child in node.named_children]


def _heredoc(document: Document, node: Node) -> str:
    body = document.heredocs.get(node.start_byte)
    opening = _text(document, node)
    if body is None or "`" in opening or any(child.type == "interpolation" for child in body.children):
        raise Unreadable
    end = body.children[-1]
    lines = document.text[document.line_end(body.start_byte) : document.line_start(end.start_byte)]
    if not lines.isascii() and not document.utf8:
        raise Unreadable
    return heredoc(opening, lines.decode())
