"""Finding the statements of gitlab.rb that set a setting, and its value. The last assignment counts."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from provision.editing.document import same
from provision.editing.ruby.source import evaluate, pairs, parse_valid
from provision.editing.ruby.values import MISSING, Missing, NotLiteral, Path, Plain, covers, lookup, related

if TYPE_CHECKING:
    from tree_sitter import Node

    from provision.editing.ruby.source import RubyDocument


def effective(content: bytes, path: Path) -> Plain | NotLiteral | Missing:
    """Return the value that `path` has once Ruby has read the file.

    MISSING when nothing sets it; NotLiteral (with its line) when only Ruby can compute it. Values inside a hash may be
    NotLiteral. Symbols become text. Raises Refused for a file that is not valid Ruby.
    """
    return value_after(find_assignments(parse_valid(content), path[:1]).affecting(path), path)


def value_after(assignments: Iterable[Assignment], path: Path) -> Plain:
    """Return the value of `path` after all `assignments`, which affect it and are in order."""
    value: Plain = MISSING
    for one in assignments:
        if one.kind == "local" and len(path) > 1:
            return NotLiteral(one.line, f"{path[0]} is a local variable from there on")
        if one.kind == "mutation":
            value = NotLiteral(one.line, "changed in place")
        elif one.kind == "set":
            assigned = value_after_assignment(value, one.path, one.literal, path, one.line)
            if one.how != "conditional":
                value = assigned
            elif not same(assigned, value):
                value = NotLiteral(one.line, f"depends on {one.context}")
    return value


def value_after_assignment(value: Plain, at: Path, new: Plain, path: Path, line: int) -> Plain:
    """Return the new value of `path`, which has `value`, after `new` is assigned to `at`."""
    if covers(at, path):
        return lookup(new, path[len(at) :])
    return with_key(value, at[len(path) :], new, line)


def with_key(value: Plain, keys: Path, new: Plain, line: int) -> Plain:
    """Return a copy of `value` with `new` under `keys`; missing hashes are created, as omnibus does."""
    if not keys:
        return new
    if isinstance(value, NotLiteral):
        return value
    if isinstance(value, Missing):
        value = {}
    if not isinstance(value, dict):
        return NotLiteral(line, "set inside something that is not a hash")
    return {**value, keys[0]: with_key(value.get(keys[0], MISSING), keys[1:], new, line)}


How = Literal["plain", "combined", "conditional"]
"""plain: a statement of its own. combined: always runs, and cannot be edited alone. conditional: inside `if`, a block …"""
Kind = Literal["set", "mutation", "opaque", "local"]
"""set: an assignment. mutation: changed in place (`<<`, `delete`). opaque: set under a computed key, in a block
or through an alias. local: a local variable with the setting's name, which GitLab never reads."""

_MUTATING_METHODS = {
    *("<<", "push", "append", "unshift", "prepend", "insert", "concat", "replace", "delete", "delete_at", "clear"),
    *("delete_if", "keep_if", "fill", "pop", "shift", "default="),
}
_INCLUDES = {b"from_file", b"load", b"eval", b"instance_eval"}
_READS_RUBY = {b"self", b"Kernel", b"::Kernel"}
_ASSIGNMENT_NODES = ("assignment", "operator_assignment")


