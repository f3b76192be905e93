"""Pipelines in GitLab: finds the one of a commit, follows it to its end, and finds out why it failed or waits.

Following only reads: it never starts, cancels or retries anything. A poll costs two requests, and a third one where the
pipeline has trigger jobs. A pipeline appears some seconds after the push, because a background job of GitLab makes it.

Sources: GitLab's REST API, /projects/:id/pipelines, …/jobs, …/bridges, /projects/:id/jobs/:id/trace and
/projects/:id/runners; lib/gitlab/ci/pipeline/chain. A commit with [ci skip] has a pipeline that is skipped; an
invalid .gitlab-ci.yml makes one that failed; rules that leave no job make none.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from provision.errors import ApiFailed, ChangeFailed, DeadlineExceeded, NotReady, ProvisionError
from provision.gitlab.api import Api, following, project_address
from provision.gitlab.repository import Repository
from provision.gitlab.runners import log_lines, why_not_taken

ENDED: Final = ("success", "failed", "canceled", "skipped")
"""The states of a pipeline that has ended."""
BLOCKED: Final = "manual"
"""The state of a pipeline that goes on only when somebody starts a job by hand."""
LINES: Final = 20  # of a failed job's log
MOST_JOBS: Final = 3  # whose logs are shown
_LOG_BYTES: Final = 1 << 18
_CREATED_SECONDS: Final = 120.0  # for a pipeline to appear
_OLD_COMMIT_SECONDS: Final = 20.0  # for the pipeline of a commit that may have been pushed long ago
_ASK_WHY_SECONDS: Final = 10.0  # before GitLab is asked why there is none
_STUCK_SECONDS: Final = 20.0  # that a job waits for a runner before GitLab is asked why
_AGAIN_SECONDS: Final = 120.0  # until it is asked again
_PATIENCE_SECONDS: Final = 300.0  # that GitLab may be unavailable while a pipeline is followed
_NO_RULE: Final = "no rule of .gitlab-ci.yml adds a job for this push"
_AWAY: Final = (0, 429, 500, 502, 503, 504)
_SHORTEST, _LONGEST = 2.0, 10.0  # seconds between two polls


class Job(NamedTuple):
    """A job of a pipeline, or a trigger job.

    seconds     it has been running; None before
    reason      why it failed, in GitLab's word: script_failure
    attempt     1, or more for a job that was retried
    tags        that its runner must have
    triggers    it is a trigger job, which makes another pipeline
    downstream  that pipeline: its project's number, its own, its state, its page
    """

    id: int
    name: str
    stage: str
    status: str
    allow_failure: bool = False
    seconds: float | None = None
    reason: str = ""
    url: str = ""
    tags: tuple[str, ...] = ()
    attempt: int = 1
    triggers: bool = False
    downstream: tuple[int, int, str, str] | None = None

    @property
    def is_failed(self) -> bool:
        """Whether it makes the pipeline fail."""
        return self.status in ("failed", "canceled") and not self.allow_failure

    @property
    def text(self) -> str:
        """The job in one line, for people."""
        parts = [f"{self.stage}: {self.name}: {self.status}"]
        if self.status == "failed" and self.reason:
            parts.append(self.reason.replace("_", " "))
        parts += ["allowed to fail"] if self.status == "failed" and self.allow_failure else []
        parts += [f"{self.seconds:.0f} s"] if self.seconds is not None and self.status in ENDED else []
        parts += [f"attempt {self.attempt}"] if self.attempt > 1 else []
        if self.downstream:
            parts.append(f"pipeline #{self.downstream[1]}: {self.downstream[2]}")
        return ", ".join(parts)


class Pipeline(NamedTuple):
    """A pipeline with the newest attempt of each of its jobs, in the order of the stages. `errors`: of its YAML."""

    project: str
    id: int
    ref: str
    commit: str
    status: str
    source: str = ""
    url: str = ""
    seconds: float | None = None
    errors: str = ""
    jobs: tuple[Job, ...] = ()

    @property
    def has_ended(self) -> bool:
        """Whether nothing happens any more, or only when somebody starts a job by hand."""
        return self.status in ENDED or self.status == BLOCKED

    @property
    def is_failed(self) -> bool:
        """Whether it failed, or was canceled."""
        return self.status in ("failed", "canceled")

    @property
    def name(self) -> str:
        """The pipeline for people: its number, commit and branch."""
        return f"pipeline #{self.id} of commit {self.commit[:8]} on {self.ref}"

    @property
    def unfinished(self) -> list[Job]:
        """The jobs that run or wait."""
        return [one for one in self.jobs if one.status not in (*ENDED, "created", BLOCKED)]


@dataclass(frozen=True)
class Pipelines:
    """The pipelines of one project."""

    api: Api
    project: str

    @property
    def address(self) -> str:
        """The project's place below /api/v4."""
        return project_address(self.project)

    @property
    def repository(self) -> Repository:
        """The project's repository."""
        return Repository(self.api, self.address)

    def newest(self, commit: str = "", ref: str = "") -> int | None:
        """The number of the newest pipeline of a commit, of a branch, or of all; not one that a trigger job made.

        Raises NotReady where CI/CD is off: GitLab answers 403 there.
        """
        query = {"per_page": 1, "order_by": "id", "sort": "desc"}
        given = {name: value for name, value in (("sha", commit), ("ref", ref)) if value}
        try:
            found = self.api.get_page(f"{self.address}/pipelines", {**query, **given})
        except ApiFailed as error:
            if error.status == 403 and (why := self.repository.why_no_pipeline("")):
                raise NotReady(why) from error
            raise
        return int(found[0]["id"]) if found else None

    def head(self) -> tuple[str, float] | None:
        """The default branch's newest commit and its age in seconds; None for an empty repository. Raises ApiFailed."""
        found = self.api.find(f"{self.address}/repository/commits/HEAD")
        if found is None:
            self.api.get(self.address)  # it raises if there is no such project
            return None
        made = datetime.datetime.fromisoformat(str(found["committed_date"]))
        return str(found["id"]), (datetime.datetime.now(datetime.UTC) - made).total_seconds()

    def load(self, number: int, *, bridges: bool = True) -> Pipeline:
        """A pipeline with its jobs. `bridges`: with its trigger jobs, which cost a request."""
        place = f"{self.address}/pipelines/{number}"
        found = self.api.get(place)
        query = {"per_page": 100, "include_retried": "true"}
        listed = self.api.get_list(f"{place}/jobs", query)
        if bridges:
            listed += [{**one, "triggers": True} for one in self.api.get_list(f"{place}/bridges", {"per_page": 100})]
        return Pipeline(
            self.project,
            number,
            str(found.get("ref")),
            str(found.get("sha")),
            str(found.get("status")),
            str(found.get("source") or ""),
            str(found.get("web_url") or ""),
            found.get("duration"),
            str(found.get("yaml_errors") or ""),
            _jobs(listed),
        )

    def last_lines(self, job: Job, count: int = LINES, *, project: int | None = None) -> list[str]:
        """The last lines of a job's log, masked and printable. `project`: the number of another project."""
        place = self.address if project is None else f"/projects/{project}"
        raw = self.api.tail(f"{place}/jobs/{job.id}/trace", _LOG_BYTES)
        if len(raw) == _LOG_BYTES:  # the first line may begin in the middle of a secret
            raw = raw.partition(b"\n")[2]
        return log_lines(raw, count)

    def why_failed(self, pipeline: Pipeline) -> str:
        """Why a pipeline failed: its errors, or its failed jobs with the last lines of their logs."""
        if pipeline.errors:
            return f"its YAML is not valid: {pipeline.errors}"
        failed = [one for one in pipeline.jobs if one.is_failed]
        shown = ["\n".join([one.text, *self._below(one)]) for one in failed[:MOST_JOBS]]
        return "\n".join([*shown, *(one.text for one in failed[MOST_JOBS:])]) or f"it is {pipeline.status}"

    def _below(self, job: Job) -> Iterator[str]:
        """The lines under a failed job: of its log, or the failed jobs of the pipeline that it triggered."""
        try:
            if job.downstream is None:
                yield from (f"  | {line}" for line in self.last_lines(job))
                return
            project, number, _, url = job.downstream
            yield f"  {url}"
            jobs = _jobs(self.api.get_list(f"/projects/{project}/pipelines/{number}/jobs", {"per_page": 100}))
            for one in [one for one in jobs if one.is_failed][:MOST_JOBS]:
                yield f"  {one.text}"
                yield from (f"  | {line}" for line in self.last_lines(one, project=project))
        except ApiFailed as error:  # the failure of the job is reported anyway
            yield f"  its log cannot be read: {error.text}"


