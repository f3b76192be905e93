"""What the file comes to for one setting: its places, applied in order. The last assignment counts.

Every place in the file that sets, or may set, what lies under some top-level names.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from provision.editing.ruby.syntax import Path, covers, evaluate, pairs, related, valid
from provision.editing.ruby.values import MISSING, Missing, NotLiteral, Plain, lookup, same

if TYPE_CHECKING:
    from tree_sitter import Node

    from provision.editing.ruby.syntax import Document


def effective(text: bytes, path: Path) -> Plain | NotLiteral | Missing:
    """The value that `path` has once Ruby has read the file; MISSING when nothing sets it, NotLiteral (with its line)
    when only Ruby knows. Hashes are whole; inside them single values may be NotLiteral. Symbols read as text.

    Raises Refused for a file that is not sound Ruby.
    """
    return fold(places(valid(text), path[:1]).near(path), path)


def fold(found: Iterable[Place], path: Path) -> Plain:
    """The value at `path` after all `found` places, which are related to it and in order."""
    value: Plain = MISSING
    for place in found:
        if place.kind == "variable" and len(path) > 1:
            return NotLiteral(place.line, f"{path[0]} is a local variable from there on")
        if place.kind == "change":
            value = NotLiteral(place.line, "changed in place")
        elif place.kind == "set":
            applied = apply(value, place.path, place.literal, path, place.line)
            if place.how != "conditional":
                value = applied
            elif not same(applied, value):
                value = NotLiteral(place.line, f"depends on {place.context}")
    return value


def apply(value: Plain, at: Path, new: Plain, path: Path, line: int) -> Plain:
    """`value` of `path` after `at` was assigned `new`."""
    if covers(at, path):
        return lookup(new, path[len(at) :])
    return put(value, at[len(path) :], new, line)


def put(value: Plain, keys: Path, new: Plain, line: int) -> Plain:
    """A copy of `value` with `new` under `keys`; what is missing on the way springs up as hashes."""
    if not keys:
        return new
    if isinstance(value, NotLiteral):
        return value
    if isinstance(value, Missing):
        value = {}
    if not isinstance(value, dict):
        return NotLiteral(line, "set inside something that is no hash")
    return {**value, keys[0]: put(value.get(keys[0], MISSING), keys[1:], new, line)}


How = Literal["plain", "entangled", "conditional"]
"""plain: a statement of its own. entangled: always runs, cannot be edited alone. conditional: inside `if`, a block …"""
Kind = Literal["set", "change", "unseen", "variable"]
"""set: an assignment. change: altered in place (`<<`, `delete`). unseen: under a key only Ruby knows, through a block
or a second name. variable: a local variable of the setting's name."""

_CHANGERS = {
    *("<<", "push", "append", "unshift", "prepend", "insert", "concat", "replace", "delete", "delete_at", "clear"),
    *("delete_if", "keep_if", "fill", "pop", "shift", "default="),
}
_INCLUDES = {b"from_file", b"load", b"eval", b"instance_eval"}
_ASSIGNMENTS = ("assignment", "operator_assignment")


@dataclass(frozen=True)
class Place:
    """One such place. `value` is the node of what is assigned, `statement` the top-level node it stands in."""

    path: Path
    kind: Kind
    how: How
    document: Document = field(repr=False)
    node: Node = field(repr=False)
    statement: Node = field(repr=False)
    value: Node | None = field(repr=False, default=None)

    @property
    def line(self) -> int:
        return self.document.line(self.node.start_byte)

    @property
    def literal(self) -> Plain:
        """The assigned value, NotLiteral where only Ruby knows it."""
        if self.kind != "set" or self.value is None:
            return NotLiteral(self.line)
        return evaluate(self.document, self.value)

    @property
    def context(self) -> str:
        """What keeps the place from being edited, in the file's words."""
        if self.kind == "change":
            return "a change in place"
        if self.how == "entangled":
            return "one statement with more"
        word = self.statement.type.removesuffix("_modifier")
        if word in ("if", "unless", "while", "until", "case", "begin", "for", "rescue"):
            return f"`{word}`"
        return {"call": "a block", "method": "a method", "binary": "`and`/`or`"}.get(word, "an expression")