@dataclass(frozen=True)
class Assignment:
    """A statement, or a part of one, that sets or may set `path`.

    node       the assignment or call itself
    statement  the top-level node that contains it
    value      the node of what is assigned, where there is one
    """

    path: Path
    kind: Kind
    how: How
    document: RubyDocument = field(repr=False)
    node: Node = field(repr=False)
    statement: Node = field(repr=False)
    value: Node | None = field(repr=False, default=None)

    @property
    def line(self) -> int:
        """The line of the file, from 1."""
        return self.document.line(self.node.start_byte)

    @property
    def literal(self) -> Plain:
        """The assigned value; NotLiteral where only Ruby can compute it."""
        if self.kind != "set" or self.value is None:
            return NotLiteral(self.line)
        return evaluate(self.document, self.value)

    @property
    def context(self) -> str:
        """The construct that prevents an edit, for messages: "`if`", "a block"."""
        if self.kind == "mutation":
            return "a change in place"
        if self.how == "combined":
            return "a statement that does more"
        word = self.statement.type.removesuffix("_modifier")
        if word in ("if", "unless", "while", "until", "case", "begin", "for", "rescue"):
            return f"`{word}`"
        return {"call": "a block", "method": "a method", "binary": "`and`/`or`"}.get(word, "an expression")


class Assignments(list[Assignment]):
    """Assignments in the order in which Ruby runs them."""

    def affecting(self, path: Path) -> list[Assignment]:
        """Return those that can change the value of `path`."""
        if len(path) == 1:
            return [one for one in self if one.path[0] == path[0]]
        candidates = self._by_head.get(path[:2], self._by_head.get(path[:1], ()))
        return [one for one in candidates if related(one.path, path)]

    @cached_property
    def _by_head(self) -> dict[Path, list[Assignment]]:
        """By the first two parts of a path. An assignment to one part alone is listed for every path below it."""
        found: dict[Path, list[Assignment]] = {}
        for key in dict.fromkeys(one.path[:2] for one in self):
            found[key] = []
        for one in self:
            head = one.path[:2]
            for key in [head] if len(head) > 1 else [key for key in found if key[:1] == head]:
                found[key].append(one)
        return found


def find_assignments(document: RubyDocument, roots: Collection[str]) -> Assignments:
    """Find all assignments under the top-level names `roots`."""
    words = [root.encode() for root in roots]
    finder = _Finder(document, frozenset(roots))
    found = Assignments()
    for statement in document.statements:
        source = document.source(statement)
        if any(word in source for word in words):
            finder.statement = statement
            found += finder.assignments(statement, "plain")
    return found


def find_includes(document: RubyDocument) -> list[int]:
    """Return the lines that read other Ruby files: those may contain further assignments."""
    if not any(word in document.content for word in _INCLUDES):
        return []
    return [document.line(node.start_byte) for node in document.statements if _includes(document, node)]


def _includes(document: RubyDocument, node: Node) -> bool:
    method = node.child_by_field_name("method") if node.type == "call" else None
    if method is not None and (name := document.source(method)) in _INCLUDES:
        receiver = node.child_by_field_name("receiver")
        # `YAML.load` reads data, not Ruby; the arguments of both may contain an include.
        if name != b"load" or receiver is None or document.source(receiver) in _READS_RUBY:
            return True
    return any(_includes(document, child) for child in node.named_children)


