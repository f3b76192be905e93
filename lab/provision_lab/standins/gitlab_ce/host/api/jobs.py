"""The protocol of runners: ask for a job, send its log in pieces, report its end.

Sources: GitLab's lib/api/ci/runner.rb, lib/api/ci/helpers/runner.rb, app/services/ci/{register_job,append_build_trace,
update_build_state}_service.rb, lib/api/entities/ci/job_request; Workhorse's internal/builds/register.go (a request that
knows the newest queue is held, 50 s in gitlab_workhorse['api_ci_long_polling_duration']).
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import time
from typing import Any, Final

from . import ci_variables, pipelines
from .git import repository_of
from .http import API, ApiError, Context, Request, Response, route
from .pipeline_requests import elapsed, trace_file
from .runners import by_token, groups_above, groups_of, touch
from .store import Record, Store, now

_ASK: Final = f"{API}/jobs/request"
_HELD: Final = 50.0
_WATCHED: Final = (
    "60"  # seconds between two pieces of a log that nobody watches in the UI: Trace::UPDATE_FREQUENCY_DEFAULT
)
_DEPTH: Final = 20  # ci_default_git_depth of new projects
_TIMEOUT: Final = 3600  # a project's build_timeout
_FAILURES: Final = (
    *("unknown_failure", "script_failure", "api_failure", "stuck_or_timeout_failure", "runner_system_failure"),
    *("missing_dependency_failure", "runner_unsupported", "job_execution_timeout", "image_pull_failure"),
    *("configuration_error", "runner_configuration_error", "job_canceled"),
)


def queue_value(store: Store, runner: Record) -> str:
    """What changes when the runner has to ask again."""
    own = [runner[name] for name in ("paused", "tag_list", "run_untagged", "access_level", "project_ids")]
    return f"{store.last_id('queue')}-{hashlib.sha256(json.dumps(own).encode()).hexdigest()[:12]}"


def held(request: Request, store: Store) -> Response | None:
    """204 for a request for jobs after there was news or after 50 s; None when it is to be answered now."""
    if request.path != _ASK or request.method != "POST":
        return None
    end, first = time.monotonic() + _HELD, True
    while True:
        with store:
            runner = store.find("runners", token=request.parameters.get("token"))
            same = runner is not None and queue_value(store, runner) == request.parameters.get("last_update")
        left = end - time.monotonic()
        if not same or left <= 0:
            return None if first or runner is None else Response(204)
        first = False
        store.wait(left)


@route("POST", _ASK, scopes=())
def request_job(context: Context) -> Response:
    """The oldest job that this runner may run, or none."""
    context.parameters.require("token")
    runner = by_token(context, context.parameters.text("token"))
    manager = touch(context, runner, context.parameters)
    if not runner["paused"]:
        for job in context.store.all("jobs"):
            if job["status"] == "pending" and _fits(context, runner, job):
                return Response(201, _taken(context, runner, manager, job))
    return Response(204, headers={"X-GitLab-Last-Update": queue_value(context.store, runner)})


def _fits(context: Context, runner: Record, job: Record) -> bool:
    """Source: Ci::Runner#matches_build? and Ci::Queue::BuildQueueService."""
    project = _project(context, job)
    match runner["runner_type"]:
        case "instance_type":
            assigned = project["shared_runners_enabled"]
        case "group_type":
            assigned = project["group_runners_enabled"]
            assigned = assigned and bool(groups_above(context.store, project["namespace"]) & groups_of(runner))
        case _:
            assigned = project["id"] in runner["project_ids"]
    tagged = set(job["tag_list"]) <= set(runner["tag_list"]) if job["tag_list"] else runner["run_untagged"]
    pipeline = pipelines.pipeline_of(context, job)
    allowed = runner["access_level"] == "not_protected" or ci_variables.protected(context, project, pipeline)
    return bool(assigned and tagged and allowed and project["builds_access_level"] != "disabled")


def _project(context: Context, job: Record) -> Record:
    found = context.store.find("projects", id=job["project_id"])
    assert found is not None
    return found


