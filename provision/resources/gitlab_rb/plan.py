"""Edits gathered for one text: splices, what each setting's statements were and become, and notes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from provision.resources.gitlab_rb.paths import Path, spell
from provision.resources.gitlab_rb.render import render
from provision.resources.gitlab_rb.splices import Splice, bodies, encoded, join, rewrite
from provision.resources.gitlab_rb.values import Plain

if TYPE_CHECKING:
    from tree_sitter import Node

    from provision.resources.gitlab_rb.locate import Place
    from provision.resources.gitlab_rb.syntax import Document


class Plan:
    """Collects; `text()` is the outcome."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.splices: list[Splice] = []
        self.notes: list[str] = []
        self._touched: dict[Path, dict[int, Node]] = {}
        self._added: dict[Path, list[str]] = {}

    def text(self) -> bytes:
        return join(self.document.text, self.splices)

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def add(self, path: Path, at: int, setting: Path, value: Plain) -> None:
        """A new line at byte `at`, a line's start, that sets `setting`, for the sake of the wanted `path`."""
        source = spell(setting, render(value, ascii_only=not self.document.utf8))
        first = not any(splice.start == splice.end == at for splice in self.splices)
        broken = at > self.document.start and self.document.text[at - 1 : at] != b"\n" and first
        self.splices.append(Splice(at, at, encoded(self.document, ("\n" if broken else "") + source + "\n")))
        self._added.setdefault(path, []).append(source)

    def rewrite(self, path: Path, place: Place, node: Node, value: Plain) -> None:
        """The value node `node` inside `place` becomes `value`."""
        self._touch(path, place)
        self.splices += rewrite(self.document, node, value)

    def respell(self, path: Path, place: Place, value: Plain) -> None:
        """The whole statement of `place` is written anew: `||=`, several arguments."""
        self._touch(path, place)
        source = spell(place.path, render(value, ascii_only=not self.document.utf8))
        node = place.node
        self.splices.append(Splice(node.start_byte, node.end_byte, encoded(self.document, source)))
        self.splices += bodies(self.document, node)

    def drop(self, path: Path, place: Place) -> None:
        """The statement of `place` goes, with its line when it has it for itself, a comment behind it included."""
        self._touch(path, place)
        document, node = self.document, place.statement
        start, end = document.line_start(node.start_byte), document.line_end(node.end_byte)
        behind = document.text[node.end_byte : end].strip().removeprefix(b";").lstrip()
        if not document.text[start : node.start_byte].strip() and (not behind or behind.startswith(b"#")):
            self.splices.append(Splice(start, document.after(node.end_byte - 1), b""))
            return
        after, before = node.next_sibling, node.prev_sibling
        start, end = node.start_byte, node.end_byte
        if after is not None and after.type == ";":
            end = after.end_byte
            end += len(document.text[end:]) - len(document.text[end:].lstrip(b" \t"))
        elif before is not None and before.type == ";":
            start = before.start_byte
        self.splices += [Splice(start, end, b""), *bodies(document, node)]

    def _touch(self, path: Path, place: Place) -> None:
        self._touched.setdefault(path, {})[place.statement.start_byte] = place.statement

    def sources(self) -> list[tuple[Path, str | None, str | None]]:
        """Per setting, in order: its touched statements before, and the same with new ones after."""
        told: list[tuple[Path, str | None, str | None]] = []
        for path in dict.fromkeys([*self._touched, *self._added]):
            nodes = list(self._touched.get(path, {}).values())
            old = [self.document.source(node).decode(errors="replace") for node in nodes]
            new = [self._after(node) for node in nodes] + self._added.get(path, [])
            told.append((path, "\n".join(old) or None, "\n".join(text for text in new if text) or None))
        return told

    def _after(self, node: Node) -> str:
        start, end = node.start_byte, node.end_byte
        inside = [splice for splice in self.splices if splice.start < end and splice.end > start]
        if any(splice.start <= start and splice.end >= end and not splice.new for splice in inside):
            return ""
        held = [
            s for s in self.splices if start <= s.start and s.end <= end and (s.start < s.end or start < s.start < end)
        ]
        return join(self.document.text, held, start, end).decode(errors="replace")
