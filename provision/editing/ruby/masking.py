"""Secrets blanked out of gitlab.rb's text, line for line: known ones, and what stands under a telling name.

The unified diff of two gitlab.rb texts that people may see.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from difflib import SequenceMatcher
from typing import TYPE_CHECKING

from provision.editing.ruby.syntax import Document, evaluate, parse, parse_once
from provision.editing.ruby.values import render_string
from provision.secret import MASK, Secret, mask, reveal

if TYPE_CHECKING:
    from tree_sitter import Node


_TELLING = (
    r"passw(?:or)?d|passphrase|secret|token|access_?key|private|credential|authorization|key_base|encryption_key|_salt"
)
_TELLS = re.compile(_TELLING, re.IGNORECASE)
_BY_NAME = re.compile(
    rf"(?P<keep>[\w'\":\[\]-]*(?:{_TELLING})[\w'\"\]-]*\s*(?:=>|=|:|\s(?=['\"]))\s*)(?P<value>[^\s{{\[].*)",
    re.IGNORECASE,
)
_IN_URL = re.compile(r"(://[^/\s:@'\"]*:)[^@/\s'\"]+(?=@)")
_LITERALS = (
    "[(string) (integer) (float) (heredoc_beginning) (string_array) (delimited_symbol) (chained_string)] @literal"
)
_GIVEN = re.compile(
    rf"(?:{_TELLING})[\w'\"\]-]*\s*(?:=>|=|:|\s)\s*(?:'(?P<single>[^'\n]+)'|\"(?P<double>[^\"\n]+)\")", re.IGNORECASE
)
_SHORTEST_SEEN = 8  # what is shorter, or an address, is as likely no secret, and masking it would blank innocent words
_SHORTEST = 4  # shorter secrets are found as whole literals only


def secrets_in(text: bytes) -> list[str]:
    """What stands under a telling name in lines that count, to be masked in what programs say of the file.

    Judged line by line, without parsing: it is asked in every run.
    """
    lines = (line for line in text.decode("utf-8", "replace").splitlines() if not line.lstrip().startswith("#"))
    found = (one["single"] or one["double"] for line in lines for one in _GIVEN.finditer(line))
    return [one for one in found if len(one) >= _SHORTEST_SEEN and "://" not in one and not one.startswith("/")]


def mask_source(source: str, secrets: Collection[str]) -> str:
    """A statement's source for people."""
    lines = MaskedLines(parse_once(source.encode()), secrets)
    return "\n".join(lines[number] for number in range(len(lines)))


class MaskedLines:
    """The text's lines without their ends, `***` in place of secrets; as many as `text.split(b"\\n")`.

    Masked are literals under names that speak of secrets, literals that equal one of `secrets`, passwords in URLs,
    and, in comments, heredocs and broken Ruby, whatever follows such a name on its line.
    """

    def __init__(self, document: Document, secrets: Collection[str]) -> None:
        text, pieces, at = document.text, [], 0
        for start, end in _spans(document, frozenset(secrets)):
            if end > at:
                hidden = b"\n".join([MASK.encode()] * (text.count(b"\n", max(start, at), end) + 1))
                pieces += [text[at : max(start, at)], hidden]
                at = end
        self._lines = b"".join([*pieces, text[at:]]).split(b"\n")
        self._loose = _loose_lines(document)
        self._known = sorted({form for secret in secrets for form in _forms(secret)}, key=len, reverse=True)

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, number: int) -> str:
        line = self._lines[number].decode(errors="replace").rstrip("\r")
        if (number in self._loose or line.lstrip().startswith("#")) and _TELLS.search(line):
            line = _BY_NAME.sub(lambda found: found["keep"] + MASK, line)
        for form in self._known:
            line = line.replace(form, MASK)
        return mask(_IN_URL.sub(rf"\1{MASK}", line))


def _forms(secret: str) -> Iterator[str]:
    for form in (secret, render_string(secret)[1:-1], *secret.splitlines()):
        if len(form) >= _SHORTEST:
            yield form


def _loose_lines(document: Document) -> set[int]:
    """The 0-based rows that are judged by the line: heredocs' texts, and all of a file that is not Ruby."""
    if document.error_line is not None:
        return set(range(document.text.count(b"\n") + 1))
    if b"<<" not in document.text:
        return set()
    return {row for body in document.heredocs.values() for row in range(body.start_point.row, body.end_point.row + 1)}


