"""The edit of gitlab.rb: wanted settings are set with the fewest bytes changed, others are removed, and the result is read back."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from provision.editing.document import check_read_back, same
from provision.editing.ruby.assignments import (
    Assignment,
    Assignments,
    find_assignments,
    find_includes,
    value_after,
    value_after_assignment,
    with_key,
)
from provision.editing.ruby.draft import Action, Draft, insertion_point
from provision.editing.ruby.source import pairs, parse_valid
from provision.editing.ruby.values import (
    MISSING,
    NotLiteral,
    Path,
    Plain,
    Value,
    covers,
    lookup,
    plain,
    related,
    setting_name,
)
from provision.errors import Refused

if TYPE_CHECKING:
    from tree_sitter import Node


class SettingChange(NamedTuple):
    """What an edit does to one setting. A change holds no values."""

    path: Path
    action: Action


@dataclass(frozen=True)
class EditedRuby:
    """An edited gitlab.rb.

    content  the new bytes, with secrets in clear; the input itself when nothing changed
    changes  the changed settings
    notes    what the user should know about the file, each with its line
    """

    content: bytes = field(repr=False)
    changes: list[SettingChange] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def edit(content: bytes, wanted: Mapping[Path, Value], remove: Collection[Path] = ()) -> EditedRuby:
    """Return the file with every `wanted` setting in force, and without the assignments of the `remove` settings.

    Values that are equal already keep their notation. Raises Refused, naming the line, for a file that
    is not valid Ruby, a setting that depends on a condition or is changed in place, and wanted paths that overlap.
    """
    goals = {tuple(path): plain(value, setting_name(tuple(path))) for path, value in wanted.items()}
    _refuse_overlaps(list(goals))
    drafts = []
    for path in remove:  # one after the other, since they may be keys of the same hash
        draft = Draft(parse_valid(content))
        remove_setting(draft, tuple(path), find_assignments(draft.document, path[:1]), list(goals))
        content = draft.content()
        drafts.append(draft)
    draft = Draft(parse_valid(content))
    found = find_assignments(draft.document, {path[0] for path in goals})
    for path, value in goals.items():
        set_setting(draft, path, value, found)
    _warn(draft, goals, found)
    if draft.changes:
        content = _checked(draft.content(), goals)
    drafts.append(draft)
    return EditedRuby(
        content,
        [SettingChange(path, action) for one in drafts for path, action in one.changes.items()],
        list(dict.fromkeys(note for one in drafts for note in one.notes)),
    )


def _refuse_overlaps(paths: list[Path]) -> None:
    for index, one in enumerate(paths):
        for other in paths[index + 1 :]:
            if related(one, other):
                raise Refused(
                    f"{setting_name(one)} and {setting_name(other)} are both wanted, and one contains the other",
                    hint="set either the whole hash or its single keys",
                )


def _warn(draft: Draft, goals: dict[Path, Plain], found: Assignments) -> None:
    """Add notes on lines that may still change a wanted setting, or that only seem to set it."""
    lines = find_includes(draft.document)
    for path in goals:
        near = found.affecting(path)
        last = max((one.line for one in near if covers(one.path, path) and one.kind == "set"), default=0)
        for line in lines:
            if line > last:
                draft.note(f"line {line} includes other Ruby, which may set {setting_name(path)} again")
        for one in near:
            if one.kind == "opaque":
                draft.note(
                    f"line {one.line} may change {setting_name(path)} in a way that cannot be read from the file"
                )
            if one.kind == "local":
                draft.note(f"line {one.line}: `{path[0]} = …` sets a local variable, which GitLab never reads")


def _checked(content: bytes, goals: dict[Path, Plain]) -> bytes:
    """Return the new content when all wanted settings are in force in it. Raises Refused otherwise."""

    def read(result: bytes) -> dict[str, Plain]:
        found = find_assignments(parse_valid(result), {path[0] for path in goals})
        return {setting_name(path): value_after(found.affecting(path), path) for path in goals}

    planned = {setting_name(path): value for path, value in goals.items()}
    hint = "write it by hand as one plain assignment; after that it can be managed"
    return check_read_back("gitlab.rb", content, read, planned, hint)


def set_setting(draft: Draft, path: Path, wanted: Plain, found: Assignments) -> None:
    """Add the edits to `draft` that give `path` the value `wanted`; none when it has that value.

    `found` are the assignments under the first name of the path. Raises Refused when a relevant assignment is
    inside a condition, or when the value is changed in place.
    """
    near = [one for one in found.affecting(path) if one.kind in ("set", "mutation")]
    covering = [
        index
        for index, one in enumerate(near)
        if covers(one.path, path) and one.kind == "set" and one.how != "conditional"
    ]
    last = near[covering[-1]] if covering else None
    for index in covering[:-1]:
        draft.note(
            f"line {near[index].line} sets {setting_name(path)} too; line {near[covering[-1]].line} comes later and counts"
        )
    if same(value_after(found.affecting(path), path), wanted):
        return
    later = near[covering[-1] + 1 :] if covering else near
    _refuse_unsafe(path, wanted, later, found.affecting(path[:1]))
    parts = [one for one in later if one.how != "conditional"]
    kept, value = _set_parts(draft, path, wanted, last, parts)
    if same(value, wanted):
        return
    if last is not None:
        _set_in(draft, path, wanted, last)
    elif kept:
        _add_missing(draft, path, wanted, value, kept[-1])
    else:
        document = draft.document
        at = document.next_line(parts[-1].statement.end_byte - 1) if parts else insertion_point(document, path, found)
        draft.add_line(path, at, path, wanted)


def remove_setting(draft: Draft, path: Path, found: Assignments, wanted: Collection[Path]) -> None:
    """Remove every plain assignment of `path` and of keys below it, and its key inside a hash literal above it.

    `set_setting` handles assignments of `wanted` paths. An assignment that cannot be removed safely stays, and a note
    names its line.
    """
    setting_name(path)  # raises Refused for a path that is not a setting
    for one in found.affecting(path):
        if one.kind in ("opaque", "local"):
            continue
        if any(covers(goal, one.path) or (covers(one.path, goal) and related(path, goal)) for goal in wanted):
            continue
        if covers(path, one.path):
            if one.how == "plain" and one.kind == "set":
                draft.remove_statement(path, one)
            else:
                draft.note(f"line {one.line} also sets {setting_name(path)}, in {one.context}: unchanged")
        elif lookup(one.literal, path[len(one.path) :]) is not MISSING:
            _remove_key(draft, path, one)


def _remove_key(draft: Draft, path: Path, assignment: Assignment) -> None:
    """Remove `path` from the hash that `assignment` assigns to a path above it."""
    keys, node, value = path[len(assignment.path) :], assignment.value, assignment.literal
    for key in keys[:-1]:
        found = (pairs(draft.document, node) or []) if node is not None and node.type == "hash" else []
        node = next((pair.value for pair in found if pair.key == key), None)
        value = lookup(value, (key,))
    if assignment.how != "plain" or node is None or node.type != "hash" or not isinstance(value, dict):
        draft.note(
            f"line {assignment.line} also sets {setting_name(path)}, as part of {setting_name(assignment.path)}: unchanged"
        )
        return
    draft.remove_key(path, node, {key: item for key, item in value.items() if key != keys[-1]})


def _refuse_unsafe(path: Path, wanted: Plain, later: list[Assignment], found: list[Assignment]) -> None:
    """Refuse when another statement would override the new value, or the new value would override a condition."""
    for one in later:
        if one.kind == "mutation":
            raise Refused(
                f"gitlab.rb, line {one.line}: {setting_name(one.path)} is changed in place there, so that "
                f"{setting_name(path)} cannot be set",
                hint="write the value as one plain assignment, or remove the line",
            )
        if one.how == "conditional" and not _sets_same_value(one, path, wanted):
            raise Refused(
                f"gitlab.rb, line {one.line}: {setting_name(one.path)} is set inside {one.context}, so that the value of "
                f"{setting_name(path)} depends on more than this file",
                hint="move the assignment out of it or remove it, or do not set this in the inventory",
            )
    for one in found:
        if one.kind == "local" and one.path[0] == path[0] and (len(path) > 1 or isinstance(wanted, list)):
            raise Refused(
                f"gitlab.rb, line {one.line}: `{path[0]} = …` makes {path[0]} a local variable, and what follows no "
                "longer reaches GitLab",
                hint="remove that line",
            )


def _sets_same_value(assignment: Assignment, path: Path, wanted: Plain) -> bool:
    if covers(assignment.path, path):
        return same(lookup(assignment.literal, path[len(assignment.path) :]), wanted)
    return same(assignment.literal, lookup(wanted, assignment.path[len(path) :]))


def _set_parts(
    draft: Draft, path: Path, wanted: Plain, last: Assignment | None, parts: list[Assignment]
) -> tuple[list[Assignment], Plain]:
    """Correct the assignments of single keys below `path`. Return those that stay, and the resulting value."""
    value = value_after_assignment(MISSING, last.path, last.literal, path, last.line) if last else MISSING
    kept = []
    for index, one in enumerate(parts):
        keys = one.path[len(path) :]
        goal, literal = lookup(wanted, keys), one.literal
        if goal is MISSING:
            _require_plain(one, path)
            draft.remove_statement(path, one)
            continue
        if not same(literal, goal) and not any(covers(later.path, one.path) for later in parts[index + 1 :]):
            _require_plain(one, path)
            _assign(draft, path, one, goal)
            literal = goal
        kept.append(one)
        value = with_key(value, keys, literal, one.line)
    return kept, value


def _require_plain(assignment: Assignment, path: Path) -> None:
    if assignment.how != "plain":
        raise Refused(
            f"gitlab.rb, line {assignment.line}: {setting_name(assignment.path)} is set in one statement with others, and "
            f"must change for {setting_name(path)}",
            hint="write that line as plain assignments, one a line",
        )


def _assign(draft: Draft, path: Path, assignment: Assignment, value: Plain) -> None:
    """Give the plain `assignment` another value."""
    node, target = assignment.node, assignment.value
    arguments = node.child_by_field_name("arguments")
    bare_call = arguments is not None and not draft.document.source(arguments).startswith(b"(")
    ambiguous = bare_call and (
        isinstance(value, dict) or (isinstance(value, int | float) and str(value).startswith("-"))
    )
    if target is None or ambiguous or node.type not in ("assignment", "call"):
        draft.replace_statement(path, assignment, value)
    else:
        draft.replace_value(path, target, value)


def _set_in(draft: Draft, path: Path, wanted: Plain, last: Assignment) -> None:
    """Change `last`, the last assignment of `path` or of a hash around it; or override it on a line below."""
    keys = path[len(last.path) :]
    if not keys and last.how == "plain":
        _assign(draft, path, last, wanted)
        return
    node: Node | None = last.value
    for key in keys:
        inside = pairs(draft.document, node) if node is not None and node.type == "hash" else None
        matching = [pair for pair in inside or [] if pair.key == key]
        node = matching[0].value if len(matching) == 1 else None
    if keys and node is not None and last.how == "plain":
        draft.replace_value(path, node, wanted)
        return
    _refuse_no_hash(draft, path, last)
    draft.add_line(path, draft.document.next_line(last.statement.end_byte - 1), path, wanted)


def _refuse_no_hash(draft: Draft, path: Path, last: Assignment) -> None:
    """Refuse when a line below `last` cannot set a key, because `last` assigns something that is not a hash."""
    keys = path[len(last.path) :]
    if keys and last.node.type == "operator_assignment":
        raise Refused(
            f"gitlab.rb, line {last.line}: the value of {setting_name(last.path)} depends there on its earlier value, so "
            f"that {setting_name(path)} cannot be set inside it",
            hint="make that line a plain assignment, or remove it",
        )
    for length in range(len(keys)):
        outer = lookup(last.literal, keys[:length])
        if outer is not MISSING and not isinstance(outer, dict | NotLiteral):
            raise Refused(
                f"gitlab.rb, line {last.line}: {setting_name(path[: len(last.path) + length])} is no hash there, so that "
                f"{setting_name(path)} cannot be set",
                hint="remove that line, or make it a hash",
            )
        if isinstance(outer, NotLiteral):
            draft.note(
                f"line {last.line} sets {setting_name(last.path)} to something computed; {setting_name(path)} is set below it"
            )
            return


def _add_missing(draft: Draft, path: Path, wanted: Plain, value: Plain, last: Assignment) -> None:
    """Add the missing keys below `last`, the last assignment of a single key; else the whole value."""
    at = draft.document.next_line(last.statement.end_byte - 1)
    missing = _missing(value, wanted)
    for keys, item in missing:
        value = with_key(value, keys, item, 0)
    if not same(value, wanted):
        missing = [((), wanted)]
    for keys, item in missing:
        draft.add_line(path, at, (*path, *keys), item)


def _missing(value: Plain, wanted: Plain) -> list[tuple[Path, Plain]]:
    if not isinstance(value, dict) or not isinstance(wanted, dict):
        return []
    found: list[tuple[Path, Plain]] = []
    for key, item in wanted.items():
        if key not in value:
            found.append(((key,), item))
        else:
            found += [((key, *keys), deeper) for keys, deeper in _missing(value[key], item)]
    return found
