"""What users ask about pipelines and jobs. Sources: GitLab's lib/api/ci/{pipelines,jobs}.rb, lib/api/entities/ci."""

from __future__ import annotations

import datetime
from pathlib import Path

from . import entities, pipelines
from .access import DEVELOPER, MAINTAINER, REPORTER, find_project, is_protected, may_push
from .git import repository_of
from .http import API, ApiError, Context, Response, bad, forbidden, invalid, not_found, paged, route
from .pipelines import COMPLETED, Refused
from .repository import commit_shown
from .store import Record

_HERE = f"{API}/projects/:identity"
STATUSES = (
    *("created", "waiting_for_resource", "preparing", "waiting_for_callback", "pending", "running", "success"),
    *("failed", "canceling", "canceled", "skipped", "manual", "scheduled"),
)
_SCOPES = ("running", "pending", "finished", "branches", "tags")


@route("GET", f"{_HERE}/pipelines")
def list_pipelines(context: Context, identity: str) -> Response:
    """Pipelines, the newest first unless another order is asked for."""
    project, sent = find_project(context, identity, REPORTER), context.parameters
    scope = sent.choice("scope", _SCOPES)
    wanted = {name: sent.text(name) for name in ("ref", "sha", "source", "username") if sent.text(name) is not None}
    if (status := sent.choice("status", STATUSES)) is not None:
        wanted["status"] = status
    if "username" in wanted:
        wanted["user"] = wanted.pop("username")
    found = [one for one in _of(context, project) if wanted.items() <= one.items() and _in(scope, one)]
    if (faulty := sent.flag("yaml_errors")) is not None:
        found = [one for one in found if (one["yaml_errors"] is not None) is faulty]
    if scope in ("branches", "tags"):  # the newest one of each
        latest = {one["ref"]: one for one in found}
        found = [one for one in found if latest[one["ref"]] is one]
    order = sent.choice("order_by", ("id", "status", "ref", "updated_at", "user_id"), "id") or "id"
    key = "user" if order == "user_id" else order
    found.sort(key=lambda one: (one[key], one["id"]), reverse=sent.choice("sort", ("asc", "desc"), "desc") == "desc")
    return paged(context, [basic(context, project, one) for one in found])


def _in(scope: str | None, pipeline: Record) -> bool:
    if scope in ("running", "pending"):
        return bool(pipeline["status"] == scope)
    if scope == "finished":
        return pipeline["status"] in COMPLETED
    return scope is None or pipeline["tag"] is (scope == "tags")


@route("POST", f"{_HERE}/pipeline")
def create_pipeline(context: Context, identity: str) -> Response:
    """Starts a pipeline for a branch or a tag; one that is refused is not stored."""
    project, sent = find_project(context, identity, DEVELOPER), context.parameters
    sent.require("ref")
    ref = sent.text("ref") or ""
    tag = not repository_of(context.store, project).head(ref)
    if not tag and not may_push(context, project, ref):
        raise invalid("base", f"You do not have sufficient permission to run a pipeline on '{ref}'. {_LEARN}")
    listed = context.request.parameters.get("variables") or []
    values = {str(one["key"]): str(one.get("value", "")) for one in listed}
    try:
        made = pipelines.create(context, project, ref, context.caller, source="api", tag=tag, variables=values)
    except Refused as error:
        raise invalid("base", str(error)) from None
    return Response(201, full(context, project, made))


_LEARN = "Please select a different branch or contact your administrator for assistance. Learn more"


@route("GET", f"{_HERE}/pipelines/latest")
def latest_pipeline(context: Context, identity: str) -> Response:
    """The newest pipeline of the newest commit of a branch. 403 where there is none, as in GitLab."""
    project = find_project(context, identity, REPORTER)
    ref = context.parameters.text("ref") or project["default_branch"]
    commit = repository_of(context.store, project).commit_of(ref)
    found = [one for one in _of(context, project) if (one["ref"], one["sha"]) == (ref, commit)]
    if not found:
        raise forbidden()  # Source: authorize! :read_pipeline with nothing to read
    return Response(200, full(context, project, found[-1]))


@route("GET", f"{_HERE}/pipelines/:number")
def show_pipeline(context: Context, identity: str, number: str) -> Response:
    """One pipeline."""
    project = find_project(context, identity, REPORTER)
    return Response(200, full(context, project, _pipeline(context, project, number)))


@route("GET", f"{_HERE}/pipelines/:number/jobs")
def pipeline_jobs(context: Context, identity: str, number: str) -> Response:
    """The jobs of a pipeline, the newest first; those that were run again with include_retried."""
    project = find_project(context, identity, REPORTER)
    pipeline = _pipeline(context, project, number)
    found = pipelines.jobs_in(context, pipeline, retried=bool(context.parameters.flag("include_retried")))
    return paged(context, [job_shown(context, project, one) for one in reversed(_scoped(context, found))])


