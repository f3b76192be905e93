"""What a pipeline is made of. It is rendered only where it is needed: a run that changes nothing spares Jinja's start.

What is there in GitLab of a pipeline, and what its lint says of the one that is wanted.

The resource: a project's pipeline is the wanted one, on a branch or in a merge request.

GitLab is asked when the wanted text differs from the one on record, when the user named `pipeline`, or when something was
changed earlier in the run. GitLab's lint judges a text before it is committed; a commit that somebody else was quicker
with is not overwritten: the file is looked at again.

The resource: a pipeline is in a file on this machine, for whoever commits it by hand.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from provision.editing.diff import masked_diff
from provision.errors import ApiFailed, ChangeFailed, HostFailed, ProvisionError, Refused, UsageError
from provision.gitlab.api import Api
from provision.gitlab.repository import Content, Repository
from provision.resources.base import (
    NOTHING,
    ApiAction,
    ApiQuery,
    Change,
    Note,
    Observation,
    Probe,
    Resource,
    unverified,
)
from provision.resources.delivery.project_parts import project_address
from provision.templating import render, source

_USES_OTHERS = re.compile(r"\{%-?\s*(?:include|extends|import|from)\b")


@dataclass(frozen=True)
class Recipe:
    """A template (`pipelines/registry.gitlab-ci.yml.j2`) with its values as JSON; `place` is where the inventory asks for it."""

    place: str
    template: str
    values: str

    @property
    def text(self) -> str:
        """The file. Raises UsageError for what the template needs and is not given, and for a broken template."""
        return _rendered(self, source(self.template))

    @property
    def mark(self) -> str:
        """What tells it from another one, without rendering it where that can be."""
        template = source(self.template)
        plain = f"{template}\0{self.values}"
        try:
            return self.text if _USES_OTHERS.search(template) else plain
        except UsageError:  # told once it is to be committed
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
                hint="docs/projects.md tells what each shipped template takes",
            ) from error
        raise


@dataclass(frozen=True)
class There:
    """The file in the project.

    path      where the project keeps its pipeline
    branch    where it is wanted; `exists`: whether there is such a branch
    default   the project's default branch; `empty`: nothing was ever committed
    now       the file on that branch; where it is new, on the default branch, which it will be made from
    proposed  the file on the branch that a merge request would come from; `branched`: whether that is there
    request   the open merge request's address, "" for none
    errors    GitLab's lint; asked only where the file differs
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
    errors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def look(repository: Repository, text: str, branch: str | None, ours: str | None) -> There | None:
    """Looks as far as needed; None where there is no such project. `ours`: the branch for a merge request, if one is wanted.

    Raises ApiFailed, and Refused where the pipeline is kept elsewhere.
    """
    project = repository.api.find(repository.address)
    if project is None:
        return None
    path = _path(str(project.get("ci_config_path") or ""))
    default = str(project.get("default_branch") or "main")
    target = branch or default
    empty = bool(project.get("empty_repo"))
    now = None if empty else repository.file(path, target)
    found: dict[str, Any] = {"path": path, "branch": target, "default": default, "empty": empty, "now": now}
    if now is not None and now.text == text:
        return There(**found)
    if now is None and not empty and target != default and not repository.has_branch(target):
        found |= {"exists": False, "now": repository.file(path, default)}
    if ours is not None and not empty and found.get("exists", True):
        found |= _proposal(repository, path, ours, target)
        proposed = found["proposed"]
        if found["request"] and proposed is not None and proposed.text == text:
            return There(**found)
    lint = repository.lint(int(project["id"]), text)
    return There(**found, errors=lint.errors, warnings=lint.warnings)


def _proposal(repository: Repository, path: str, ours: str, target: str) -> dict[str, Any]:
    proposed = repository.file(path, ours)
    branched = proposed is not None or repository.has_branch(ours)
    request = repository.merge_request(ours, target) if branched else None
    return {"proposed": proposed, "branched": branched, "request": request.web_url if request else ""}


def _path(text: str) -> str:
    if not text:
        return ".gitlab-ci.yml"
    if "@" in text or re.match(r"https?://", text):
        raise Refused(
            f"the project takes its pipeline from elsewhere: {text}",
            hint="empty 'CI/CD configuration file' in its settings, or leave the pipeline out of the inventory",
        )
    return text


