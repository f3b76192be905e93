"""Records as the API returns them. Source of the field names: GitLab's API description."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from .git import repository_of
from .http import Context
from .store import Record, age

ONLINE_SECONDS = 2 * 3600
STALE_SECONDS = 7 * 86400


def user_basic(context: Context, user: Record) -> Record:
    """A user in short."""
    return {
        "id": user["id"],
        "username": user["username"],
        "public_email": "",
        "name": user.get("name") or ("Administrator" if user["username"] == "root" else user["username"]),
        "state": user.get("state", "active"),
        "locked": False,
        "avatar_url": None,
        "web_url": f"{context.settings['external_url']}/{user['username']}",
    }


def contact(runner: Record) -> str | None:
    """The last time that one of the runner's managers called; None: never."""
    times = [manager["contacted_at"] for manager in runner["managers"] if manager["contacted_at"]]
    return max(times) if times else None


def status(contacted: str | None) -> str:
    """online, offline, stale or never_contacted."""
    if contacted is None:
        return "never_contacted"
    seconds = age(contacted)
    if seconds < ONLINE_SECONDS:
        return "online"
    return "offline" if seconds < STALE_SECONDS else "stale"


def runner(context: Context, record: Record) -> Record:
    """A runner in short."""
    contacted = contact(record)
    creator = context.store.find("users", username=record["created_by"]) if record["created_by"] else None
    return {
        "id": record["id"],
        "description": record["description"],
        "ip_address": record["managers"][-1]["ip_address"] if record["managers"] else None,
        "active": not record["paused"],
        "paused": record["paused"],
        "is_shared": record["runner_type"] == "instance_type",
        "runner_type": record["runner_type"],
        "name": "gitlab-runner" if record["managers"] else None,
        "online": status(contacted) == "online",
        "created_by": user_basic(context, creator) if creator else None,
        "created_at": record["created_at"],
        "status": status(contacted),
        "job_execution_status": "idle",
    }


def runner_details(context: Context, record: Record) -> Record:
    """A runner in full, without its token."""
    latest = record["managers"][-1] if record["managers"] else {}
    return runner(context, record) | {
        "tag_list": record["tag_list"],
        "run_untagged": record["run_untagged"],
        "locked": record["locked"],
        "maximum_timeout": record["maximum_timeout"],
        "access_level": record["access_level"],
        "version": latest.get("version"),
        "revision": latest.get("revision"),
        "platform": latest.get("platform"),
        "architecture": latest.get("architecture"),
        "contacted_at": contact(record),
        "maintenance_note": record["maintenance_note"],
        "projects": [project_basic(context, one) for one in _projects(context, record)],
        "groups": [group_basic(context, one) for one in _groups(context, record)],
    }


def manager(record: Record) -> Record:
    """One machine on which a runner's token is used."""
    return {**record, "status": status(record["contacted_at"]), "job_execution_status": "idle"}


def _projects(context: Context, record: Record) -> list[Record]:
    return [one for one in context.store.all("projects") if one["id"] in record["project_ids"]]


def _groups(context: Context, record: Record) -> list[Record]:
    return [one for one in context.store.all("groups") if one["id"] in record.get("group_ids", ())]


def group_basic(context: Context, record: Record) -> Record:
    """A group in short, as a runner has it."""
    path = record["full_path"]
    return {"id": record["id"], "name": record["name"], "web_url": f"{context.settings['external_url']}/groups/{path}"}


def group(context: Context, record: Record) -> Record:
    """A group, for its members."""
    path = record["full_path"]
    parent = context.store.find("groups", full_path=path.rpartition("/")[0])
    return group_basic(context, record) | {
        "path": path.rpartition("/")[2],
        "full_path": path,
        "full_name": path.replace("/", " / "),
        "description": record.get("description", ""),
        "visibility": record.get("visibility", "private"),
        "parent_id": parent["id"] if parent else None,
    }


def project_basic(context: Context, record: Record) -> Record:
    """A project in short."""
    url = f"{context.settings['external_url']}/{record['path_with_namespace']}"
    return {
        "id": record["id"],
        "description": record["description"],
        "name": record["name"],
        "name_with_namespace": f"{record['namespace']} / {record['name']}",
        "path": record["path"],
        "path_with_namespace": record["path_with_namespace"],
        "created_at": record["created_at"],
        "default_branch": record["default_branch"],
        "web_url": url,
        "http_url_to_repo": f"{url}.git",
    }


def project(context: Context, record: Record) -> Record:
    """A project in full, for its maintainers."""
    base = f"{context.settings['external_url']}/api/v4/projects/{record['id']}"
    host = context.settings["registry_host"]
    level = record["container_registry_access_level"]
    return project_basic(context, record) | {
        "visibility": record["visibility"],
        "archived": False,
        "empty_repo": repository_of(context.store, record).is_empty,
        "namespace": namespace(context, record["namespace"]),
        "_links": {"self": base, "members": f"{base}/members"},
        "container_registry_image_prefix": f"{host}/{record['path_with_namespace'].lower()}" if host else None,
        "container_registry_enabled": level != "disabled",
        "container_registry_access_level": level,
        "jobs_enabled": record["builds_access_level"] != "disabled",
        "builds_access_level": record["builds_access_level"],
        "shared_runners_enabled": record["shared_runners_enabled"],
        "group_runners_enabled": record["group_runners_enabled"],
        "ci_config_path": record["ci_config_path"],
    }


_USERS, _OTHERS = 1_000_000, 2_000_000  # groups are namespaces themselves; these begin the numbers of the others


def namespace_id(context: Context, path: str) -> int:
    """The number of the namespace of a user or group. Seeds may have projects in others."""
    group = context.store.find("groups", full_path=path)
    user = context.store.find("users", username=path)
    if group or user:
        return int(group["id"] if group else _USERS + (user or {})["id"])
    return _OTHERS + sorted({one["namespace"] for one in context.store.all("projects")}).index(path)


def namespace_path(context: Context, number: int) -> str | None:
    """The path of a namespace by its number."""
    if number > _USERS:
        user = context.store.find("users", id=number - _USERS)
        return str(user["username"]) if user else None
    group = context.store.find("groups", id=number)
    return str(group["full_path"]) if group else None


def namespace(context: Context, path: str) -> Record:
    """The namespace of a user or group."""
    return {
        "id": namespace_id(context, path),
        "name": path,
        "path": path.rpartition("/")[2],
        "kind": "user" if context.store.find("users", username=path) else "group",
        "full_path": path,
        "parent_id": None,
        "avatar_url": None,
        "web_url": f"{context.settings['external_url']}/{quote(path)}",
    }


def variable(record: Record) -> dict[str, Any]:
    """A CI variable, without its value when it is hidden."""
    names = (
        "variable_type",
        "key",
        "value",
        "hidden",
        "protected",
        "masked",
        "raw",
        "environment_scope",
        "description",
    )
    shown = {name: record[name] for name in names}
    return {**shown, "value": None} if record["hidden"] else shown