def _jobs(listed: Sequence[Mapping[str, Any]]) -> tuple[Job, ...]:
    """The newest attempt of each job. GitLab numbers the jobs in the order of the stages; a retried one gets a new number."""
    attempts: dict[str, list[Mapping[str, Any]]] = {}
    for one in sorted(listed, key=lambda one: int(one["id"])):
        attempts.setdefault(str(one["name"]), []).append(one)
    return tuple(_job(several[-1], len(several)) for several in attempts.values())


def _job(one: Mapping[str, Any], attempt: int) -> Job:
    below = one.get("downstream_pipeline")
    return Job(
        int(one["id"]),
        str(one["name"]),
        str(one.get("stage") or ""),
        str(one.get("status")),
        bool(one.get("allow_failure")),
        one.get("duration"),
        str(one.get("failure_reason") or ""),
        str(one.get("web_url") or ""),
        tuple(map(str, one.get("tag_list") or ())),
        attempt,
        bool(one.get("triggers")),
        (int(below.get("project_id") or 0), int(below["id"]), str(below["status"]), str(below.get("web_url") or ""))
        if below
        else None,
    )


class News(NamedTuple):
    """Something new about a followed pipeline: its state, that of one job, or a message."""

    project: str
    pipeline: Pipeline | None = None
    job: Job | None = None
    message: str = ""

    @property
    def text(self) -> str:
        """The news as one line, without the project."""
        if self.job is not None and self.pipeline is not None:
            return f"pipeline #{self.pipeline.id}: {self.job.text}"
        if self.pipeline is not None:
            took = f", {self.pipeline.seconds:.0f} s" if self.pipeline.seconds and self.pipeline.has_ended else ""
            return f"{self.pipeline.name}: {self.pipeline.status}{took}"
        return self.message


