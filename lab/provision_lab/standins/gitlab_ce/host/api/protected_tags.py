"""Protected tags: who may create tags whose names match. Source: GitLab's lib/api/protected_tags.rb, protected_ref_access.rb."""

from __future__ import annotations

from fnmatch import fnmatchcase

from .access import DEVELOPER, MAINTAINER, NO_ONE, find_project
from .http import API, ApiError, Context, Response, bad, paged, route
from .store import Record

_LEVELS = {0: "No one", DEVELOPER: "Developers + Maintainers", MAINTAINER: "Maintainers", NO_ONE: "Instance admins"}


@route("GET", f"{API}/projects/:identity/protected_tags")
def list_protected(context: Context, identity: str) -> Response:
    """All of a project."""
    return paged(context, [_entity(one) for one in _of(context, find_project(context, identity, MAINTAINER))])


@route("GET", f"{API}/projects/:identity/protected_tags/:name")
def show_protected(context: Context, identity: str, name: str) -> Response:
    """The rule with this name or pattern."""
    return Response(200, _entity(_find(context, identity, name)))


@route("POST", f"{API}/projects/:identity/protected_tags")
def protect(context: Context, identity: str) -> Response:
    """Protects a name or a pattern; maintainers may create such tags by default."""
    project = find_project(context, identity, MAINTAINER)
    context.parameters.require("name")
    name, level = context.parameters.text("name"), context.parameters.number("create_access_level", MAINTAINER)
    if level not in _LEVELS:
        raise bad("create_access_level", "does not have a valid value")
    if any(one["name"] == name for one in _of(context, project)):
        raise ApiError(422, {"message": ["Name has already been taken"]})
    number = context.store.new_id("protected_tag_levels")
    record = {"project_id": project["id"], "name": name, "level": level, "level_id": number}
    return Response(201, _entity(context.store.add("protected_tags", record)))


@route("DELETE", f"{API}/projects/:identity/protected_tags/:name")
def unprotect(context: Context, identity: str, name: str) -> Response:
    """Deletes the rule."""
    context.store.remove("protected_tags", _find(context, identity, name))
    return Response(204)


def is_protected_tag(context: Context, project: Record, name: str) -> bool:
    """Whether a rule covers this tag."""
    return any(fnmatchcase(name, one["name"]) for one in _of(context, project))


def _of(context: Context, project: Record) -> list[Record]:
    return [one for one in context.store.all("protected_tags") if one["project_id"] == project["id"]]


def _find(context: Context, identity: str, name: str) -> Record:
    for one in _of(context, find_project(context, identity, MAINTAINER)):
        if one["name"] == name:
            return one
    raise ApiError(404, {"message": "404 Not found"})


def _entity(record: Record) -> Record:
    level = {
        "id": record["level_id"],
        "access_level": record["level"],
        "access_level_description": _LEVELS[record["level"]],
        "deploy_key_id": None,
    }
    return {"name": record["name"], "create_access_levels": [level]}
