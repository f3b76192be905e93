"""The variables of a job, in GitLab's order: what comes later wins.

Sources: GitLab's lib/gitlab/ci/variables/builder.rb and builder/pipeline.rb; Project#predefined_variables;
Ci::Build#persisted_variables; docs.gitlab.com/ci/variables/predefined_variables.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

from . import entities
from .access import is_protected
from .git import repository_of
from .http import Context
from .protected_tags import is_protected_tag
from .store import Record

Variable = dict[str, Any]


def _all(values: dict[str, Any], **settings: bool) -> list[Variable]:
    kinds = {"public": True, "masked": False, "file": False, "raw": False, **settings}
    return [{"key": key, "value": str(value), **kinds} for key, value in values.items() if value is not None]


def slug(text: str) -> str:
    """A text in small letters, digits and dashes. Source: Gitlab::Utils.slugify."""
    return re.sub(r"[^a-z0-9]", "-", text.lower())[:63].strip("-")


def protected(context: Context, project: Record, pipeline: Record) -> bool:
    """Whether the pipeline runs for a protected branch or tag."""
    if pipeline["tag"]:
        return is_protected_tag(context, project, pipeline["ref"])
    return is_protected(context, project, pipeline["ref"])


def of_pipeline(context: Context, project: Record, pipeline: Record) -> list[Variable]:
    """What project and pipeline predefine."""
    url = context.settings["external_url"]
    site, path = urlsplit(url), project["path_with_namespace"]
    version = context.settings["version"].split(".")
    host, registry = site.hostname or "", context.settings["registry_host"]
    port = site.port or (443 if site.scheme == "https" else 80)
    server = {
        "CI": "true",
        "GITLAB_CI": "true",
        "CI_SERVER": "yes",
        "CI_SERVER_FQDN": site.netloc,
        "CI_SERVER_URL": url,
        "CI_SERVER_HOST": host,
        "CI_SERVER_PORT": port,
        "CI_SERVER_PROTOCOL": site.scheme,
        "CI_SERVER_NAME": "GitLab",
        "CI_SERVER_VERSION": ".".join(version),
        "CI_SERVER_VERSION_MAJOR": version[0],
        "CI_SERVER_VERSION_MINOR": version[1],
        "CI_SERVER_VERSION_PATCH": version[2],
    }
    own = {
        "CI_PROJECT_ID": project["id"],
        "CI_PROJECT_NAME": project["path"],
        "CI_PROJECT_TITLE": project["name"],
        "CI_PROJECT_DESCRIPTION": project["description"],
        "CI_PROJECT_PATH": path,
        "CI_PROJECT_PATH_SLUG": slug(path),
        "CI_PROJECT_NAMESPACE": project["namespace"],
        "CI_PROJECT_NAMESPACE_SLUG": slug(project["namespace"]),
        "CI_PROJECT_NAMESPACE_ID": entities.namespace_id(context, project["namespace"]),
        "CI_PROJECT_ROOT_NAMESPACE": project["namespace"].partition("/")[0],
        "CI_PROJECT_URL": f"{url}/{path}",
        "CI_PROJECT_VISIBILITY": project["visibility"],
        "CI_DEFAULT_BRANCH": project["default_branch"],
        "CI_CONFIG_PATH": project["ci_config_path"] or ".gitlab-ci.yml",
        "CI_REGISTRY": registry or None,
        "CI_REGISTRY_IMAGE": f"{registry}/{path.lower()}"
        if registry and project["container_registry_access_level"] != "disabled"
        else None,
        "CI_API_V4_URL": f"{url}/api/v4",
        "CI_PIPELINE_IID": pipeline["iid"],
        "CI_PIPELINE_SOURCE": pipeline["source"],
        "CI_PIPELINE_CREATED_AT": pipeline["created_at"],
    }
    return _all(server | own | _of_commit(context, project, pipeline))


def _of_commit(context: Context, project: Record, pipeline: Record) -> dict[str, Any]:
    commit, ref = pipeline["sha"], pipeline["ref"]
    shown = repository_of(context.store, project).ask("show", "--no-patch", "--format=%B%x00%cI%x00%an <%ae>", commit)
    message, moment, author = shown.split("\0")
    title, _, rest = message.partition("\n")
    return {
        "CI_COMMIT_SHA": commit,
        "CI_COMMIT_SHORT_SHA": commit[:8],
        "CI_COMMIT_BEFORE_SHA": pipeline["before_sha"],
        "CI_COMMIT_REF_NAME": ref,
        "CI_COMMIT_REF_SLUG": slug(ref),
        "CI_COMMIT_BRANCH": None if pipeline["tag"] else ref,
        "CI_COMMIT_TAG": ref if pipeline["tag"] else None,
        "CI_COMMIT_MESSAGE": message,
        "CI_COMMIT_TITLE": title,
        "CI_COMMIT_DESCRIPTION": rest.lstrip("\n"),
        "CI_COMMIT_REF_PROTECTED": str(protected(context, project, pipeline)).lower(),
        "CI_COMMIT_TIMESTAMP": moment,
        "CI_COMMIT_AUTHOR": author,
    }


def of_project(context: Context, project: Record, pipeline: Record) -> list[Variable]:
    """The project's own variables; protected ones for protected refs only, and none that is for an environment."""
    exposed = protected(context, project, pipeline)
    return [
        {
            "key": one["key"],
            "value": one["value"],
            "public": False,
            "masked": one["masked"],
            "file": one["variable_type"] == "file",
            "raw": one["raw"],
        }
        for one in context.store.all("variables")
        if one["project_id"] == project["id"] and one["environment_scope"] == "*" and (exposed or not one["protected"])
    ]


