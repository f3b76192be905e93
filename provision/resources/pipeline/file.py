"""The resource: a project's pipeline is the wanted one, on a branch or in a merge request.

GitLab is asked when the wanted text differs from the one on record, when the user named `pipeline`, or when something was
changed earlier in the run. GitLab's lint judges a text before it is committed; a commit that somebody else was quicker
with is not overwritten: the file is looked at again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict

from provision.errors import ApiFailed, HostFailed, Refused, UsageError
from provision.gitlab.api import Api
from provision.gitlab.repository import Content, Repository
from provision.resources.base import Ask, Call, Change, Json, Note, Observation, Probe, Resource, Result
from provision.resources.diffs import unified
from provision.resources.gitlab_project.model import project_address
from provision.resources.host_files import ASK_STATE, read_state
from provision.resources.pipeline.look import There, look
from provision.resources.pipeline.recipe import Recipe
from provision.resources.runner_settings import unproven
from provision.shell import Command, sh
from provision.values import dataclass


@dataclass(frozen=True)
class PipelineFile(Resource):
    """`content` is the file, or what it is rendered from. `branch` None: the default branch. `ours`: it goes there, with a merge request; "": a commit."""

    project: str
    api: Api
    content: str | Recipe
    message: str
    branch: str | None = None
    ours: str = ""
    always: bool = False

    @property
    def label(self) -> str:
        return f"PipelineFile {self.project}"

    def probe(self) -> Probe:
        key = ("gitlab pipeline", self.api.url, self.project, self._wish, self.always)
        return Probe({"gitlab": Ask(key, self._ask, needs=ASK_STATE), "state": ASK_STATE})

    def plan(self, seen: Observation) -> Iterator[Change | Note]:
        answer = json.loads(seen["gitlab"].text)
        if answer.get("skipped"):
            return
        compare = f"compare the pipeline of project {self.project} with GitLab"
        if problem := answer.get("problem"):
            if answer["unreached"]:
                yield unproven(compare, problem)
                return
            raise Refused(f"the pipeline of project {self.project}: {problem}", hint=answer["hint"])
        there = _there(answer["there"])
        yield from (Note(f"lint of project {self.project}: {one}") for one in there.warnings)
        change = self._change(there)
        if change is not None:
            yield change
        elif there.request and (there.now is None or there.now.text != self.text):
            yield Note(f"the pipeline of project {self.project} waits to be merged: {there.request}")
        memory = {self._record: self._wish}
        if read_state(seen["state"].text).get(self._record) != self._wish:
            yield Change(compare, sh(":"), "run", remember=memory, leaves=False, last=True)

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
            Call(lambda: self._commit(there, there.now, target), "/projects/:id/repository/files"),
            "update" if there.now else "create",
            diff=unified(there.path, before, self.text),
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
        diff = unified(there.path, current.text if current else "", self.text)
        return Change(text, Call(lambda: self._request(there), "/projects/:id/merge_requests"), "create", diff=diff)

    def _request(self, there: There) -> tuple[Command, Mapping[str, Json]]:
        repository = self._repository
        if there.request:
            return self._commit(there, there.proposed, {"branch": self.ours})
        if there.branched:  # of an earlier merge request, which is closed: what it held is not of today
            repository.delete_branch(self.ours)
        self._commit(there, there.now, {"branch": self.ours, "start_branch": there.branch})
        repository.open_merge_request(self.ours, there.branch, self.message)
        return sh(":"), {}

    def _commit(
        self, there: There, seen: Content | None, target: Mapping[str, str]
    ) -> tuple[Command, Mapping[str, Json]]:
        try:
            self._repository.commit(there.path, self.text, seen, target, self.message)
        except ApiFailed as error:
            if "not allowed to push" in error.text:
                error.hint = (
                    f"branch {there.branch} is protected: let the token's owner push there, or set merge_request = true"
                )
            raise
        return sh(":"), {}

    @property
    def text(self) -> str:
        """The file."""
        return self.content if isinstance(self.content, str) else self.content.text

    @property
    def _repository(self) -> Repository:
        return Repository(self.api, project_address(self.project))

    @property
    def _record(self) -> str:
        return f"gitlab pipeline/{self.project}"

    @property
    def _wish(self) -> str:
        mark = self.content if isinstance(self.content, str) else self.content.mark
        parts = [self.api.url, mark, self.branch or "", self.ours]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]

    def _ask(self, there: Result | None) -> Result:
        if not self.always and read_state(there.text if there else "").get(self._record) == self._wish:
            return _json({"skipped": True})
        try:
            found = look(self._repository, self.text, self.branch, self.ours or None)
        except (HostFailed, UsageError) as error:
            unreached = isinstance(error, ApiFailed) and not error.status
            return _json({"problem": error.text, "hint": error.hint, "unreached": unreached})
        if found is None:
            hint = "correct its path, or make it in GitLab: projects are set up here, not made"
            return _json(
                {"problem": "it is not there, or gitlab.api_token may not see it", "hint": hint, "unreached": False}
            )
        return _json({"there": asdict(found)})


def _there(answer: Mapping[str, Json]) -> There:
    files = {name: Content(**one) if (one := answer[name]) else None for name in ("now", "proposed")}
    return There(**{**answer, **files, "errors": tuple(answer["errors"]), "warnings": tuple(answer["warnings"])})


def _json(answer: Mapping[str, Json]) -> Result:
    return Result(json.dumps(answer).encode())
