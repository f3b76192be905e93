"""gitlab.rb as a syntax tree, and the values of literals in it. The only module that imports tree-sitter-ruby.

tree-sitter is imported only when a file is parsed. Whatever cannot be read with certainty (interpolation, control notation,
bytes that are not text) is `NotLiteral`.  Source: Ruby's doc/syntax/literals.rdoc.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, NamedTuple

from provision.editing.document import Document
from provision.editing.ruby.values import NotLiteral, Plain, Symbol
from provision.errors import Refused

if TYPE_CHECKING:
    from tree_sitter import Language, Node, Query


_MAGIC = re.compile(rb"#.*?coding[:=][ \t]*([\w.-]+)")
_NO_STATEMENT = {"comment", "heredoc_body", "empty_statement", "uninterpreted"}


@dataclass(frozen=True, eq=False)
class RubyDocument(Document):
    """A gitlab.rb: its bytes and its syntax tree. `children` are the top-level nodes in order."""

    root: Node = field(repr=False)
    children: list[Node] = field(repr=False)

    @cached_property
    def statements(self) -> list[Node]:
        """The top-level nodes that Ruby runs."""
        return [node for node in self.children if node.is_named and node.type not in _NO_STATEMENT]

    @cached_property
    def starts(self) -> list[int]:
        """The offset at which each of `children` begins."""
        return [node.start_byte for node in self.children]

    @cached_property
    def end(self) -> int:
        """The offset at which a last line may be added: the end of the file, or the line of `__END__`."""
        last = self.children[-1] if self.children else None
        if last is not None and last.type == "uninterpreted":
            return self.line_start(last.start_byte - 1)
        return len(self.content)

    @cached_property
    def utf8(self) -> bool:
        """Whether Ruby reads letters outside ASCII as UTF-8 in this file."""
        head = b"\n".join(self.content[self.start :].split(b"\n", 2)[:2])
        magic = _MAGIC.search(head)
        if magic and magic[1].lower() not in (b"utf-8", b"utf8"):
            return False
        try:
            self.content.decode()
        except UnicodeDecodeError:
            return False
        return True

    @cached_property
    def heredocs(self) -> dict[int, Node]:
        """The body of each heredoc, by the offset at which its `<<MARK` begins."""
        parts = self.captured("[(heredoc_beginning) (heredoc_body)] @part")
        beginnings, bodies = ([one for one in parts if one.type == f"heredoc_{kind}"] for kind in ("beginning", "body"))
        return {one.start_byte: other for one, other in zip(beginnings, bodies, strict=False)}

    def captured(self, pattern: str) -> list[Node]:
        """Return all nodes that a tree-sitter query captures, in order."""
        from tree_sitter import QueryCursor

        found = QueryCursor(_query(pattern)).captures(self.root)
        return sorted((node for nodes in found.values() for node in nodes), key=lambda node: node.start_byte)

    @cached_property
    def error_line(self) -> int | None:
        """The first line, from 1, that is not valid Ruby; None when all is valid."""
        if self.root.has_error:
            return self.line(_first_error(self.root))
        if b"<<" in self.content:
            for body in self.heredocs.values():
                end = body.children[-1] if body.children else body
                if end.start_byte == end.end_byte:  # the closing mark is missing
                    return self.line(body.start_byte)
        return None

    def next_line(self, offset: int) -> int:
        """Return the first start of a line after `offset` where a statement may be inserted.

        It is not inside another statement, a heredoc or a block comment.
        """
        while True:
            end = self.line_end(offset)
            if end >= self.end:
                return self.end
            index = bisect_right(self.starts, end - 1) - 1
            if index < 0 or self.children[index].end_byte <= end:
                return end
            offset = self.children[index].end_byte - 1

    def source(self, node: Node) -> bytes:
        """Return the bytes of a node."""
        return self.content[node.start_byte : node.end_byte]


@lru_cache(maxsize=8)
def parse(content: bytes) -> RubyDocument:
    """Parse any bytes, also Ruby that is not valid (see `RubyDocument.error_line`). The last results are cached."""
    return parse_uncached(content)


def parse_uncached(content: bytes) -> RubyDocument:
    """Parse a snippet that is not needed again."""
    from tree_sitter import Parser

    # The grammar recognises a heredoc's closing mark by the newline after it.
    whole = content if content.endswith(b"\n") else content + b"\n"
    root = Parser(_language()).parse(whole).root_node
    return RubyDocument(content, root, root.children)


def parse_valid(content: bytes) -> RubyDocument:
    """Parse Ruby that is to be edited. Raises Refused naming the first line that is not valid."""
    document = parse(content)
    if document.error_line is not None:
        raise Refused(
            f"gitlab.rb, line {document.error_line}: this is not Ruby that can be read safely",
            hint="check it with /opt/gitlab/embedded/bin/ruby -c /etc/gitlab/gitlab.rb and fix that line",
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


class Pair(NamedTuple):
    """One `key => value` of a hash literal: its key, its node, and the node of its value."""

    key: str | int
    node: Node
    value: Node


class Unreadable(Exception):
    """Only Ruby can read the literal."""


def evaluate(document: RubyDocument, node: Node) -> Plain:
    """Return the value of a literal; NotLiteral, also inside arrays and hashes, for what only Ruby can compute."""
    try:
        return _evaluate(document, node)
    except (Unreadable, UnicodeDecodeError):
        return NotLiteral(document.line(node.start_byte))


def pairs(document: RubyDocument, node: Node) -> list[Pair] | None:
    """Return the pairs of a hash literal in order; None when it holds anything else (`**other`, computed keys)."""
    found: list[Pair] = []
    for child in node.named_children:
        if child.type in _NOT_ELEMENTS:
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
        found.append(Pair(str(key) if isinstance(key, str) else key, child, value))  # omnibus makes symbols strings
    return found


_INTERPOLATION = re.compile(r"#[{@$]")  # of an expression, an instance or a global variable
_NOT_ELEMENTS = ("comment", "heredoc_body")
_CONSTANTS = {"true": True, "false": False, "nil": None}
_INTEGER = re.compile(
    r"(?:0[xX](?P<x>[0-9a-fA-F_]+)|0[bB](?P<b>[01_]+)|0[oO]?(?P<o>[0-7_]+)|(?:0[dD])?(?P<d>[0-9_]+))\Z"
)


def _evaluate(document: RubyDocument, node: Node) -> Plain:
    match node.type:
        case "true" | "false" | "nil" as constant:
            return _CONSTANTS[constant]
        case "string":
            return _string(document, node)
        case "chained_string":
            if any(document.source(child)[:1] == b"%" for child in node.named_children[1:]):
                raise Unreadable  # Ruby reads this as the operator `%`
            return "".join(_string(document, child) for child in node.named_children)
        case "simple_symbol":
            return Symbol(_text(document, node)[1:])
        case "delimited_symbol":
            return Symbol(_string(document, node))
        case "integer" | "float" | "unary":
            return _number(document, node)
        case "array" | "right_assignment_list":
            return [evaluate(document, child) for child in node.named_children if child.type not in _NOT_ELEMENTS]
        case "string_array" | "symbol_array":
            return _words(document, node)
        case "hash":
            found = pairs(document, node)
            if found is None:
                raise Unreadable
            return {pair.key: evaluate(document, pair.value) for pair in found}
        case "heredoc_beginning":
            return _heredoc(document, node)
        case "character" if node.end_byte - node.start_byte == 2 and _text(document, node)[1] != "\\":
            return _text(document, node)[1]  # a backslash is part of a longer escape
    raise Unreadable


def _text(document: RubyDocument, node: Node) -> str:
    raw = document.source(node)
    if not raw.isascii() and not document.utf8:
        raise Unreadable
    return raw.decode()


def _string(document: RubyDocument, node: Node) -> str:
    if node.type not in ("string", "delimited_symbol") or any(c.type == "interpolation" for c in node.children):
        raise Unreadable
    text = _text(document, node)
    opening = document.source(node.children[0]).decode()
    closing = document.source(node.children[-1]).decode()
    return quoted(opening.lstrip(":") or opening, text[len(opening) : len(text) - len(closing)])


def _number(document: RubyDocument, node: Node) -> int | float:
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


def _words(document: RubyDocument, node: Node) -> list[str]:
    """The elements of `%w[…]` and `%i[…]`."""
    text = _text(document, node)
    if "\\" in text or _INTERPOLATION.search(text):
        raise Unreadable
    kind = Symbol if node.type == "symbol_array" else str
    return [kind(_text(document, child)) for child in node.named_children]


def _heredoc(document: RubyDocument, node: Node) -> str:
    body = document.heredocs.get(node.start_byte)
    opening = _text(document, node)
    if body is None or "`" in opening or any(child.type == "interpolation" for child in body.children):
        raise Unreadable
    end = body.children[-1]
    lines = document.content[document.line_end(body.start_byte) : document.line_start(end.start_byte)]
    if not lines.isascii() and not document.utf8:
        raise Unreadable
    return heredoc(opening, lines.decode())


_CONTROL = {"n": "\n", "t": "\t", "s": " ", "r": "\r", "e": "\x1b", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}
_ESCAPE = re.compile(
    r"\\(?:u\{\s*(?P<many>[0-9A-Fa-f]+(?:\s+[0-9A-Fa-f]+)*)\s*\}|u(?P<four>[0-9A-Fa-f]{4})"
    r"|x(?P<hex>[0-9A-Fa-f]{1,2})|(?P<octal>[0-7]{1,3})|(?P<control>[cCMux])|(?P<other>.))",
    re.DOTALL,
)
_CLOSING = {"(": ")", "[": "]", "{": "}", "<": ">"}


def quoted(opening: str, inner: str) -> str:
    """Return the text of a literal that begins with `opening` (`'`, `"`, `%q(`, `%|` …). Raises Unreadable."""
    inner = inner.replace("\r\n", "\n")  # as Ruby's lexer does
    delimiter = opening[-1]
    if opening == "'" or opening.startswith("%q"):
        ends = re.escape(delimiter + _CLOSING.get(delimiter, delimiter) + "\\")
        return re.sub(rf"\\([{ends}])", r"\1", inner)
    return unescape(inner)


def unescape(inner: str) -> str:
    """Return double-quoted text with its escapes resolved. Raises Unreadable."""
    return _ESCAPE.sub(_resolve, inner) if "\\" in inner else inner


def _resolve(found: re.Match[str]) -> str:
    if found["many"] or found["four"]:
        try:
            return "".join(chr(int(code, 16)) for code in (found["many"] or found["four"]).split()).encode().decode()
        except (ValueError, OverflowError) as error:
            raise Unreadable from error
    if found["hex"] or found["octal"]:
        code = int(found["hex"], 16) if found["hex"] else int(found["octal"], 8)
        if code > 127:
            raise Unreadable
        return chr(code)
    if found["control"]:
        raise Unreadable
    other = found["other"]
    return "" if other == "\n" else _CONTROL.get(other, other)


def heredoc(opening: str, body: str) -> str:
    """Return the text of a heredoc: `opening` is `<<~'EOS'` and the like, `body` its whole lines. Raises Unreadable."""
    body = body.replace("\r\n", "\n")
    raw = "'" in opening
    if not raw and (re.search(r"(?<!\\)(?:\\\\)*\\\n", body) or _INTERPOLATION.search(body)):
        raise Unreadable  # a continued line; an interpolation, which the grammar takes for a comment after an escape
    if opening.startswith("<<~"):
        if "\t" in body or (not raw and set(body) & set("\\#")):
            raise Unreadable  # Ruby counts tabs as columns, and escapes and `#` change the margin
        lines = body.split("\n")
        if any(line and not line.strip(" ") for line in lines):
            raise Unreadable  # Ruby 3.1 computes the margin of the line after a line of spaces wrongly
        margin = min((len(line) - len(line.lstrip(" ")) for line in lines if line.strip(" ")), default=0)
        body = "\n".join(line[min(margin, len(line) - len(line.lstrip(" "))) :] for line in lines)
    return body if raw else unescape(body)