class Places(list[Place]):
    """Places in the order Ruby reaches them."""

    def near(self, path: Path) -> list[Place]:
        """Those that bear on `path`."""
        if len(path) == 1:
            return [place for place in self if place.path[0] == path[0]]
        return [place for place in self._near.get(path[:2], self._near.get(path[:1], ())) if related(place.path, path)]

    @cached_property
    def _near(self) -> dict[Path, list[Place]]:
        """By the first two parts of a path, and by the first alone for what bears on all under it."""
        found: dict[Path, list[Place]] = {}
        for key in dict.fromkeys(place.path[:2] for place in self):
            found[key] = []
        for place in self:
            head = place.path[:2]
            for bucket in [head] if len(head) > 1 else [key for key in found if key[:1] == head]:
                found[bucket].append(place)
        return found


def places(document: Document, roots: Collection[str]) -> Places:
    """All places under the top-level names `roots`."""
    words = [root.encode() for root in roots]
    finder = _Finder(document, frozenset(roots))
    found = Places()
    for statement in document.statements:
        source = document.source(statement)
        if any(word in source for word in words):
            finder.statement = statement
            found += finder.effects(statement, "plain")
    return found


def includes(document: Document) -> list[int]:
    """The lines that take in other Ruby: `from_file` and the like may set what is not seen here."""
    if not any(word in document.text for word in _INCLUDES):
        return []
    return [document.line(node.start_byte) for node in document.statements if _includes(document, node)]


def _includes(document: Document, node: Node) -> bool:
    method = node.child_by_field_name("method") if node.type == "call" else None
    if method is not None and document.source(method) in _INCLUDES:
        return True
    return any(_includes(document, child) for child in node.named_children)


