"""Literal values, read from the tree."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from provision.resources.gitlab_rb.strings import Unreadable, heredoc, quoted
from provision.resources.gitlab_rb.values import NotLiteral, Plain, Symbol

if TYPE_CHECKING:
    from tree_sitter import Node

    from provision.resources.gitlab_rb.syntax import Document

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
