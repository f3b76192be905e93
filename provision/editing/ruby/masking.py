"""Secrets in gitlab.rb, and its masked diff."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Final

from provision.editing.diff import Span, masked_diff
from provision.editing.ruby.source import RubyDocument, evaluate, parse
from provision.editing.ruby.values import render_string
from provision.secret import Secret, is_secret_name, reveal, secret_values

if TYPE_CHECKING:
    from tree_sitter import Node

_LITERALS: Final = (
    "[(string) (integer) (float) (heredoc_beginning) (string_array) (delimited_symbol) (chained_string)] @literal"
)
_SHORTEST_STRING: Final = 8  # shorter strings, addresses and paths are probably not secret
_SHORTEST_FORM: Final = 4  # shorter secrets are only found as whole literals
_NAMED_BY: Final = {"pair": "key", "assignment": "left", "operator_assignment": "left", "call": "method"}


def diff(
    before: bytes, after: bytes, secrets: Collection[str | Secret] = (), path: str = "/etc/gitlab/gitlab.rb"
) -> str:
    """Return the masked diff of two gitlab.rb contents; see `find_secrets` for what is masked."""
    texts = frozenset(reveal(secret) for secret in secrets)
    return masked_diff(path, before, after, lambda content: find_secrets(content, texts))


def secret_strings(content: bytes) -> list[str]:
    """Return the string literals after secret-looking names, so that they can be masked in programs' output.

    It reads lines without parsing, since every run calls it. Comments are skipped, and so are short strings, addresses
    and paths.
    """
    lines = [line for line in content.decode("utf-8", "replace").splitlines() if not line.lstrip().startswith("#")]
    text = "\n".join(lines)
    strings = [text[start:end] for start, end in secret_values(text) if text[start - 1] in "'\""]
    return [one for one in strings if len(one) >= _SHORTEST_STRING and "://" not in one and not one.startswith("/")]


def find_secrets(content: bytes, secrets: Collection[str] = ()) -> Iterator[Span]:
    """Find the secrets that a diff of gitlab.rb must mask.

    These are literals under secret-looking names (of a hash's key, a setting's part or a method), literals that equal
    one of `secrets`, and the text of `secrets` anywhere. In comments, in heredocs, inside other strings and in a file
    that is not valid Ruby these are the values after secret-looking names.
    """
    document = parse(content)
    for form in {form for secret in secrets for form in _forms(secret)}:
        yield from (found.span() for found in re.finditer(re.escape(form.encode()), content))
    if document.error_line is not None:  # where literals begin and end is uncertain
        yield from _values_in(content, 0, len(content))
        return
    for node in document.captured("(comment) @comment"):
        yield from _values_in(content, node.start_byte, node.end_byte)
    for node in document.captured(_LITERALS):
        start, end = _inner(document, node)
        if _has_secret_name(document, node) or (secrets and _equals(document, node, secrets)):
            yield start, end
        elif node.type in ("string", "heredoc_beginning"):
            yield from _values_in(content, start, end)


def _values_in(content: bytes, start: int, end: int) -> Iterator[Span]:
    text = content[start:end].decode("latin-1")  # one letter for each byte, so that offsets are those of the content
    yield from ((start + first, start + last) for first, last in secret_values(text))


def _forms(secret: str) -> Iterator[str]:
    """How a secret may be written: as it is, with Ruby's escapes, line by line."""
    for form in (secret, render_string(secret)[1:-1], *secret.splitlines()):
        if len(form) >= _SHORTEST_FORM:
            yield form


def _inner(document: RubyDocument, node: Node) -> Span:
    """The bytes of a literal's value: inside the quotes, the lines of a heredoc, else the whole literal."""
    if node.type == "string":
        return node.children[0].end_byte, node.children[-1].start_byte
    if node.type != "heredoc_beginning":
        return node.start_byte, node.end_byte
    body = document.heredocs.get(node.start_byte)
    if body is None or not body.children:
        return node.end_byte, node.end_byte
    return document.line_end(body.start_byte), max(body.children[-1].start_byte - 1, 0)


def _equals(document: RubyDocument, node: Node, secrets: Collection[str]) -> bool:
    value = evaluate(document, node)
    return any(item in secrets for item in (value if isinstance(value, list) else [value]) if isinstance(item, str))


def _has_secret_name(document: RubyDocument, node: Node) -> bool:
    """Whether a name around the literal indicates a secret: a hash's key, a part of a setting, a method."""
    child, parent = node, node.parent
    while parent is not None and parent.type != "program":
        field = _NAMED_BY.get(parent.type)
        name = parent.child_by_field_name(field) if field else None
        if name is not None and name.id != child.id:
            words = re.findall(r"[\w-]+", document.source(name).decode(errors="replace"))
            if child.type != "block" and any(map(is_secret_name, words)):
                return True
        elif parent.type == "element_reference" or name is not None:
            return False  # the literal is a key itself
        child, parent = parent, parent.parent
    return False
