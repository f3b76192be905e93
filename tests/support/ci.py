"""The pipelines of one project as GitLab's API returns them, in states that follow each other: for tests without runners."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

from tests.support.web import Reply, Request

COMMIT = "1a2b3c4d" * 5
Record = dict[str, Any]


def job(number: int, name: str, status: str, stage: str = "test", **fields: Any) -> Record:
    """A job as the API returns it. Source: GitLab's lib/api/entities/ci/job.rb."""
    duration = 12.4 if status in ("success", "failed") else None
    reason = {"failure_reason": "script_failure"} if status == "failed" else {}
    base: Record = {
        "id": number,
        "name": name,
        "status": status,
        "stage": stage,
        "allow_failure": False,
        "duration": duration,
    }
    return {**base, "tag_list": [], "web_url": f"https://gitlab/-/jobs/{number}", **reason, **fields}


@dataclass
class State:
    """A state of the pipeline, until it is asked for again."""

    status: str
    jobs: Sequence[Record] = ()
    bridges: Sequence[Record] = ()
    yaml_errors: str | None = None


@dataclass
class FakeCi:
    """The only pipeline of a project, and of its commit COMMIT, or with "" of whichever is asked for first.

    states   each question for the pipeline moves on to the next; the last one stays
    absent   how many questions for the newest pipeline find none
    logs     by job
    runners  of the project, as the API returns them, with their tags
    broken   answers to give instead, first come first served
    other    answers by path, below /api/v4
    refs     the branches that were asked for; "": any
    """

    states: list[State]
    project: str = "root/hello"
    commit: str = COMMIT
    absent: int = 0
    logs: dict[int, bytes] = field(default_factory=dict)
    runners: Sequence[Record] = ()
    broken: list[Reply] = field(default_factory=list)
    other: dict[str, Reply] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    refs: set[str] = field(default_factory=set)
    _now: State | None = None

    def answer(self, asked: Request) -> Reply | None:
        """The answer to a request; None if it is not about pipelines."""
        path, query = urlsplit(asked.path).path.removeprefix("/api/v4"), parse_qs(urlsplit(asked.path).query)
        place = f"/projects/{quote(self.project, safe='')}"
        if path in self.other:
            return self.other[path]
        if path.startswith("/runners/"):
            found = [one for one in self.runners if path == f"/runners/{one['id']}"]
            return Reply(200, found[0]) if found else None
        rest = path.removeprefix(place) if path.startswith(place) else ""
        if not rest.startswith(("/pipelines", "/jobs/", "/runners")):
            return None
        assert asked.method == "GET", f"{asked.method} {path}: following changes nothing"
        self.asked.append(rest)
        if self.broken:
            return self.broken.pop(0)
        if rest == "/runners":
            return Reply(
                200,
                [{name: one[name] for name in one if name not in ("tag_list", "run_untagged")} for one in self.runners],
            )
        if rest.startswith("/jobs/"):
            return Reply(200, self.logs.get(int(rest.split("/")[2]), b""), {"Content-Type": "text/plain"})
        return self._pipelines(rest, query)

    def _pipelines(self, rest: str, query: dict[str, list[str]]) -> Reply:
        if rest == "/pipelines":
            self.refs.update(query.get("ref", [""]))
            if self.absent:
                self.absent -= 1
                return Reply(200, [])
            self.commit = self.commit or query.get("sha", [COMMIT])[0]
            found = query.get("sha", [self.commit]) == [self.commit]
            return Reply(200, [self._pipeline()] if found else [])
        if rest == "/pipelines/7":
            self._now = self.states.pop(0) if len(self.states) > 1 else self.states[0]
            return Reply(200, self._pipeline())
        state = self._now or self.states[0]
        return Reply(200, list(state.bridges if rest.endswith("/bridges") else state.jobs))

    def _pipeline(self) -> Record:
        state = self._now or self.states[0]
        url = f"https://gitlab/{self.project}/-/pipelines/7"
        base: Record = {"id": 7, "iid": 1, "sha": self.commit, "ref": "main", "source": "push", "web_url": url}
        base["duration"] = 31 if state.status in ("success", "failed") else None
        return {**base, "status": state.status, "yaml_errors": state.yaml_errors}