def _taken(context: Context, runner: Record, manager: Record, job: Record) -> Record:
    project, pipeline = _project(context, job), pipelines.pipeline_of(context, job)
    token = f"glcbt-64_{secrets.token_urlsafe(15)}"
    repository_of(context.store, project).run("update-ref", f"refs/pipelines/{pipeline['id']}", pipeline["sha"])
    facts = {"status": "running", "started_at": now(), "runner_id": runner["id"], "token": token}
    job |= facts | {"system_id": manager["system_id"]}
    path = project["path_with_namespace"]
    record = {
        "token": token,
        "user": job["user"],
        "scopes": [],
        "project": path,
        "job_id": job["id"],
        "created_at": now(),
    }
    context.store.add("tokens", record)
    pipelines.process(context, pipeline)
    timeout = job["timeout"] or _TIMEOUT
    if runner["maximum_timeout"]:
        timeout = min(timeout, runner["maximum_timeout"])
    variables = ci_variables.of_job(context, project, pipeline, job, runner)
    ref, kind = pipeline["ref"], "tag" if pipeline["tag"] else "branch"
    depth = next(
        (int(one["value"]) for one in variables if one["key"] == "GIT_DEPTH" and one["value"].isdigit()), _DEPTH
    )
    spec = f"+refs/tags/{ref}:refs/tags/{ref}" if pipeline["tag"] else f"+refs/heads/{ref}:refs/remotes/origin/{ref}"
    registry = context.settings["registry_host"]
    login = {"type": "registry", "url": registry, "username": "gitlab-ci-token", "password": token}
    return {
        "id": job["id"],
        "token": token,
        "allow_git_fetch": True,
        "job_info": {
            "id": job["id"],
            "name": job["name"],
            "stage": job["stage"],
            "pipeline_id": pipeline["id"],
            "project_id": project["id"],
            "project_name": project["name"],
            "project_full_path": path,
            "time_in_queue_seconds": elapsed(job, "queued_at", "started_at"),
            "project_jobs_running_on_instance_runners_count": "+Inf",
        },
        "git_info": {
            "repo_url": ci_variables.repository_url(context, project, token),
            "repo_object_format": "sha1",
            "ref": ref,
            "sha": pipeline["sha"],
            "before_sha": pipeline["before_sha"],
            "ref_type": kind,
            "refspecs": [f"+refs/pipelines/{pipeline['id']}:refs/pipelines/{pipeline['id']}", spec],
            "depth": depth,
        },
        "runner_info": {"timeout": timeout, "runner_session_url": None},
        "variables": variables,
        "steps": _steps(job, timeout),
        "image": job["image"],
        "services": job["services"],
        "artifacts": None,
        "cache": [],
        "credentials": [login] if registry else [],
        "features": {"trace_sections": True, "token_mask_prefixes": ["glpat-"], "failure_reasons": list(_FAILURES)},
        "dependencies": [],
    }


def _steps(job: Record, timeout: int) -> list[dict[str, Any]]:
    main = {"name": "script", "script": job["script"], "timeout": timeout, "when": "on_success", "allow_failure": False}
    after = {"name": "after_script", "script": job["after_script"], "timeout": timeout, "when": "always"}
    return [main, *([after | {"allow_failure": True}] if job["after_script"] else [])]


@route("PATCH", f"{API}/jobs/:number/trace", scopes=())
def append(context: Context, number: str) -> Response:
    """Appends a piece of the log. 416 where it does not begin at the end of what is there."""
    job = _authenticated(context, number)
    sent = context.request.header("content-range")
    if not sent:
        raise ApiError(400, {"error": "400 Missing header Content-Range"})
    path, start = trace_file(context, job), int(sent.partition("-")[0])
    size = path.stat().st_size if path.exists() else 0
    if start != size:
        error = ApiError(416, {})
        error.response = Response(416, {"error": "416 Range Not Satisfiable"}, {"Range": f"0-{size}"})
        raise error
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.write(context.request.raw)
    end = f"0-{size + len(context.request.raw)}"
    return Response(202, None, {"Job-Status": job["status"], "Range": end, "X-GitLab-Trace-Update-Interval": _WATCHED})


@route("PUT", f"{API}/jobs/:number", scopes=())
def update(context: Context, number: str) -> Response:
    """The job's state as its runner reports it."""
    job, sent = _authenticated(context, number), context.parameters
    match sent.text("state"):
        case "running":
            pass
        case "success":
            _end(context, job, "success")
        case "failed":
            reason = sent.text("failure_reason") or ""
            facts = {"failure_reason": reason if reason in _FAILURES else "unknown_failure"}
            _end(context, job, "failed", exit_code=sent.number("exit_code"), **facts)
        case _:
            return Response(400, 400, {"Job-Status": job["status"]})
    return Response(200, 200, {"Job-Status": job["status"], "X-GitLab-Trace-Update-Interval": _WATCHED})


def _end(context: Context, job: Record, status: str, **facts: Any) -> None:
    if job["status"] == "canceling":
        status = "canceled"
    path = trace_file(context, job)
    if job["coverage"] and path.exists():
        facts["coverage_value"] = coverage(path.read_text(errors="replace"), job["coverage"])
    pipelines.finish(context, job, status, **facts)


_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z [0-9a-f]{2}[EO][+ ]")


def coverage(log: str, pattern: str) -> float | None:
    """The last number that matches `/pattern/`, without the times of the lines.

    Source: Gitlab::Ci::Trace::Stream#extract_coverage; the times are there if the first line has one.
    """
    wanted, timed = re.compile(pattern.strip().strip("/")), 32 if _TIME.match(log) else 0
    for line in reversed(log.split("\n")):
        for found in reversed(list(wanted.finditer(line.rstrip("\r")[timed:]))):
            if number := re.search(r"\d+(?:\.\d+)?", found[1] if wanted.groups else found[0]):
                return float(number[0])
    return None


def _authenticated(context: Context, number: str) -> Record:
    """The job, if its token was sent and it runs. Raises 403; a runner ends the job then."""
    job = context.store.find("jobs", id=int(number)) if number.isdigit() else None
    token = context.request.header("job-token") or str(context.request.parameters.get("token") or "")
    if job is None or not job["token"] or not secrets.compare_digest(job["token"], token):
        raise ApiError(403, {"message": "403 Forbidden"})
    if job["status"] not in ("running", "canceling"):
        error = ApiError(403, {})
        message = {"message": "403 Forbidden - Job is not running"}
        error.response = Response(403, message, {"Job-Status": job["status"]})
        raise error
    if runner := context.store.find("runners", id=job["runner_id"]):
        for manager in runner["managers"]:
            if manager["system_id"] == job["system_id"]:
                manager["contacted_at"] = now()
                context.store.changed()
    return job