@route("GET", f"{_HERE}/pipelines/:number/bridges")
def pipeline_bridges(context: Context, identity: str, number: str) -> Response:
    """The trigger jobs of a pipeline. There are none here."""
    _pipeline(context, find_project(context, identity, REPORTER), number)
    return paged(context, [])


@route("GET", f"{_HERE}/jobs")
def project_jobs(context: Context, identity: str) -> Response:
    """All jobs of a project, the newest first."""
    project = find_project(context, identity, REPORTER)
    found = [one for one in context.store.all("jobs") if one["project_id"] == project["id"]]
    return paged(context, [job_shown(context, project, one) for one in reversed(_scoped(context, found))])


def _scoped(context: Context, jobs: list[Record]) -> list[Record]:
    scope = context.request.parameters.get("scope")
    wanted = [scope] if isinstance(scope, str) else scope
    if not wanted:
        return jobs
    if not set(wanted) <= set(STATUSES):
        raise bad("scope", "does not have a valid value")
    return [one for one in jobs if one["status"] in wanted]


@route("GET", f"{_HERE}/jobs/:number")
def show_job(context: Context, identity: str, number: str) -> Response:
    """One job."""
    project = find_project(context, identity, REPORTER)
    return Response(200, job_shown(context, project, _job(context, project, number)))


@route("GET", f"{_HERE}/jobs/:number/trace")
def show_trace(context: Context, identity: str, number: str) -> Response:
    """What the runner has sent of the log until now."""
    project = find_project(context, identity, REPORTER)
    job = _job(context, project, number)
    path = trace_file(context, job)
    headers = {"Content-Type": "text/plain", "Content-Disposition": f'infile; filename="{job["id"]}.log"'}
    return Response(200, path.read_bytes() if path.exists() else b"", headers)


def trace_file(context: Context, job: Record) -> Path:
    """The file of a job's log."""
    return context.store.traces / f"{job['id']}.log"


@route("POST", f"{_HERE}/pipelines/:number/retry")
def retry_pipeline(context: Context, identity: str, number: str) -> Response:
    """Runs the failed and canceled jobs again."""
    project = find_project(context, identity, DEVELOPER)
    pipeline = _changeable(context, project, _pipeline(context, project, number))
    pipelines.retry(context, pipeline)
    return Response(201, full(context, project, pipeline))


@route("POST", f"{_HERE}/pipelines/:number/cancel")
def cancel_pipeline(context: Context, identity: str, number: str) -> Response:
    """Cancels all jobs; nothing for a pipeline that has ended."""
    project = find_project(context, identity, DEVELOPER)
    pipeline = _changeable(context, project, _pipeline(context, project, number))
    if pipeline["status"] not in COMPLETED:
        pipelines.cancel(context, pipeline)
    return Response(200, full(context, project, pipeline))


@route("DELETE", f"{_HERE}/pipelines/:number")
def delete_pipeline(context: Context, identity: str, number: str) -> Response:
    """Deletes a pipeline with its jobs and their logs."""
    project = find_project(context, identity, MAINTAINER)
    pipeline = _pipeline(context, project, number)
    for job in pipelines.jobs_in(context, pipeline, retried=True):
        trace_file(context, job).unlink(missing_ok=True)
        context.store.remove("jobs", job)
    context.store.remove("pipelines", pipeline)
    return Response(204)


@route("POST", f"{_HERE}/jobs/:number/retry")
def retry_job(context: Context, identity: str, number: str) -> Response:
    """Runs a job again that has ended."""
    project, job, pipeline = _own(context, identity, number)
    if job["status"] not in ("success", "failed", "canceled") or job["retried"]:
        raise forbidden("Job is not retryable")
    return Response(201, job_shown(context, project, pipelines.retry(context, pipeline, [job])[0]))


@route("POST", f"{_HERE}/jobs/:number/cancel")
def cancel_job(context: Context, identity: str, number: str) -> Response:
    """Cancels a job."""
    project, job, pipeline = _own(context, identity, number)
    pipelines.cancel(context, pipeline, [job])
    return Response(201, job_shown(context, project, job))


@route("POST", f"{_HERE}/jobs/:number/play")
def play_job(context: Context, identity: str, number: str) -> Response:
    """Starts a manual job."""
    project, job, pipeline = _own(context, identity, number)
    if job["status"] != "manual":
        raise ApiError(400, {"message": "400 Bad request - Unplayable Job"})
    job |= {"status": "created", "when": "on_success"}
    pipelines.process(context, pipeline)
    return Response(200, job_shown(context, project, job))


def _own(context: Context, identity: str, number: str) -> tuple[Record, Record, Record]:
    project = find_project(context, identity, DEVELOPER)
    job = _job(context, project, number)
    return project, job, _changeable(context, project, pipelines.pipeline_of(context, job))