@dataclass(frozen=True)
class PipelineFile(Resource):
    """`content` is the file, or what it is rendered from. `branch` None: the default branch. `ours`: it goes there, with a merge request; "": a commit."""

    project: str
    api: Api
    content: str | Recipe
    message: str
    branch: str | None = None
    ours: str = ""

    @property
    def label(self) -> str:
        return f"PipelineFile {self.project}"

    @property
    def record_key(self) -> str:
        return f"gitlab pipeline/{self.project}"

    def validate(self) -> None:
        self.text  # noqa: B018 - it raises UsageError

    def probe(self) -> Probe:
        key = ("gitlab pipeline", self.api.url, self.project, self._wish)
        return Probe({"gitlab": ApiQuery(key, self._ask)})

    def plan(self, seen: Observation) -> Iterator[Change | Note]:
        there: There | ProvisionError | None = seen.data("gitlab")
        if there is None:
            return
        compare = f"compare the pipeline of project {self.project} with GitLab"
        if isinstance(there, ProvisionError):
            if isinstance(there, ApiFailed) and not there.status:
                yield unverified(compare, there.text)
                return
            raise Refused(f"the pipeline of project {self.project}: {there.text}", hint=there.hint)
        yield from (Note(f"lint of project {self.project}: {one}") for one in there.warnings)
        change = self._change(there)
        if change is not None:
            yield change
        elif there.request and (there.now is None or there.now.text != self.text):
            yield Note(f"the pipeline of project {self.project} waits to be merged: {there.request}")
        if seen.record != self._wish:
            yield Change(compare, NOTHING, "run", record=self._wish, verification=True, final=True)

    def _change(self, there: There) -> Change | None:
        if there.exists and there.now is not None and there.now.text == self.text:
            return None
        if there.errors:
            raise Refused(
                f"GitLab's lint refuses the pipeline of project {self.project}: {'; '.join(there.errors)}",
                hint="mend the template, or what the inventory gives it: nothing was committed",
            )
        if self.ours:
            return self._propose(there)
        target = {"branch": there.branch} | ({} if there.exists else {"start_branch": there.default})
        before = there.now.text if there.now else ""
        return Change(
            f"commit {there.path} to branch {there.branch} of project {self.project}",
            ApiAction(lambda: self._commit(there, there.now, target), "/projects/:id/repository/files"),
            "update" if there.now else "create",
            diff=masked_diff(there.path, before, self.text),
        )

    def _propose(self, there: There) -> Change | None:
        if there.empty or not there.exists:
            what = "its repository is empty" if there.empty else f"it has no branch {there.branch}"
            raise Refused(
                f"project {self.project}: {what}: there is nothing to merge the pipeline into",
                hint="make a first commit there, or leave merge_request out: then it is committed",
            )
        current = there.proposed if there.request else there.now
        if there.request and current is not None and current.text == self.text:
            return None
        what = (
            "commit {} to the merge request from branch {}"
            if there.request
            else "open a merge request with {} from branch {}"
        )
        text = f"{what.format(there.path, self.ours)} to {there.branch} of project {self.project}"
        diff = masked_diff(there.path, current.text if current else "", self.text)
        call = ApiAction(lambda: self._request(there), "/projects/:id/merge_requests")
        return Change(text, call, "create", diff=diff)

    def _request(self, there: There) -> None:
        repository = self._repository
        if there.request:
            self._commit(there, there.proposed, {"branch": self.ours})
            return
        if there.branched:  # of an earlier merge request, which is closed: what it held is not of today
            repository.delete_branch(self.ours)
        self._commit(there, there.now, {"branch": self.ours, "start_branch": there.branch})
        repository.open_merge_request(self.ours, there.branch, self.message)

    def _commit(self, there: There, seen: Content | None, target: Mapping[str, str]) -> None:
        try:
            self._repository.commit(there.path, self.text, seen, target, self.message)
        except ApiFailed as error:
            if "not allowed to push" in error.text:
                error.hint = (
                    f"branch {there.branch} is protected: let the token's owner push there, or set merge_request = true"
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
    def _wish(self) -> str:
        mark = self.content if isinstance(self.content, str) else self.content.mark
        parts = [str(self.api.url), mark, self.branch or "", self.ours]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]

    def _ask(self, seen: Observation) -> There | ProvisionError | None:
        """What GitLab has; None where nothing is to be compared."""
        if not seen.due and seen.record == self._wish:
            return None
        try:
            found = look(self._repository, self.text, self.branch, self.ours or None)
        except (HostFailed, UsageError) as error:
            return error
        return found or Refused(
            "the project does not exist, or gitlab.api_token may not see it",
            hint="correct its path, or create it in GitLab: this tool sets projects up and does not create them",
        )


@dataclass(frozen=True)
class LocalPipeline(Resource):
    """The file `path` on this machine holds `text`; it is replaced whole, or not at all."""

    path: Path
    text: str

    @property
    def label(self) -> str:
        return f"LocalPipeline {self.path}"

    def probe(self) -> Probe:
        return Probe.of(ApiQuery(("local pipeline", self.path), lambda _: self._read()))

    def plan(self, seen: Observation) -> Iterator[Change | Note]:
        there: str | None = seen.data()
        if there == self.text:
            return
        yield Change(
            f"write {self.path} on this machine",
            ApiAction(self._write, "a local file"),
            "create" if there is None else "update",
            diff=masked_diff(str(self.path), there or "", self.text),
        )

    def _read(self) -> str | None:
        try:
            return self.path.read_bytes().decode("utf-8", "surrogateescape")
        except OSError:  # missing, or unreadable: writing reports why
            return None

    def _write(self) -> None:
        import tempfile  # where something is written only

        name, path = "", Path(os.path.realpath(self.path))  # a link goes on pointing to it
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
            raise ChangeFailed(text, hint="make its folder, or name another path in the project's pipeline") from error
