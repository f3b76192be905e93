"""Pipelines: made of a commit's `.gitlab-ci.yml`, run stage by stage, canceled when a newer one makes them redundant.

Sources: GitLab's lib/gitlab/ci/pipeline/chain (what makes a pipeline, and the refusals), app/services/ci/pipeline_processing
and process_build_service.rb (what runs next), lib/gitlab/ci/status/composite.rb (the status of a whole),
retry_pipeline_service.rb, pipeline_creation/cancel_redundant_pipelines_service.rb.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from . import ci_variables
from .ci_config import ConfigError, jobs_of
from .git import repository_of
from .http import Context
from .lint import problems_of, read_configuration
from .store import Record, age, now

BLANK = "0" * 40
_SKIP = re.compile(r"\[(ci[ _-]skip|skip[ _-]ci)\]", re.IGNORECASE)
_RULES = (
    "Pipeline will not run for the selected trigger. The rules configuration prevented any jobs from being added to the "
    "pipeline."
)
COMPLETED = ("success", "failed", "canceled", "skipped")
ACTIVE = ("pending", "running", "canceling")
CANCELABLE = ("created", "pending", "running", "manual")
_WEEK = 7 * 86400


class Refused(Exception):
    """Why there is no pipeline."""


def push(context: Context, project: Record, ref: str, old: str, new: str, user: Record, *, tag: bool = False) -> None:
    """The pipeline of a push, where the commit has a configuration. A faulty configuration makes a failed pipeline."""
    if new.strip("0"):
        try:
            create(context, project, ref, user, source="push", before=old, tag=tag)
        except Refused:
            return


def create(
    context: Context,
    project: Record,
    ref: str,
    user: Record,
    *,
    source: str,
    before: str = BLANK,
    tag: bool = False,
    variables: dict[str, str] | None = None,
) -> Record:
    """Stores a pipeline with its jobs and starts it. Raises Refused.

    A push also stores one that is skipped by its commit's message, or that has a faulty configuration.
    """
    repository = repository_of(context.store, project)
    if project["builds_access_level"] == "disabled":
        raise Refused("Pipelines are disabled!")
    commit = repository.commit_of(f"refs/{'tags' if tag else 'heads'}/{ref}")
    if not commit:
        raise Refused("Reference not found")
    found = repository.blob(commit, project["ci_config_path"] or ".gitlab-ci.yml")
    if found is None:
        raise Refused("Missing CI config file")
    mine = [one for one in context.store.all("pipelines") if one["project_id"] == project["id"]]
    pipeline: Record = {
        "project_id": project["id"],
        "iid": max((one["iid"] for one in mine), default=0) + 1,
        "sha": commit,
        "before_sha": before if before.strip("0") else BLANK,
        "ref": ref,
        "tag": tag,
        "source": source,
        "status": "created",
        "yaml_errors": None,
        "user": user["username"],
        "variables": variables or {},
        "created_at": now(),
        "updated_at": now(),
        **dict.fromkeys(("started_at", "finished_at")),
    }
    if source == "push" and _SKIP.search(repository.ask("show", "--no-patch", "--format=%B", commit)):
        return context.store.add("pipelines", pipeline | {"status": "skipped"})
    try:
        jobs = _jobs(context, project, pipeline, user, repository.run("cat-file", "blob", found[1]).decode())
    except ConfigError as error:
        if source != "push":
            raise Refused(str(error)) from None
        failed = {"status": "failed", "yaml_errors": str(error), "finished_at": now()}
        return context.store.add("pipelines", pipeline | failed)
    if not {one["stage"] for one in jobs} - {".pre", ".post"}:
        raise Refused(_RULES)
    pipeline = context.store.add("pipelines", pipeline)
    for job in jobs:
        _add(context, pipeline, job)
    process(context, pipeline)
    _cancel_redundant(context, project, pipeline)
    return pipeline


def _jobs(context: Context, project: Record, pipeline: Record, user: Record, text: str) -> list[Record]:
    tree = read_configuration(text)
    if problems := problems_of(tree):
        raise ConfigError(problems[0])  # GitLab shows only the first one
    known = ci_variables.known(context, project, pipeline, user)
    return jobs_of(tree, pipeline["ref"], tag=pipeline["tag"], known=known)


def _add(context: Context, pipeline: Record, job: dict[str, Any]) -> Record:
    names = ("queued_at", "started_at", "finished_at", "failure_reason", "exit_code", "runner_id", "system_id", "token")
    more = {"project_id": pipeline["project_id"], "pipeline_id": pipeline["id"], "user": pipeline["user"]}
    state = {"status": "created", "retried": False, "created_at": now(), "coverage_value": None}
    return context.store.add("jobs", job | more | state | dict.fromkeys(names))


def jobs_in(context: Context, pipeline: Record, *, retried: bool = False) -> list[Record]:
    """The jobs of a pipeline, in their order; those that were run again only with `retried`."""
    mine = [one for one in context.store.all("jobs") if one["pipeline_id"] == pipeline["id"]]
    return [one for one in mine if retried or not one["retried"]]


def composite(jobs: Iterable[Record], *, needs: bool = False) -> str | None:
    """The status of several jobs as one; None without any. `needs`: those that a job names."""
    seen = {_counted(one) for one in jobs}
    if not seen:
        return None
    fine = {"success_with_warnings", "ignored"}
    if needs and seen & {"skipped", "ignored"}:
        return "skipped"
    if needs and seen - {*COMPLETED, "success_with_warnings"}:
        return "pending"
    for name, allowed in (
        ("skipped", {"skipped", "ignored"}),
        ("success", {"success", "skipped", *fine}),
        ("created", {"created", *fine}),
        ("canceled", {"canceled", "success", "skipped", *fine}),
        ("pending", {"pending", "created", "skipped", *fine}),
    ):
        if seen <= allowed:
            return name
    for name, any_of in (("running", {"running", "pending"}), ("manual", {"manual"}), ("canceling", {"canceling"})):
        if seen & any_of:
            return name
    return "running" if "created" in seen else "failed"


def _counted(job: Record) -> str:
    if job["allow_failure"] and job["status"] in ("failed", "canceled"):
        return "success_with_warnings"
    return "ignored" if job["allow_failure"] and job["status"] == "manual" else str(job["status"])


_VALID = {"on_failure": ("failed",), "always": ("success", "failed", "skipped")}


def process(context: Context, pipeline: Record) -> None:
    """Starts the jobs whose turn it is, skips those that will not run, and sets the pipeline's status."""
    jobs = jobs_in(context, pipeline)
    for job in jobs:
        if job["status"] != "created":
            continue
        needs = job["needs"] is not None
        named = [one for one in jobs if one["name"] in (job["needs"] or ())]
        above = named if needs else [one for one in jobs if one["stage_idx"] < job["stage_idx"]]
        before = composite(above, needs=needs) or "success"
        if before not in COMPLETED:
            continue
        if before not in _VALID.get(job["when"], ("success",) if needs else ("success", "skipped")):
            job["status"] = "skipped"
        elif job["when"] == "manual":
            job["status"] = "manual"
        else:
            job |= {"status": "pending", "queued_at": now()}
            queue(context)
    _settle(pipeline, composite(jobs) or "skipped")
    context.store.changed()