def _changeable(context: Context, project: Record, pipeline: Record) -> Record:
    """Raises 403 for a pipeline of a protected branch that the caller may not push to. Source: Ci::PipelinePolicy."""
    ref = pipeline["ref"]
    if not pipeline["tag"] and is_protected(context, project, ref) and not may_push(context, project, ref):
        raise forbidden()
    return pipeline


def _of(context: Context, project: Record) -> list[Record]:
    return [one for one in context.store.all("pipelines") if one["project_id"] == project["id"]]


def _pipeline(context: Context, project: Record, number: str) -> Record:
    if not number.isdigit():
        raise bad("pipeline_id")
    found = next((one for one in _of(context, project) if one["id"] == int(number)), None)
    if found is None:
        raise ApiError(404, {"message": "404 Not found"})
    return found


def _job(context: Context, project: Record, number: str) -> Record:
    if not number.isdigit():
        raise bad("job_id")
    found = context.store.find("jobs", id=int(number), project_id=project["id"])
    if found is None:
        raise not_found("Job")
    return found


def basic(context: Context, project: Record, pipeline: Record) -> Record:
    """A pipeline in short."""
    names = ("id", "iid", "project_id", "sha", "ref", "status", "source", "created_at", "updated_at")
    url = f"{context.settings['external_url']}/{project['path_with_namespace']}/-/pipelines/{pipeline['id']}"
    return {name: pipeline[name] for name in names} | {"web_url": url}


def full(context: Context, project: Record, pipeline: Record) -> Record:
    """A pipeline with its times, its user and the faults of its configuration."""
    user = context.store.find("users", username=pipeline["user"])
    covered = [
        one["coverage_value"] for one in pipelines.jobs_in(context, pipeline) if one["coverage_value"] is not None
    ]
    names = ("before_sha", "tag", "yaml_errors", "started_at", "finished_at")
    word = "passed" if pipeline["status"] == "success" else str(pipeline["status"])
    duration, waited = (
        elapsed(pipeline, *ends) for ends in (("started_at", "finished_at"), ("created_at", "started_at"))
    )
    path = f"/{project['path_with_namespace']}/-/pipelines/{pipeline['id']}"
    more = {
        "user": entities.user_basic(context, user) if user else None,
        "committed_at": None,
        "duration": None if duration is None else int(duration),
        "queued_duration": None if waited is None else int(waited),
        "coverage": f"{sum(covered) / len(covered):.2f}" if covered else None,
        "detailed_status": {
            "icon": f"status_{pipeline['status']}",
            "text": word.capitalize(),
            "label": word,
            "group": pipeline["status"],
            "tooltip": word,
            "has_details": True,
            "details_path": path,
            "illustration": None,
            "favicon": f"/assets/ci_favicons/favicon_status_{pipeline['status']}.png",
        },
    }
    return basic(context, project, pipeline) | {name: pipeline[name] for name in names} | more


def elapsed(record: Record, start: str, end: str) -> float | None:
    """Seconds between two moments of a record; until now for one that has begun and not ended; None before."""
    if not record[start]:
        return None
    first = datetime.datetime.fromisoformat(record[start])
    last = datetime.datetime.fromisoformat(record[end]) if record[end] else datetime.datetime.now(datetime.UTC)
    return (last - first).total_seconds()


def job_shown(context: Context, project: Record, job: Record) -> Record:
    """A job. A failed one has its failure_reason."""
    pipeline = pipelines.pipeline_of(context, job)
    user = context.store.find("users", username=job["user"])
    runner = context.store.find("runners", id=job["runner_id"]) if job["runner_id"] else None
    managers = runner["managers"] if runner else []
    manager = next((one for one in managers if one["system_id"] == job["system_id"]), None)
    names = ("id", "status", "stage", "name", "allow_failure", "created_at", "started_at", "finished_at", "tag_list")
    shown = {name: job[name] for name in names} | {
        "ref": pipeline["ref"],
        "tag": pipeline["tag"],
        "coverage": job["coverage_value"],
        "erased_at": None,
        "duration": elapsed(job, "started_at", "finished_at"),
        "queued_duration": elapsed(job, "queued_at", "started_at" if job["started_at"] else "finished_at"),
        "user": entities.user_basic(context, user) if user else None,
        "commit": commit_shown(repository_of(context.store, project), pipeline["sha"]),
        "pipeline": basic(context, project, pipeline),
        "web_url": f"{context.settings['external_url']}/{project['path_with_namespace']}/-/jobs/{job['id']}",
        "project": {"ci_job_token_scope_enabled": False},
        "artifacts": [],
        "runner": entities.runner(context, runner) if runner else None,
        "runner_manager": entities.manager(manager) if manager else None,
        "artifacts_expire_at": None,
        "archived": False,
    }
    return shown | ({"failure_reason": job["failure_reason"]} if job["status"] == "failed" else {})