class _Finder:
    """Walks one top-level statement."""

    statement: Node

    def __init__(self, document: Document, roots: frozenset[str]) -> None:
        self._document = document
        self._roots = roots
        self._telling = re.compile(b"|".join([rb"<<", rb"=(?!>)", *(re.escape(root.encode()) for root in roots)]))

    def effects(self, node: Node, how: How) -> Iterator[Place]:
        if node.type in _ASSIGNMENTS:
            yield from self._assignment(node, how)
        elif node.type == "call":
            yield from self._call(node, how)
        else:
            if node.type == "binary" and (operator := node.child_by_field_name("operator")) is not None:
                left = node.child_by_field_name("left")
                target = self._path(left) if self._document.source(operator) == b"<<" else None
                if target:
                    yield self._place(target[0], "change", how, node)
            yield from self._inside(node)

    def _inside(self, node: Node) -> Iterator[Place]:
        for child in node.named_children:
            yield from self.effects(child, "conditional")

    def _place(self, path: Path, kind: Kind, how: How, node: Node, value: Node | None = None) -> Place:
        return Place(path, kind, how, self._document, node, self.statement, value)

    def _assignment(self, node: Node, how: How) -> Iterator[Place]:
        left, right = node.child_by_field_name("left"), node.child_by_field_name("right")
        if left is None or right is None:
            return
        busy = self._telling.search(self._document.source(right)) is not None  # most values are plain to see
        if not busy:
            pass
        elif right.type in _ASSIGNMENTS:  # a['x'] = b['y'] = 1
            yield from self.effects(right, "conditional" if how == "conditional" else "entangled")
        else:
            yield from self._inside(right) if right.type != "call" else self._call(right, "conditional")
        several = left.type == "left_assignment_list"
        alone = not several and not (busy and _assigns(right))
        for target in left.named_children if several else [left]:
            own_how = how if alone or how == "conditional" else "entangled"
            value = right if node.type == "assignment" and not several else None
            while value is not None and value.type == "assignment":
                value = value.child_by_field_name("right")
            yield from self._target(target, node, own_how, value, right)

    def _target(self, target: Node, node: Node, how: How, value: Node | None, right: Node) -> Iterator[Place]:
        found = self._path(target)
        if target.type == "identifier":
            if found:
                yield self._place(found[0], "variable", how, node)
            second = self._path(right)
            if second:
                yield self._place(second[0], "unseen", how, node)
        elif found:
            yield self._place(found[0], "set" if found[1] else "unseen", how, node, value)

    def _call(self, node: Node, how: How) -> Iterator[Place]:
        receiver, arguments = node.child_by_field_name("receiver"), node.child_by_field_name("arguments")
        method = node.child_by_field_name("method")
        name = self._document.source(method).decode(errors="replace") if method is not None else ""
        given = [child for child in arguments.named_children if child.type != "comment"] if arguments else []
        if receiver is None or receiver.type == "self":
            if name in self._roots and given:
                value = given[0] if len(given) == 1 else None
                own_how: How = "entangled" if how == "plain" and any(map(_assigns, given)) else how
                yield from self._inside(node)
                yield self._place((name,), "set", own_how, node, value)
                return
        elif found := self._path(receiver):
            yield from self._method(found[0], name, given, node, how)
        yield from self._inside(node)

    def _method(self, path: Path, name: str, given: list[Node], node: Node, how: How) -> Iterator[Place]:
        """`registry.merge!({…})`, `registry['storage'].delete('s3')` and their like."""
        entangled: How = "conditional" if how == "conditional" else "entangled"
        if name in ("merge!", "update"):
            bare = all(argument.type == "pair" for argument in given)  # merge!('a' => 1)
            hashes = node.child_by_field_name("arguments") if bare else given[0] if len(given) == 1 else None
            held = pairs(self._document, hashes) if hashes is not None and (bare or hashes.type == "hash") else None
            for pair in held or ():
                yield self._place((*path, str(pair.key)), "set", entangled, node, pair.value)
            if held is not None:
                return
        key = evaluate(self._document, given[0]) if given else None
        if isinstance(key, str) and name in ("store", "delete"):
            if name == "store" and len(given) == 2:
                yield self._place((*path, str(key)), "set", entangled, node, given[1])
            else:
                yield self._place((*path, str(key)), "change", how, node)
        elif name in _CHANGERS or name.endswith("!") or name == "update":
            yield self._place(path, "change", how, node)
        elif node.child_by_field_name("block") is not None:
            yield self._place(path, "unseen", how, node)

    def _path(self, node: Node | None) -> tuple[Path, bool] | None:
        """The path a reference spells, and whether all its keys are known; None for anything else."""
        if node is None:
            return None
        if node.type == "identifier" or (node.type == "call" and node.child_by_field_name("arguments") is None):
            receiver = node.child_by_field_name("receiver") if node.type == "call" else None
            if receiver is not None and receiver.type != "self":
                return None
            named = node.child_by_field_name("method") if node.type == "call" else node
            name = self._document.source(named).decode(errors="replace") if named is not None else ""
            return ((name,), True) if name in self._roots else None
        if node.type != "element_reference":
            return None
        target, keys = node.child_by_field_name("object"), node.named_children[1:]
        key = evaluate(self._document, keys[0]) if len(keys) == 1 else None
        if target is not None and target.type == "constant" and self._document.source(target) == b"Gitlab":
            return ((str(key),), True) if isinstance(key, str) and str(key) in self._roots else None
        outer = self._path(target)
        if outer is None:
            return None
        known = outer[1] and isinstance(key, str)
        return (*outer[0], str(key)) if known else outer[0], known


def _assigns(node: Node) -> bool:
    """Something is assigned inside `node`, so that it cannot be replaced alone."""
    return node.type in _ASSIGNMENTS or any(_assigns(child) for child in node.named_children)