def _spans(document: Document, secrets: frozenset[str]) -> list[tuple[int, int]]:
    """The bytes to hide, in order."""
    spans: list[tuple[int, int]] = []
    if document.error_line is not None:
        return spans  # where literals begin and end is anyone's guess: its lines are judged one by one
    for node in document.captured(_LITERALS):
        if not _told(document, node) and not (secrets and _equals(document, node, secrets)):
            continue
        if node.type == "heredoc_beginning":
            body = document.heredocs.get(node.start_byte)
            if body is not None and body.children:
                spans.append((document.line_end(body.start_byte), max(body.children[-1].start_byte - 1, 0)))
        elif node.type == "string":
            spans.append((node.children[0].end_byte, node.children[-1].start_byte))
        else:
            spans.append((node.start_byte, node.end_byte))
    return sorted(span for span in spans if span[0] < span[1])


def _equals(document: Document, node: Node, secrets: frozenset[str]) -> bool:
    value = evaluate(document, node)
    return any(item in secrets for item in (value if isinstance(value, list) else [value]) if isinstance(item, str))


def _told(document: Document, node: Node) -> bool:
    """A name above the literal speaks of secrets: a hash's key, a setting's part, a method."""
    child, parent = node, node.parent
    while parent is not None and parent.type != "program":
        name = {"pair": "key", "assignment": "left", "operator_assignment": "left", "call": "method"}.get(parent.type)
        named = parent.child_by_field_name(name) if name else None
        if named is not None and named.id != child.id:
            text = document.source(named).decode(errors="replace")
            if _TELLS.search(text) and child.type != "block":
                return True
        elif parent.type == "element_reference" or named is not None:
            return False  # the literal is a key itself
        child, parent = parent, parent.parent
    return False


_CONTEXT = 3  # lines around a change, as diff -u shows


def masked_diff(
    before: bytes, after: bytes, secrets: Collection[str | Secret] = (), path: str = "/etc/gitlab/gitlab.rb"
) -> str:
    """`diff -u` of the two, labelled `path`, with `***` for secrets on changed and context lines alike; "" when equal.

    A secret that changed shows as two lines that look alike: the comparison is made before the masking.
    """
    if before == after:
        return ""
    hidden = {reveal(secret) for secret in secrets}
    # Only the differing middle is compared: the rest of thousands of lines is common.
    old, new = before.split(b"\n"), after.split(b"\n")
    limit, head = min(len(old), len(new)), 0
    while head < limit and old[head] == new[head]:
        head += 1
    head = max(head - _CONTEXT, 0)
    shown_old, shown_new = MaskedLines(parse(before), hidden), MaskedLines(parse(after), hidden)
    matcher = SequenceMatcher(None, old[head:], new[head:])
    lines = [f"--- {path}", f"+++ {path}"]
    for group in matcher.get_grouped_opcodes(_CONTEXT):
        lines += _hunk(group, head, shown_old, shown_new)
    return "\n".join(lines) + "\n"


def _hunk(group: list[tuple[str, int, int, int, int]], head: int, old: MaskedLines, new: MaskedLines) -> Iterator[str]:
    first, last = group[0], group[-1]
    body: list[str] = []
    for tag, i1, i2, j1, j2 in group:
        if tag == "equal":
            body += [" " + line for line in _real(old, i1 + head, i2 + head)]
            continue
        body += ["-" + line for line in _real(old, i1 + head, i2 + head)]
        body += ["+" + line for line in _real(new, j1 + head, j2 + head)]
    yield f"@@ -{_range(first[1] + head, last[2] + head, old)} +{_range(first[3] + head, last[4] + head, new)} @@"
    yield from body


def _real(lines: MaskedLines, start: int, end: int) -> Iterator[str]:
    """Lines `start` to `end`; the empty piece after the final newline is none, and a missing one is told."""
    for number in range(start, end):
        if number < len(lines) - 1:
            yield lines[number]
        elif lines[number]:
            yield f"{lines[number]}\n\\ No newline at end of file"


def _range(start: int, end: int, lines: MaskedLines) -> str:
    if end == len(lines) and not lines[len(lines) - 1]:
        end = max(end - 1, start)
    count = end - start
    return f"{start + 1 if count else start},{count}" if count != 1 else f"{start + 1}"