_QUIET: Final = ("created", "pending", "preparing", "waiting_for_resource", "waiting_for_callback")


@dataclass
class Follower:
    """Follows the newest pipeline of a commit. It asks GitLab only when it is polled.

    commit    "": the newest pipeline of the project
    ref       of this branch; "": of any
    problem   why there is no pipeline, if there will be none
    note      a message that is reported with the next state
    otherwise why the commit may never have a pipeline; after some seconds the project's newest one is followed instead
    """

    pipelines: Pipelines
    commit: str = ""
    ref: str = ""
    clock: Callable[[], float] = time.monotonic
    pipeline: Pipeline | None = None
    problem: str = ""
    note: str = ""
    otherwise: str = ""
    _began: float | None = None
    _last_news: float = 0.0
    _away_since: float | None = None
    _is_answered: bool = False  # before, an error is one of the command, or of a GitLab that still starts
    _asked_why: bool = False
    _bridges: bool = True
    _known: dict[int, tuple[str, str]] = field(default_factory=dict)
    _waiting: dict[int, tuple[float, float]] = field(default_factory=dict)  # job: since when, and when it was asked

    @property
    def has_ended(self) -> bool:
        """Whether there is nothing more to follow."""
        return bool(self.problem) or (self.pipeline is not None and self.pipeline.has_ended)

    @property
    def still(self) -> str:
        """What it still waits for."""
        if self.pipeline is None:
            return "it does not exist yet"
        return "; ".join(one.text for one in self.pipeline.unfinished) or "no job runs"

    @property
    def interval(self) -> float:
        """Seconds until the next poll. They grow while nothing is new."""
        return min(_SHORTEST + (self.clock() - self._last_news) / 30, _LONGEST)

    def poll(self) -> list[News]:
        """Asks GitLab, and returns what is new. Raises ApiFailed when GitLab refuses, or is unavailable for long."""
        now = self.clock()
        if self.has_ended:
            return []
        first = self._began is None
        if first:
            self._began = self._last_news = now
        try:
            news = self._poll(now)
        except ApiFailed as error:
            if error.status == 404 and self.pipeline is not None:
                error.text = f"{self.pipeline.name} is gone: somebody deleted it, or the token may not see it any more"
                error.hint = "run a new pipeline in GitLab, then rerun the command"
            if not self._is_answered or error.status not in _AWAY or error.requires:
                raise
            again = self._away_since is not None
            self._away_since = self._away_since or now
            if now - self._away_since > _PATIENCE_SECONDS:
                raise
            return [] if again else [News(self.pipelines.project, message=f"{error.text}: trying again")]
        self._away_since, self._is_answered = None, True
        if self.note:
            news.insert(0, News(self.pipelines.project, message=self.note))
            self.note = ""
        if news:
            self._last_news = now
        return news

    def _poll(self, now: float) -> list[News]:
        project = self.pipelines.project
        try:
            number = self.pipeline.id if self.pipeline else self.pipelines.newest(self.commit, self.ref)
        except NotReady as error:
            self.problem = error.text
            return []
        if number is None:
            self._missing(now)
            return []
        before, self.pipeline = self.pipeline, self.pipelines.load(number, bridges=self._bridges)
        if self.pipeline.jobs:  # all of them are made with the pipeline
            self._bridges = any(one.triggers for one in self.pipeline.jobs)
        news = []
        for job in self.pipeline.jobs:
            state = (job.status, job.downstream[2] if job.downstream else "")
            if self._known.get(job.id) != state:
                self._known[job.id] = state
                news += [News(project, self.pipeline, job)] if job.status not in _QUIET else []
        if before is None or before.status != self.pipeline.status:
            at = len(news) if self.pipeline.has_ended else 0
            news.insert(at, News(project, self.pipeline))
        return [*news, *self._stuck(now)]

    def _missing(self, now: float) -> None:
        """There is no pipeline yet: a background job of GitLab makes it after the push."""
        waited = now - (self._began or now)
        if not self.commit:
            self.problem = "it has no pipeline yet"
        elif self.otherwise:
            if waited >= _OLD_COMMIT_SECONDS:
                self.note, self.commit, self.otherwise = f"{self.otherwise}: following the newest one", "", ""
        elif waited >= _ASK_WHY_SECONDS and not self._asked_why:
            self.problem = self.pipelines.repository.why_no_pipeline(self.commit)
            self._asked_why = True
        elif waited >= _CREATED_SECONDS:
            self.problem = (
                f"none appeared in {waited:.0f} s: {_NO_RULE}, or GitLab's background jobs (Sidekiq) are late"
            )

    def _stuck(self, now: float) -> Iterator[News]:
        """News about jobs that no runner has taken for a while."""
        jobs = [one for one in (self.pipeline.jobs if self.pipeline else ()) if one.status == "pending"]
        self._waiting = {one.id: self._waiting.get(one.id, (now, 0.0)) for one in jobs}
        for one in jobs:
            since, asked = self._waiting[one.id]
            if now - since >= _STUCK_SECONDS and (not asked or now - asked >= _AGAIN_SECONDS):
                self._waiting[one.id] = since, now
                why = why_not_taken(self.pipelines.api, self.pipelines.address, one.tags)
                text = f"{one.stage}: {one.name}: waits for a runner for {now - since:.0f} s: {why}"
                yield News(self.pipelines.project, message=text)


