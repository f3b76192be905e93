"""The edit of gitlab.rb: wanted settings are set, others are removed, and the result is read back."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from provision.editing.document import check_read_back
from provision.editing.ruby.assignments import Assignments, find_assignments, find_includes, value_after
from provision.editing.ruby.draft import Action, Draft
from provision.editing.ruby.settings import remove_setting, set_setting
from provision.editing.ruby.source import Path, covers, parse_valid, related, setting_name
from provision.editing.ruby.values import Plain, Value, plain
from provision.errors import Refused


@dataclass(frozen=True)
class SettingChange:
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