def queue(context: Context) -> None:
    """Records that the runners have to ask for jobs again. Source: Ci::Runner#tick_runner_queue."""
    context.store.new_id("queue")


def _settle(pipeline: Record, status: str) -> None:
    if status == pipeline["status"]:
        return
    pipeline |= {"status": status, "updated_at": now()}
    if status == "running":
        pipeline |= {"started_at": pipeline["started_at"] or now(), "finished_at": None}
    elif status in COMPLETED:
        pipeline["finished_at"] = now()


def finish(context: Context, job: Record, status: str, **facts: Any) -> None:
    """Ends a job, makes its token invalid, and continues its pipeline."""
    job |= {"status": status, "finished_at": now(), **facts}
    for token in [one for one in context.store.all("tokens") if one.get("job_id") == job["id"]]:
        context.store.remove("tokens", token)
    pipeline = pipeline_of(context, job)
    process(context, pipeline)
    if pipeline["status"] in COMPLETED:  # the ref that keeps the commit while the pipeline runs: Ci::PersistentRef
        project = context.store.find("projects", id=job["project_id"])
        if project:
            repository_of(context.store, project).run("update-ref", "-d", f"refs/pipelines/{pipeline['id']}")


def pipeline_of(context: Context, job: Record) -> Record:
    """The pipeline of a job."""
    found = context.store.find("pipelines", id=job["pipeline_id"])
    assert found is not None
    return found


def cancel(context: Context, pipeline: Record, jobs: Sequence[Record] | None = None) -> None:
    """Cancels these jobs, or all. A running one is `canceling` until its runner has run its after_script.

    Source: Ci::Build#supports_canceling?: the runners of today announce cancel_gracefully.
    """
    for job in jobs_in(context, pipeline) if jobs is None else jobs:
        if job["status"] == "running":
            job["status"] = "canceling"
        elif job["status"] in ("created", "pending", "manual"):
            job |= {"status": "canceled", "finished_at": now()}
    process(context, pipeline)


def _cancel_redundant(context: Context, project: Record, newest: Record) -> None:
    """Cancels older pipelines of the ref while none of their jobs has started that is not interruptible (`conservative`)."""
    head = repository_of(context.store, project).commit_of(newest["ref"])
    for one in context.store.all("pipelines"):
        if (one["project_id"], one["ref"]) != (newest["project_id"], newest["ref"]) or one["id"] >= newest["id"]:
            continue
        jobs = jobs_in(context, one, retried=True)
        begun = [job for job in jobs if job["started_at"] and not job["interruptible"]]
        old = one["sha"] in (newest["sha"], head) or age(one["created_at"]) > _WEEK
        if one["status"] in CANCELABLE and not old and not begun:
            cancel(context, one)


def retry(context: Context, pipeline: Record, jobs: Sequence[Record] | None = None) -> list[Record]:
    """Runs failed and canceled jobs again, as new jobs, and what was skipped because of them."""
    chosen = jobs_in(context, pipeline) if jobs is None else jobs
    made = []
    for job in [one for one in chosen if jobs is not None or one["status"] in ("failed", "canceled")]:
        job["retried"] = True
        made.append(_add(context, pipeline, {key: value for key, value in job.items() if key != "id"}))
    for job in jobs_in(context, pipeline):
        if job["status"] == "skipped":
            job["status"] = "created"
    process(context, pipeline)
    return made
