"""Values of Ruby literals, read from the syntax tree. Source: Ruby's doc/syntax/literals.rdoc.

Whatever cannot be read with certainty (interpolation, control notation, bytes that are not text) is `NotLiteral`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from provision.editing.ruby.values import NotLiteral, Plain, Symbol

if TYPE_CHECKING:
    from tree_sitter import Node

    from provision.editing.ruby.source import RubyDocument


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
    if "\\" in text or "#{" in text:
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
    if not raw and re.search(r"(?<!\\)(?:\\\\)*\\\n", body):
        raise Unreadable  # a continued line
    if opening.startswith("<<~"):
        if "\t" in body or (not raw and set(body) & set("\\#")):
            raise Unreadable  # Ruby counts tabs as columns, and escapes and `#` change the margin
        lines = body.split("\n")
        if any(line and not line.strip(" ") for line in lines):
            raise Unreadable  # Ruby 3.1 computes the margin of the line after a line of spaces wrongly
        margin = min((len(line) - len(line.lstrip(" ")) for line in lines if line.strip(" ")), default=0)
        body = "\n".join(line[min(margin, len(line) - len(line.lstrip(" "))) :] for line in lines)
    return body if raw else unescape(body)