def follow_newest(api: Api, project: str, *, wait: bool = True) -> Follower:
    """Follows the pipeline of a project's newest commit on its default branch, or its newest one if that has none.

    GitLab does not record when a commit was pushed, so an old commit may have been pushed just now. With `wait`, its
    pipeline has some seconds to appear. Raises ApiFailed.
    """
    pipelines = Pipelines(api, project)
    head = pipelines.head()
    if head is None:
        return Follower(pipelines, problem="its repository is empty")
    commit, age = head
    try:
        if pipelines.newest(commit) is not None or age < _CREATED_SECONDS:
            return Follower(pipelines, commit)
        reason = pipelines.repository.why_no_pipeline(commit)
        why = f"commit {commit[:8]} has no pipeline: {reason or _NO_RULE}"
        if wait and not reason:
            note = f"commit {commit[:8]} has no pipeline: waiting {_OLD_COMMIT_SECONDS:.0f} s for one"
            return Follower(pipelines, commit, otherwise=why, note=note)
        return Follower(pipelines, note=why) if pipelines.newest() is not None else Follower(pipelines, problem=why)
    except NotReady as error:
        return Follower(pipelines, problem=error.text)


@dataclass(frozen=True)
class Wait:
    """Waiting until the pipeline of a commit has succeeded, for at most `seconds`."""

    pipelines: Pipelines
    commit: str
    ref: str
    seconds: float
    clock: Callable[[], float] = time.monotonic

    def run(self) -> Pipeline:
        """Follows the pipeline to its end. Raises ChangeFailed with its failed jobs, DeadlineExceeded, NotReady."""
        follower, here = Follower(self.pipelines, self.commit, self.ref, self.clock), following.get()
        began = self.clock()
        while True:
            for one in follower.poll():
                here.report(f"{one.project}: {one.text}")
            if follower.has_ended:
                return self._ended(follower)
            left = self.seconds - (self.clock() - began)
            if left <= 0:
                raise self._late(follower)
            here.wait(min(follower.interval, left), f"{self._what(follower)}: it goes on in GitLab, and {self._look}")

    @property
    def _look(self) -> str:
        return f"`provision ci {self.pipelines.project}` shows it"

    def _what(self, follower: Follower) -> str:
        name = follower.pipeline.name if follower.pipeline else f"the pipeline of commit {self.commit[:8]}"
        return f"wait for {name} of project {self.pipelines.project}"

    def _ended(self, follower: Follower) -> Pipeline:
        pipeline, project = follower.pipeline, self.pipelines.project
        if pipeline is None:
            raise NotReady(
                f"commit {self.commit[:8]} of project {project} has no pipeline: {follower.problem}",
                hint="correct this and rerun the command, or remove `wait = true` from the project",
            )
        if pipeline.status == BLOCKED:
            jobs = ", ".join(one.name for one in pipeline.jobs if one.status == BLOCKED)
            raise NotReady(
                f"{pipeline.name} of project {project} waits until somebody starts a job by hand: {jobs}",
                hint=f"start it in GitLab, then rerun the command: {pipeline.url}",
            )
        if pipeline.is_failed:
            canceled = pipeline.status == "canceled"
            what = (
                "somebody or a newer push canceled it: retry it" if canceled else "correct the source, or retry the job"
            )
            raise ChangeFailed(
                f"{pipeline.name} of project {project} {'was canceled' if canceled else 'failed'}:\n"
                f"{self.pipelines.why_failed(pipeline)}",
                hint=f"{what} in GitLab, then rerun the command: {pipeline.url}",
            )
        return pipeline

    def _late(self, follower: Follower) -> ProvisionError:
        pipeline, project = follower.pipeline, self.pipelines.project
        name = pipeline.name if pipeline else f"the pipeline of commit {self.commit[:8]}"
        return DeadlineExceeded(
            f"{name} of project {project} did not end in {self.seconds:.0f} s: {follower.still}",
            hint=f'it goes on in GitLab: {self._look}. A rerun waits for it again; projects."{project}".wait_timeout sets the limit',
        )