def of_user(user: Record) -> list[Variable]:
    """Who has started the pipeline."""
    name = user.get("name") or ("Administrator" if user["username"] == "root" else user["username"])
    email = user.get("email") or f"{user['username']}@example.com"
    names = {"ID": user["id"], "EMAIL": email, "LOGIN": user["username"], "NAME": name}
    return _all({f"GITLAB_USER_{key}": value for key, value in names.items()})


def known(context: Context, project: Record, pipeline: Record, user: Record) -> dict[str, str]:
    """What rules may name, without the variables of the file."""
    found = [*of_pipeline(context, project, pipeline), *of_user(user), *of_project(context, project, pipeline)]
    return {one["key"]: one["value"] for one in [*found, *_all(pipeline["variables"])]}


def of_job(context: Context, project: Record, pipeline: Record, job: Record, runner: Record) -> list[Variable]:
    """All variables of a job that a runner takes, with references to each other replaced."""
    url = f"{context.settings['external_url']}/{project['path_with_namespace']}"
    user = context.store.find("users", username=job["user"]) or {"id": 0, "username": job["user"]}
    token, started = job["token"], job["started_at"]
    open_ = {
        "CI_PIPELINE_ID": pipeline["id"],
        "CI_PIPELINE_URL": f"{url}/-/pipelines/{pipeline['id']}",
        "CI_JOB_ID": job["id"],
        "CI_JOB_URL": f"{url}/-/jobs/{job['id']}",
        "CI_JOB_STARTED_AT": started,
        "CI_REGISTRY_USER": "gitlab-ci-token",
        "CI_JOB_NAME": job["name"],
        "CI_JOB_NAME_SLUG": slug(job["name"]),
        "CI_JOB_STAGE": job["stage"],
        "CI_NODE_TOTAL": 1,
    }
    tags = json_list(runner["tag_list"])
    of_runner = {
        "CI_RUNNER_ID": runner["id"],
        "CI_RUNNER_DESCRIPTION": runner["description"] or "",
        "CI_RUNNER_TAGS": tags,
    }
    return expanded(
        [
            *_all(open_),
            *_all({"CI_JOB_TOKEN": token, "CI_REGISTRY_PASSWORD": token}, public=False, masked=True),
            *_all({"CI_REPOSITORY_URL": repository_url(context, project, token)}, public=False),
            *of_pipeline(context, project, pipeline),
            *_all(of_runner),
            *_all(job["variables"]),
            *of_user(user),
            *of_project(context, project, pipeline),
            *_all(pipeline["variables"]),
        ]
    )


def json_list(names: Iterable[str]) -> str:
    """A list as CI_RUNNER_TAGS has it."""
    return "[" + ", ".join(f'"{one}"' for one in names) + "]"


def repository_url(context: Context, project: Record, token: str) -> str:
    """The repository with the job's token as its login."""
    scheme, _, rest = context.settings["external_url"].partition("://")
    return f"{scheme}://gitlab-ci-token:{token}@{rest}/{project['path_with_namespace']}.git"


_REFERENCE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")


def expanded(variables: list[Variable]) -> list[Variable]:
    """Each key once, with references replaced; unknown ones, those to files and those in raw values stay.

    Source: sort_and_expand_all(keep_undefined: true, expand_file_refs: false, expand_raw_refs: false).
    """
    last = {one["key"]: one for one in variables}

    def fill(name: str, above: frozenset[str]) -> str:
        one = last[name]
        if one["raw"] or one["file"]:
            return str(one["value"])
        return _REFERENCE.sub(lambda found: other(found, above | {name}), str(one["value"]))

    def other(found: re.Match[str], above: frozenset[str]) -> str:
        name = found[1] or found[2]
        if name not in last or name in above or last[name]["file"] or last[name]["raw"]:
            return found[0]
        return fill(name, above)

    return [{**one, "value": fill(name, frozenset())} for name, one in last.items()]
