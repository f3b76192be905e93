"""Projects: read, and the settings that this tool changes."""

from __future__ import annotations

from . import entities
from .access import maintained, project
from .http import ApiError, Response
from .paging import paged
from .routing import API, Context, route

ACCESS = ("disabled", "private", "enabled")
VISIBILITY = ("private", "internal", "public")


@route("GET", f"{API}/projects")
def listed(context: Context) -> Response:
    """The projects that the caller sees."""
    search = context.parameters.text("search") or ""
    seen = [one for one in context.store.all("projects") if maintained(context, one) and search in one["name"]]
    return paged(context, [entities.project(context, one) for one in seen])


@route("GET", f"{API}/projects/:identity")
def show(context: Context, identity: str) -> Response:
    """One project."""
    access = {"permissions": {"project_access": {"access_level": 50, "notification_level": 3}, "group_access": None}}
    return Response(200, entities.project(context, project(context, identity)) | access)


@route("PUT", f"{API}/projects/:identity")
def update(context: Context, identity: str) -> Response:
    """Changes settings."""
    found = project(context, identity)
    sent = context.parameters
    wanted: dict[str, object] = {}
    for name in ("shared_runners_enabled", "group_runners_enabled"):
        if name in sent:
            wanted[name] = bool(sent.flag(name))
    for name in ("container_registry_access_level", "builds_access_level"):
        if name in sent:
            wanted[name] = sent.choice(name, ACCESS)
    if "container_registry_enabled" in sent:
        wanted["container_registry_access_level"] = "enabled" if sent.flag("container_registry_enabled") else "disabled"
    if "visibility" in sent:
        wanted["visibility"] = sent.choice("visibility", VISIBILITY)
    for name in ("ci_config_path", "description", "default_branch", "name"):
        if name in sent:
            wanted[name] = sent.text(name)
    if not wanted:
        raise ApiError(400, {"error": "at least one parameter must be provided"})
    found |= wanted
    context.store.changed()
    return Response(200, entities.project(context, found))
