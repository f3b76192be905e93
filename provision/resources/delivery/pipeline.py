"""Pipelines: a project's .gitlab-ci.yml in GitLab, committed or in a merge request, or in a file on this machine.

GitLab is asked when the wanted text differs from the recorded one, or when a verification is due. Its lint checks a text
before it is committed. A file that was changed since it was observed is not overwritten: it is observed again.

A template is rendered only when its text is needed, since Jinja takes long to start.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Final

from provision.editing.diff import masked_diff
from provision.errors import ApiFailed, ChangeFailed, HostFailed, ProvisionError, Refused, UsageError
from provision.gitlab.api import NO_PROJECT_HINT, Api, project_address
from provision.gitlab.pipelines import Pipelines, Wait
from provision.gitlab.repository import Content, Repository
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
    unverified,
)
from provision.templating import render, source

_USES_OTHERS: Final = re.compile(r"\{%-?\s*(?:include|extends|import|from)\b")


@dataclass(frozen=True)
class Recipe:
    """A template and its values.

    place     the table of the inventory that names it, for messages
    template  its path: `pipelines/registry.gitlab-ci.yml.j2`
    values    a JSON object
    """

    place: str
    template: str
    values: str

    @property
    def text(self) -> str:
        """The rendered file. Raises UsageError for a missing value and for a broken template."""
        return _rendered(self, source(self.template))

    @property
    def identity(self) -> str:
        """A text that differs between recipes with different files. The template is rendered only if it needs others."""
        template = source(self.template)
        plain = f"{template}\0{self.values}"
        try:
            return self.text if _USES_OTHERS.search(template) else plain
        except UsageError:  # reported when the file is needed
            return plain


@cache
def _rendered(recipe: Recipe, template: str) -> str:
    values = json.loads(recipe.values)
    try:
        return render(recipe.template, **values)
    except UsageError as error:
        missing = re.search(r"UndefinedError: '(\w+)' is undefined", error.text)
        if missing and missing[1] in template:
            raise UsageError(
                f"{recipe.place}.{missing[1]} is missing: the template {recipe.template} needs it",
                hint="docs/projects.md lists the values of each shipped template",
            ) from error
        raise


@dataclass(frozen=True)
class Awaited:
    """The pipeline of what is pushed is waited for, for at most `seconds`.

    held  the projects whose pipeline has not succeeded in this run: apps of their images are not replaced
    """

    seconds: int
    held: set[str] = field(compare=False, repr=False)

    def is_over(self, project: str, wanted: str, seen: Observation) -> bool:
        """Whether it is recorded that the pipeline of what is `wanted` has succeeded."""
        return seen.records.get(_awaited_key(project)) == wanted

    def change(self, project: str, api: Api, commit: str, branch: str, wanted: str, newer: str = "") -> Change:
        """Waiting for the pipeline of a commit. A change, since it releases what later tasks deploy.

        branch  "": any
        newer   a commit on top, whose pipeline counts instead if it has one: it may correct what failed
        """

        def wait() -> Outcome:
            self.held.add(project)
            pipelines = Pipelines(api, project)
            last = newer if newer and pipelines.newest(newer, branch) is not None else commit
            Wait(pipelines, last, branch, self.seconds).run()
            self.held.discard(project)
            return Outcome(records={_awaited_key(project): wanted})

        what = f"the pipeline of commit {commit[:8]}" if commit else "the pipeline"
        call = ApiAction(wait, "GET /projects/:id/pipelines")
        return Change(f"wait for {what} of project {project}", call, "run", final=True, id=f"wait {project}")


def _awaited_key(project: str) -> str:
    return f"gitlab ci/{project}"


@dataclass(frozen=True)
class FoundPipeline:
    """A project's pipeline in GitLab, as far as it is compared.

    path      of the file in the repository
    branch    where it is wanted
    exists    whether that branch exists
    default   the project's default branch
    empty     whether the repository has no commit
    now       the file on the branch; if the branch does not exist, on the default branch, from which it will be created
    proposed  the file on the branch of our merge requests
    branched  whether that branch exists
    request   the URL of the open merge request, "" for none
    head      the newest commit of the branch, if its pipeline is waited for
    errors    of GitLab's lint, which is asked only if the file differs
    """

    path: str
    branch: str
    default: str
    empty: bool
    exists: bool = True
    now: Content | None = None
    proposed: Content | None = None
    branched: bool = False
    request: str = ""
    head: str = ""
    errors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def find_pipeline(repository: Repository, text: str, branch: str | None, ours: str | None) -> FoundPipeline | None:
    """The pipeline, compared with the wanted `text` with as few requests as possible; None if there is no such project.

    ours  the branch of our merge requests, if one is wanted

    Raises ApiFailed, and Refused if the project's pipeline is in another place.
    """
    project = repository.api.find(repository.address)
    if project is None:
        return None
    path = config_path(str(project.get("ci_config_path") or ""))
    default = str(project.get("default_branch") or "main")
    target = branch or default
    empty = bool(project.get("empty_repo"))
    now = None if empty else repository.file(path, target)
    found: dict[str, Any] = {"path": path, "branch": target, "default": default, "empty": empty, "now": now}
    if now is not None and now.text == text:
        return FoundPipeline(**found)
    if now is None and not empty and target != default and not repository.has_branch(target):
        found |= {"exists": False, "now": repository.file(path, default)}
    if ours is not None and not empty and found.get("exists", True):
        found |= _proposal(repository, path, ours, target)
        proposed = found["proposed"]
        if found["request"] and proposed is not None and proposed.text == text:
            return FoundPipeline(**found)
    lint = repository.lint(int(project["id"]), text)
    return FoundPipeline(**found, errors=lint.errors, warnings=lint.warnings)


def _proposal(repository: Repository, path: str, ours: str, target: str) -> dict[str, Any]:
    proposed = repository.file(path, ours)
    branched = proposed is not None or repository.has_branch(ours)
    request = repository.merge_request(ours, target) if branched else None
    return {"proposed": proposed, "branched": branched, "request": request.web_url if request else ""}


def config_path(text: str) -> str:
    """Where a project's pipeline is in its repository, by its setting in GitLab. Raises Refused for another project's."""
    if not text:
        return ".gitlab-ci.yml"
    if "@" in text or re.match(r"https?://", text):
        raise Refused(
            f"the project has its pipeline in another place: {text}",
            hint="clear 'CI/CD configuration file' in its settings, or remove the pipeline from the inventory",
        )
    return text


class NoProject(Refused):
    """The project does not exist."""

    def __init__(self) -> None:
        super().__init__("the project does not exist, or gitlab.api_token may not see it", hint=NO_PROJECT_HINT)


def not_compared(what: str, compare: str, error: ProvisionError, *, created: bool) -> Change:
    """The verification `compare` of `what` that this error prevents for now: no answer, no token or no project yet.

    created  whether an earlier task creates the project

    Raises Refused for any other error.
    """
    if isinstance(error, ApiFailed) and not error.status:
        return unverified(compare, error.text, error.requires)
    if isinstance(error, NoProject) and created:
        return unverified(compare, error.text, "accounts")
    raise Refused(f"{what}: {error.text}", hint=error.hint) from error


@dataclass(frozen=True)
class PipelineFile(Resource):
    """A project's pipeline has this content.

    content  the file, or the recipe for it
    message  of the commit
    branch   None: the project's default branch
    ours     the branch from which a merge request is opened; "": the file is committed directly
    created  whether an earlier task creates the project
    pushed   it is pushed with the project's source, by another task: here it is only compared
    awaited  its first run on the branch is waited for; None: it is not
    """

    project: str
    api: Api
    content: str | Recipe
    message: str
    branch: str | None = None
    ours: str = ""
    created: bool = False
    pushed: bool = False
    awaited: Awaited | None = None

    @property
    def record_key(self) -> str:
        return f"gitlab pipeline/{self.project}"

    def validate(self) -> None:
        self.text  # noqa: B018 - it raises UsageError

    def probe(self) -> Probe:
        key = ("gitlab pipeline", self.api.url, self.project, self._fingerprint)
        return Probe({"gitlab": ApiQuery(key, self._ask)})

    def plan(self, seen: Observation) -> Iterator[Change | Note]:
        found: FoundPipeline | ProvisionError | None = seen.data("gitlab")
        if found is None:
            return
        what = f"the pipeline of project {self.project}"
        compare = f"compare {what} with GitLab"
        if isinstance(found, ProvisionError):
            yield not_compared(what, compare, found, created=self.created)
            return
        yield from (Note(f"lint of project {self.project}: {one}") for one in found.warnings)
        if self.pushed and (found.now is None or found.now.text != self.text):
            yield Note(f"the pipeline of project {self.project} differs: `provision source` pushes it with the source")
            return
        change = self._change(found)
        if change is not None:
            yield change
        elif found.request and (found.now is None or found.now.text != self.text):
            yield Note(f"the pipeline of project {self.project} is in an open merge request: {found.request}")
        if seen.record != self._fingerprint:
            yield Change(compare, NOTHING, "run", record=self._fingerprint, verification=True, final=True)
        if self.awaited and not self.awaited.is_over(self.project, self._fingerprint, seen):
            commit = found.now.last_commit_id if change is None and found.now else ""
            newer = found.head if commit and found.head != commit else ""
            yield self.awaited.change(self.project, self.api, commit, found.branch, self._fingerprint, newer)

    def _change(self, found: FoundPipeline) -> Change | None:
        if found.exists and found.now is not None and found.now.text == self.text:
            return None
        if found.errors:
            raise Refused(
                f"GitLab's lint rejects the pipeline of project {self.project}: {'; '.join(found.errors)}",
                hint="fix the template or its values in the inventory; nothing was committed",
            )
        if self.ours:
            return self._propose(found)
        target = {"branch": found.branch} | ({} if found.exists else {"start_branch": found.default})
        before = found.now.text if found.now else ""
        return Change(
            f"commit {found.path} to branch {found.branch} of project {self.project}",
            ApiAction(lambda: self._commit(found, found.now, target), "/projects/:id/repository/files"),
            "update" if found.now else "create",
            diff=masked_diff(found.path, before, self.text),
        )

    def _propose(self, found: FoundPipeline) -> Change | None:
        if found.empty or not found.exists:
            what = "its repository is empty" if found.empty else f"it has no branch {found.branch}"
            raise Refused(
                f"project {self.project}: {what}, so there is nothing to merge the pipeline into",
                hint="make a first commit there, or remove merge_request, so that the file is committed",
            )
        current = found.proposed if found.request else found.now
        if found.request and current is not None and current.text == self.text:
            return None
        what = (
            "commit {} to the merge request from branch {}"
            if found.request
            else "open a merge request with {} from branch {}"
        )
        text = f"{what.format(found.path, self.ours)} to {found.branch} of project {self.project}"
        diff = masked_diff(found.path, current.text if current else "", self.text)
        call = ApiAction(lambda: self._request(found), "/projects/:id/merge_requests")
        return Change(text, call, "create", diff=diff)

    def _request(self, found: FoundPipeline) -> None:
        repository = self._repository
        if found.request:
            self._commit(found, found.proposed, {"branch": self.ours})
            return
        if found.branched:  # left by an earlier merge request, which is closed
            repository.delete_branch(self.ours)
        self._commit(found, found.now, {"branch": self.ours, "start_branch": found.branch})
        repository.open_merge_request(self.ours, found.branch, self.message)

    def _commit(self, found: FoundPipeline, seen: Content | None, target: Mapping[str, str]) -> None:
        try:
            self._repository.commit(found.path, self.text, seen, target, self.message)
        except ApiFailed as error:
            if "not allowed to push" in error.text:
                error.hint = (
                    f"branch {found.branch} is protected: let the token's owner push there, or set merge_request = true"
                )
            raise

    @property
    def text(self) -> str:
        """The file."""
        return self.content if isinstance(self.content, str) else self.content.text

    @property
    def _repository(self) -> Repository:
        return Repository(self.api, project_address(self.project))

    @property
    def _fingerprint(self) -> str:
        content = self.content if isinstance(self.content, str) else self.content.identity
        parts = [str(self.api.url), content, self.branch or "", self.ours]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]

    def _ask(self, seen: Observation) -> FoundPipeline | ProvisionError | None:
        """The pipeline in GitLab; None if nothing is to be compared."""
        is_over = self.awaited is None or self.awaited.is_over(self.project, self._fingerprint, seen)
        if not seen.due and seen.record == self._fingerprint and is_over:
            return None
        try:
            found = find_pipeline(self._repository, self.text, self.branch, self.ours or None)
            if found and not is_over and found.now and found.now.text == self.text:
                found = replace(found, head=self._repository.head(found.branch))
        except (HostFailed, UsageError) as error:
            return error
        return found or NoProject()


@dataclass(frozen=True)
class LocalPipeline(Resource):
    """A file on this machine has this text, for a user who commits it. It is replaced as a whole or not at all."""

    path: Path
    text: str

    def probe(self) -> Probe:
        return Probe.of(ApiQuery(("local pipeline", self.path), lambda _: self._read()))

    def plan(self, seen: Observation) -> Iterator[Change | Note]:
        found: str | None = seen.data()
        if found == self.text:
            return
        yield Change(
            f"write {self.path} on this machine",
            ApiAction(self._write, "a local file"),
            "create" if found is None else "update",
            diff=masked_diff(str(self.path), found or "", self.text),
        )

    def _read(self) -> str | None:
        try:
            return self.path.read_bytes().decode("utf-8", "surrogateescape")
        except OSError:  # missing, or unreadable: writing reports why
            return None

    def _write(self) -> None:
        import tempfile  # slow to import, and needed only here

        name, path = "", Path(os.path.realpath(self.path))  # a symbolic link stays
        try:
            mode = path.stat().st_mode & 0o777 if path.exists() else 0o644
            with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, delete=False) as file:
                name = file.name
                file.write(self.text)
                file.flush()
                os.fsync(file.fileno())
            Path(name).chmod(mode)
            Path(name).replace(path)
        except OSError as error:
            if name:
                Path(name).unlink(missing_ok=True)
            text = f"{self.path} on this machine cannot be written: {error.strerror or error}"
            raise ChangeFailed(
                text, hint="create its folder, or name another path in the project's pipeline"
            ) from error