class _Finder:
    """Finds the assignments in one top-level statement."""

    statement: Node

    def __init__(self, document: RubyDocument, roots: frozenset[str]) -> None:
        self._document = document
        self._roots = roots
        escaped = (re.escape(root.encode()) for root in roots)
        self._may_assign = re.compile(b"|".join([rb"<<", rb"=(?!>)", *escaped]))

    def assignments(self, node: Node, how: How) -> Iterator[Assignment]:
        if node.type in _ASSIGNMENT_NODES:
            yield from self._from_assignment(node, how)
        elif node.type == "call":
            yield from self._from_call(node, how)
        else:
            if node.type == "binary" and (operator := node.child_by_field_name("operator")) is not None:
                left = node.child_by_field_name("left")
                target = self._path(left) if self._document.source(operator) == b"<<" else None
                if target:
                    yield self._found(target[0], "mutation", how, node)
            yield from self._inside(node)

    def _inside(self, node: Node) -> Iterator[Assignment]:
        for child in node.named_children:
            yield from self.assignments(child, "conditional")

    def _found(self, path: Path, kind: Kind, how: How, node: Node, value: Node | None = None) -> Assignment:
        return Assignment(path, kind, how, self._document, node, self.statement, value)

    def _from_assignment(self, node: Node, how: How) -> Iterator[Assignment]:
        left, right = node.child_by_field_name("left"), node.child_by_field_name("right")
        if left is None or right is None:
            return
        nested = self._may_assign.search(self._document.source(right)) is not None  # most values are simple literals
        if nested and right.type in _ASSIGNMENT_NODES:  # a['x'] = b['y'] = 1
            yield from self.assignments(right, "conditional" if how == "conditional" else "combined")
        elif nested:
            yield from self._inside(right) if right.type != "call" else self._from_call(right, "conditional")
        several = left.type == "left_assignment_list"
        alone = not several and not (nested and _assigns(right))
        for target in left.named_children if several else [left]:
            own_how = how if alone or how == "conditional" else "combined"
            value = right if node.type == "assignment" and not several else None
            while value is not None and value.type == "assignment":
                value = value.child_by_field_name("right")
            yield from self._from_target(target, node, own_how, value, right)

    def _from_target(self, target: Node, node: Node, how: How, value: Node | None, right: Node) -> Iterator[Assignment]:
        found = self._path(target)
        if target.type == "identifier":
            if found:
                yield self._found(found[0], "local", how, node)
            second_name = self._path(right)
            if second_name:
                yield self._found(second_name[0], "opaque", how, node)
        elif found:
            yield self._found(found[0], "set" if found[1] else "opaque", how, node, value)

    def _from_call(self, node: Node, how: How) -> Iterator[Assignment]:
        receiver, arguments = node.child_by_field_name("receiver"), node.child_by_field_name("arguments")
        method = node.child_by_field_name("method")
        name = self._document.source(method).decode(errors="replace") if method is not None else ""
        given = [child for child in arguments.named_children if child.type != "comment"] if arguments else []
        if receiver is None or receiver.type == "self":
            if name in self._roots and given:
                value = given[0] if len(given) == 1 else None
                own_how: How = "combined" if how == "plain" and any(map(_assigns, given)) else how
                yield from self._inside(node)
                yield self._found((name,), "set", own_how, node, value)
                return
        elif found := self._path(receiver):
            yield from self._from_method(found[0], name, given, node, how)
        yield from self._inside(node)

    def _from_method(self, path: Path, name: str, given: list[Node], node: Node, how: How) -> Iterator[Assignment]:
        """`registry.merge!({…})`, `registry['storage'].delete('s3')` and the like."""
        combined: How = "conditional" if how == "conditional" else "combined"
        if name in ("merge!", "update"):
            bare = all(argument.type == "pair" for argument in given)  # merge!('a' => 1)
            hashes = node.child_by_field_name("arguments") if bare else given[0] if len(given) == 1 else None
            found = pairs(self._document, hashes) if hashes is not None and (bare or hashes.type == "hash") else None
            for pair in found or ():
                yield self._found((*path, str(pair.key)), "set", combined, node, pair.value)
            if found is not None:
                return
        key = evaluate(self._document, given[0]) if given else None
        if isinstance(key, str) and name in ("store", "delete"):
            if name == "store" and len(given) == 2:
                yield self._found((*path, str(key)), "set", combined, node, given[1])
            else:
                yield self._found((*path, str(key)), "mutation", how, node)
        elif name in _MUTATING_METHODS or name.endswith("!") or name == "update":
            yield self._found(path, "mutation", how, node)
        elif node.child_by_field_name("block") is not None:
            yield self._found(path, "opaque", how, node)

    def _path(self, node: Node | None) -> tuple[Path, bool] | None:
        """Return the path that a reference names, and whether all its keys are known; None for anything else."""
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
    """Whether something is assigned inside `node`, so that it cannot be replaced alone."""
    return node.type in _ASSIGNMENT_NODES or any(_assigns(child) for child in node.named_children)
