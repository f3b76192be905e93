"""Taking a setting out again.

The edit: what is wanted and what shall go, done to the file's bytes with everything else left as it is.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal

from provision.editing.ruby.document import Plan
from provision.editing.ruby.locate import Place, Places, fold, includes, places
from provision.editing.ruby.masking import mask_source
from provision.editing.ruby.placement import settle
from provision.editing.ruby.syntax import Document, Path, covers, name, pairs, related, valid
from provision.editing.ruby.values import MISSING, Plain, Value, lookup, plain, same, secrets_in
from provision.errors import Refused


def take_out(plan: Plan, path: Path, found: Places, wanted: Collection[Path]) -> None:
    """Every plain assignment of `path`, and of what lies under it, goes; a key inside a wider hash literal too.

    What is also `wanted` is left to be settled; what cannot be taken safely stays, and a note names its line.
    """
    name(path)  # refuses what is no setting
    for place in found.near(path):
        if place.kind in ("unseen", "variable"):
            continue
        if any(covers(place.path, goal) or covers(goal, place.path) for goal in wanted):
            continue
        if covers(path, place.path):
            if place.how == "plain" and place.kind == "set":
                plan.drop(path, place)
            else:
                plan.note(f"line {place.line} also sets {name(path)}, in {place.context}: left as it is")
        elif lookup(place.literal, path[len(place.path) :]) is not MISSING:
            _take_key(plan, path, place)


def _take_key(plan: Plan, path: Path, place: Place) -> None:
    """`path` inside the hash that `place` assigns to something wider."""
    keys, node, value = path[len(place.path) :], place.value, place.literal
    for key in keys[:-1]:
        held = (pairs(plan.document, node) or []) if node is not None and node.type == "hash" else []
        node = next((pair.value for pair in held if pair.key == key), None)
        value = lookup(value, (key,))
    if place.how != "plain" or node is None or node.type != "hash" or not isinstance(value, dict):
        plan.note(f"line {place.line} also sets {name(path)}, as part of {name(place.path)}: left as it is")
        return
    rest: dict[str, Plain] = {key: item for key, item in value.items() if key != keys[-1]}
    plan.rewrite(path, place, node, rest)


@dataclass(frozen=True)
class Change:
    """One setting's change. The sources are the statements before and after, for people: secrets are `***` in them."""

    path: Path
    action: Literal["create", "update", "delete"]
    old_source: str | None
    new_source: str | None


@dataclass(frozen=True)
class Edit:
    """The new bytes (they hold secrets in clear), what changed, and what the reader should know of the file."""

    text: bytes = field(repr=False)
    changes: list[Change] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def edit(text: bytes, wanted: Mapping[Path, Value], remove: Collection[Path] = ()) -> Edit:
    """`text` with every `wanted` setting in force and every assignment of the `remove` ones gone.

    Equal values stay byte for byte, however they are written. Raises Refused, naming the line, for a file that is not
    sound Ruby, a setting that depends on a condition or is changed in place, and wanted paths that overlap.
    """
    secrets = {secret for value in wanted.values() for secret in secrets_in(value)}
    goals = {tuple(path): plain(value, name(tuple(path))) for path, value in wanted.items()}
    _disjoint(list(goals))
    changes: list[Change] = []
    notes: list[str] = []
    for path in remove:  # one after the other: they may be of one hash
        plan = Plan(valid(text))
        take_out(plan, tuple(path), places(plan.document, path[:1]), list(goals))
        text = _finish(plan, secrets, changes, notes)
    plan = Plan(valid(text))
    found = places(plan.document, {path[0] for path in goals})
    for path, value in goals.items():
        settle(plan, path, value, found)
    _warn(plan, goals, found)
    new = _finish(plan, secrets, changes, notes)
    if plan.splices:
        _prove(new, goals)
    return Edit(new, changes, list(dict.fromkeys(notes)))


def _finish(plan: Plan, secrets: set[str], changes: list[Change], notes: list[str]) -> bytes:
    for path, old, new in plan.sources():
        changes.append(
            Change(
                path,
                "create" if old is None else "delete" if new is None else "update",
                old and mask_source(old, secrets),
                new and mask_source(new, secrets),
            )
        )
    notes += plan.notes
    return plan.text()


def _disjoint(paths: list[Path]) -> None:
    for index, one in enumerate(paths):
        for other in paths[index + 1 :]:
            if related(one, other):
                raise Refused(
                    f"{name(one)} and {name(other)} are both wanted, and one holds the other",
                    hint="set either the whole hash or its single keys",
                )


def _warn(plan: Plan, goals: dict[Path, Plain], found: Places) -> None:
    """Tells of what may yet change a wanted setting, and of what looks like it and is not."""
    lines = includes(plan.document)
    for path in goals:
        near = found.near(path)
        last = max((place.line for place in near if covers(place.path, path) and place.kind == "set"), default=0)
        for line in lines:
            if line > last:
                plan.note(f"line {line} takes in other Ruby, which may set {name(path)} again")
        for place in near:
            if place.kind == "unseen":
                plan.note(f"line {place.line} may change {name(path)} in a way that cannot be seen from here")
            if place.kind == "variable":
                plan.note(f"line {place.line}: `{path[0]} = …` sets a local variable, which GitLab never sees")


def _prove(text: bytes, goals: dict[Path, Plain]) -> None:
    """Reads the result back: nothing is handed out that does not say what was asked for."""
    document: Document = valid(text)
    found = places(document, {path[0] for path in goals})
    for path, value in goals.items():
        if not same(fold(found.near(path), path), value):
            raise Refused(
                f"gitlab.rb: {name(path)} cannot be set safely, as the file is written",
                hint="set it by hand in a single plain assignment once; from then on it can be managed",
            )
