"""The source of a project: a local repository or folder whose content is pushed to the default branch in GitLab.

A repository's own commits are pushed as they are. Files that come with them, the rendered pipeline, are in a commit of ours on
top; where such a commit is in GitLab already, the next one merges it, so that every push is a fast-forward. A plain
folder has no history: each state of it is a commit of ours on top of the one before.

Nothing is pushed by force. A branch with commits that neither the source nor we made is refused.

GitLab is asked when the source differs from the recorded one, or when a verification is due; then one request suffices if
the branch is where the last push left it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from provision.editing.diff import masked_diff
from provision.errors import ChangedMeanwhile, HostFailed, ProvisionError, Refused, UsageError
from provision.gitlab.api import Api, project_address
from provision.gitlab.git import ChangedFile, Snapshot, Workspace, workspace
from provision.gitlab.repository import Repository
from provision.resources.base import (
    NOTHING,
    ApiAction,
    ApiQuery,
    Change,
    Note,
    Observation,
    Outcome,
    Probe,
    Resource,
)
from provision.resources.delivery.pipeline import Awaited, NoProject, Recipe, config_path, not_compared

_MOST_FILES = 200  # in a diff
_LARGEST = 200_000  # bytes of a file in a diff


@dataclass(frozen=True)
class FoundSource:
    """The source compared with GitLab.

    wanted    what is recorded when GitLab has it
    branch    the project's default branch
    before    its commit in GitLab; "" for an empty repository
    after     the commit that it should have; the same as `before` if nothing is to be pushed
    tree      the files of that commit
    what      is pushed, for people
    path      of the pipeline that is pushed with the source
    pipeline  its text in GitLab now
    notes     messages
    errors    of GitLab's lint, about the pipeline
    """

    wanted: str
    branch: str
    before: str
    after: str
    tree: str = ""
    what: str = ""
    path: str = ""
    pipeline: str | None = None
    diff: str = ""
    notes: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()


@dataclass(frozen=True)
class ProjectSource(Resource):
    """The default branch of a project has the content of a local repository or folder.

    path      the project's, in GitLab
    source    the repository or folder
    pipeline  the recipe for its pipeline, which is pushed with it; None if the source has its own
    message   of the commits that are made here
    branch    the first push of an empty repository goes there; None: to GitLab's own default
    created   whether an earlier task creates the project
    awaited   the pipeline of the pushed commit is waited for; None: it is not
    """

    project: str
    api: Api
    source: Path
    pipeline: Recipe | None = None
    message: str = "Bring the source up to date"
    branch: str | None = None
    created: bool = False
    awaited: Awaited | None = None

    @property
    def record_key(self) -> str:
        return f"gitlab source/{self.project}"

    def validate(self) -> None:
        if self.pipeline is not None:
            self.pipeline.text  # noqa: B018 - it raises UsageError

    def probe(self) -> Probe:
        key = ("gitlab source", self.api.url, self.project, self.source)
        return Probe({"gitlab": ApiQuery(key, self._ask)})

    def plan(self, seen: Observation) -> Iterator[Change | Note]:
        found: FoundSource | ProvisionError | None = seen.data("gitlab")
        if found is None:
            return
        what = f"the source of project {self.project}"
        compare = f"compare {what} with GitLab"
        if isinstance(found, ProvisionError):
            yield not_compared(what, compare, found, created=self.created)
            return
        yield from (Note(f"project {self.project}: {one}") for one in found.notes)
        record = self._record(found, found.after)
        if found.after != found.before:
            if found.errors:
                raise Refused(
                    f"GitLab's lint rejects the pipeline of project {self.project}: {'; '.join(found.errors)}",
                    hint="fix the template or its values in the inventory; nothing was pushed",
                )
            yield Change(
                f"push {found.what} to branch {found.branch} of project {self.project}",
                ApiAction(lambda: self._push(found), "git push"),
                "update" if found.before else "create",
                diff=found.diff,
                record=record,
            )
        elif seen.record != record:
            yield Change(compare, NOTHING, "run", record=record, verification=True, final=True)
        if self.awaited and found.after and not self.awaited.is_over(self.project, found.wanted, seen):
            yield self.awaited.change(self.project, self.api, found.after, found.branch, found.wanted)

    def _push(self, found: FoundSource) -> Outcome:
        """Pushes what was planned. Raises ChangedMeanwhile if the source or the branch is another one now."""
        if self.awaited:
            self.awaited.held.add(self.project)
        with workspace(self.source, self.api, self.project) as work:
            now = _compare(self, work, found.branch, found.path, found.before)
            if (now.before, now.tree) != (found.before, found.tree):
                what = "the branch" if now.before != found.before else "the source"
                raise ChangedMeanwhile(f"{what} changed in the meantime")
            work.push(now.after, found.branch)
        return Outcome(record=self._record(found, now.after))

    def _record(self, found: FoundSource, commit: str) -> dict[str, str]:
        """What is recorded: with the branch, if its pipeline is waited for, since a tag may have a pipeline of its own."""
        branch = {"branch": found.branch} if self.awaited and found.branch else {}
        return {"wanted": found.wanted, "commit": commit, **branch}

    def _ask(self, seen: Observation) -> FoundSource | ProvisionError | None:
        """The source compared with GitLab; None if nothing is to be compared."""
        try:
            return self._find(seen)
        except (HostFailed, UsageError) as error:
            return error

    def _find(self, seen: Observation) -> FoundSource | None:
        record: dict[str, str] = seen.record if isinstance(seen.record, dict) else {}
        with workspace(self.source, self.api, self.project) as work:
            wanted = self._wanted(work)
            uncommitted = f"{self.source.name} has changes that are not committed: they are not pushed"
            notes = (uncommitted,) if work.is_dirty else ()
            if record.get("wanted") == wanted and (
                not seen.due or Repository(self.api, self._address).head() == record.get("commit")
            ):
                is_over = self.awaited is None or self.awaited.is_over(self.project, wanted, seen)
                if not (seen.due or notes) and is_over:
                    return None
                branch = record.get("branch", "")
                return FoundSource(wanted, branch, record["commit"], record["commit"], notes=notes)
            project = self._project()
            default = str(project.get("default_branch") or "main")
            branch = self.branch if self.branch and project.get("empty_repo") else default
            path = self._config_path(project)
            found = _compare(self, work, branch, path, record.get("commit", ""))
            found = replace(found, wanted=wanted, notes=(*notes, *found.notes))
            if found.after == found.before or self.pipeline is None or found.pipeline == self.pipeline.text:
                return found
            lint = Repository(self.api, self._address).lint(int(project["id"]), self.pipeline.text)
            return replace(found, errors=lint.errors, notes=(*found.notes, *(f"lint: {one}" for one in lint.warnings)))

    def _wanted(self, work: Workspace) -> str:
        """A text that differs between sources with different commits or files, and between pipelines."""
        now = work.snapshot({})
        pipeline = self.pipeline.identity if self.pipeline else ""
        parts = [str(self.api.url), now.commit or now.tree, pipeline]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]

    def _project(self) -> dict[str, Any]:
        found = self.api.find(self._address)
        if found is None:
            raise NoProject
        return found

    def _config_path(self, project: dict[str, Any]) -> str:
        return config_path(str(project.get("ci_config_path") or "")) if self.pipeline else ""

    @property
    def _address(self) -> str:
        return project_address(self.project)


def _compare(source: ProjectSource, work: Workspace, branch: str, path: str, known: str) -> FoundSource:
    """The source compared with a branch in GitLab, with the commit that the branch should have. Raises Refused.

    path   of the pipeline that is pushed with it; "" for none
    known  a commit that earlier was the branch's, and may be built on
    """
    plain = work.snapshot({})
    full = work.snapshot({path: source.pipeline.text}) if source.pipeline else plain
    before = work.head(branch, whole=bool(plain.commit))
    found = FoundSource("", branch, before, before, full.tree, path=path)
    if before and path:
        found = replace(found, pipeline=work.file(before, path))
    name = source.source.name
    if not plain.commit:
        after = _after_folder(source, work, full, found, known)
    else:
        after, note = _after_repository(source, work, (plain, full), found)
        found = replace(found, notes=(note,)) if note else found
    if after == before:
        return found
    files = work.changed(before, after)
    count = len(files)
    what = f"{count} {'file' if count == 1 else 'files'} of {name}"
    if plain.commit:
        commits = int(work.ask("rev-list", "--count", plain.commit, *([f"^{before}"] if before else [])))
        what = f"{commits} {'commit' if commits == 1 else 'commits'} of {name}"
        if not commits:
            what = f"the pipeline of {name}"
        elif full.tree != plain.tree:
            what = f"{what} and its pipeline"
    return replace(found, after=after, what=what, diff=_diff(work, files))


def _after_folder(source: ProjectSource, work: Workspace, full: Snapshot, found: FoundSource, known: str) -> str:
    before = found.before
    if not before:
        return work.commit(full, [], source.message)
    if work.ask("rev-parse", f"{before}^{{tree}}") == full.tree:
        return before
    if before != known and not work.is_ours(before):
        raise Refused(
            f"branch {found.branch} has a commit of somebody else on top: {work.subject(before)}",
            hint=f"a plain folder has no history to merge it with: clone {work.url}, copy your files into the clone, commit "
            "them, and name the clone as source; or bring the folder to the state of the branch first",
        )
    return work.commit(full, [before], source.message)


def _after_repository(
    source: ProjectSource, work: Workspace, snapshots: tuple[Snapshot, Snapshot], found: FoundSource
) -> tuple[str, str]:
    """The commit that the branch should have, and a message."""
    (plain, full), before = snapshots, found.before
    own = plain.commit
    if not before or work.is_above(before, own):
        return (own if full.tree == plain.tree else work.commit(full, [own], source.message)), ""
    if work.is_ours(before):
        below = work.parent(before)
        if below == own and work.ask("rev-parse", f"{before}^{{tree}}") == full.tree:
            return before, ""
        if below and work.is_above(below, own):
            return work.commit(full, [own, before], source.message), ""
    name, branch = source.source.name, found.branch
    pull = f"run `git pull {work.url} {branch}` in {source.source}"
    if not work.is_above(own, before):
        if work.is_shallow:
            raise Refused(
                f"{name} is a shallow clone, and lacks the commits between it and branch {branch}",
                hint=f"run `git fetch --unshallow` in {source.source}; a job of GitLab's CI needs GIT_DEPTH: 0",
            )
        raise Refused(
            f"branch {branch} and {name} have diverged: {work.subject(before)} is not in {name}",
            hint=f"{pull}, commit the result and rerun the command; nothing is pushed by force",
        )
    if source.pipeline and found.pipeline != source.pipeline.text:
        raise Refused(
            f"branch {branch} is ahead of {name}, and its pipeline differs", hint=f"{pull}, then rerun the command"
        )
    return before, f"branch {branch} is ahead of {name}, nothing is pushed: {pull} to build on it"


def _diff(work: Workspace, files: Sequence[ChangedFile]) -> str:
    """The changes of all files as one text; large and binary files by name only."""
    shown = files[:_MOST_FILES]
    sizes = work.sizes([one for file in shown for one in (file.before, file.after) if one])
    contents = work.contents([one for one, size in sizes.items() if size <= _LARGEST])
    parts = []
    for file in shown:
        before, after = contents.get(file.before, b""), contents.get(file.after, b"")
        size = sizes.get(file.after, 0)
        if b"\0" in before + after or max(sizes.get(file.before, 0), size) > _LARGEST:
            parts.append(f"{file.path}: a binary or large file of {size} bytes")
        else:
            parts.append(masked_diff(file.path, before, after) or f"{file.path}: an empty file, or another mode")
    if len(files) > len(shown):
        parts.append(f"… {len(files) - len(shown)} more files")
    return "\n".join(parts)
