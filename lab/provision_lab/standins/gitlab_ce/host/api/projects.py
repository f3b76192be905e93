"""Projects with the settings that provision changes, and their CI variables."""

from __future__ import annotations

import re
from typing import Any

from . import entities
from .access import GUEST, MAINTAINER, OWNER, find_project, level
from .git import repository_of
from .http import API, ApiError, Context, Parameters, Response, invalid, not_found, paged, route
from .store import Record

ACCESS = ("disabled", "private", "enabled")
VISIBILITY = ("private", "internal", "public")


@route("GET", f"{API}/projects")
def list_projects(context: Context) -> Response:
    """The projects that the caller may see."""
    search = context.parameters.text("search") or ""
    seen = [
        one
        for one in context.store.all("projects")
        if level(context, one["path_with_namespace"]) >= GUEST and search in one["name"]
    ]
    return paged(context, [entities.project(context, one) for one in seen])


@route("GET", f"{API}/projects/:identity")
def show_project(context: Context, identity: str) -> Response:
    """One project."""
    found = find_project(context, identity)
    access = {"access_level": level(context, found["path_with_namespace"]), "notification_level": 3}
    permissions = {"permissions": {"project_access": access, "group_access": None}}
    return Response(200, entities.project(context, found) | permissions)


@route("PUT", f"{API}/projects/:identity")
def update_project(context: Context, identity: str) -> Response:
    """Changes settings."""
    sent = context.parameters
    found = find_project(context, identity, OWNER if "visibility" in sent else MAINTAINER)
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
    branch = wanted.get("default_branch")
    if branch and branch != found["default_branch"] and not repository_of(context.store, found).head(str(branch)):
        raise invalid(
            "base", f"Could not set the default branch. Do you have a branch named '{branch}' in your repository?"
        )
    group = context.store.find("groups", full_path=found["namespace"])
    above = str(group.get("visibility", "private")) if group else "public"
    if "visibility" in wanted and VISIBILITY.index(str(wanted["visibility"])) > VISIBILITY.index(above):
        raise invalid("visibility_level", f"{wanted['visibility']} is not allowed in a {above} group.")
    if not wanted:
        raise ApiError(400, {"error": "at least one parameter must be provided"})
    found |= wanted
    context.store.changed()
    return Response(200, entities.project(context, found))


KEY = re.compile(r"\A[a-zA-Z0-9_]{1,255}\Z")
MASKABLE = re.compile(r"\A[a-zA-Z0-9_+=/@:.~-]{8,}\Z")
MASKABLE_RAW = re.compile(r"\A\S{8,}\Z")
VARIABLE_TYPES = ("env_var", "file")


@route("GET", f"{API}/projects/:identity/variables")
def list_variables(context: Context, identity: str) -> Response:
    """All variables of the project."""
    owner = find_project(context, identity, MAINTAINER)
    return paged(context, [entities.variable(one) for one in _variables_of(context, owner)])


@route("GET", f"{API}/projects/:identity/variables/:key")
def show_variable(context: Context, identity: str, key: str) -> Response:
    """One variable."""
    return Response(200, entities.variable(_variable(context, identity, key)))


@route("POST", f"{API}/projects/:identity/variables")
def create_variable(context: Context, identity: str) -> Response:
    """Creates a variable. It can be hidden only now."""
    owner = find_project(context, identity, MAINTAINER)
    sent = context.parameters
    sent.require("key", "value")
    hidden = bool(sent.flag("masked_and_hidden"))
    defaults = {"protected": False, "masked": hidden, "hidden": hidden, "raw": False, "variable_type": "env_var"}
    record = {"project_id": owner["id"], "key": sent.text("key"), "environment_scope": "*", "description": None}
    record |= defaults | _settings(sent)
    if hidden:
        record["masked"] = True
    if not KEY.match(str(record["key"])):
        raise invalid("key", "can contain only letters, digits and '_'.")
    _check(context, owner, record)
    return Response(201, entities.variable(context.store.add("variables", record)))


@route("PUT", f"{API}/projects/:identity/variables/:key")
def update_variable(context: Context, identity: str, key: str) -> Response:
    """Changes a variable; a hidden one stays masked."""
    found = _variable(context, identity, key)
    wanted = _settings(context.parameters)
    if found["hidden"] and wanted.get("masked") is False:
        raise invalid("base", "The visibility setting cannot be changed for masked and hidden variables.")
    _check(context, find_project(context, identity), found | wanted)
    found |= wanted
    context.store.changed()
    return Response(200, entities.variable(found))


@route("DELETE", f"{API}/projects/:identity/variables/:key")
def delete_variable(context: Context, identity: str, key: str) -> Response:
    """Deletes a variable."""
    context.store.remove("variables", _variable(context, identity, key))
    return Response(204)


def _settings(sent: Parameters) -> dict[str, Any]:
    wanted: dict[str, Any] = {}
    for name in ("value", "environment_scope", "description"):
        if name in sent:
            wanted[name] = sent.text(name)
    for name in ("protected", "masked", "raw"):
        if name in sent:
            wanted[name] = bool(sent.flag(name))
    if "variable_type" in sent:
        wanted["variable_type"] = sent.choice("variable_type", VARIABLE_TYPES)
    return wanted


def _check(context: Context, owner: Record, record: Record) -> None:
    for other in _variables_of(context, owner):
        same = other["key"] == record["key"] and other["environment_scope"] == record["environment_scope"]
        if same and other["id"] != record.get("id"):
            raise invalid("key", f"({record['key']}) has already been taken")
    pattern = MASKABLE_RAW if record["raw"] else MASKABLE
    if record["masked"] and not pattern.match(record["value"] or ""):
        raise invalid("value", "is invalid")


def _variables_of(context: Context, owner: Record) -> list[Record]:
    return [one for one in context.store.all("variables") if one["project_id"] == owner["id"]]


def _variable(context: Context, identity: str, key: str) -> Record:
    """The variable with this key and the scope in `filter[environment_scope]`."""
    owner = find_project(context, identity, MAINTAINER)
    found = [one for one in _variables_of(context, owner) if one["key"] == key]
    chosen = context.request.parameters.get("filter")
    if isinstance(chosen, dict) and chosen.get("environment_scope") is not None:
        found = [one for one in found if one["environment_scope"] == chosen["environment_scope"]]
    if not found:
        raise not_found("Variable")
    if len(found) > 1:
        text = "There are multiple variables with provided parameters. Please use 'filter[environment_scope]'"
        raise ApiError(409, {"message": text})
    return found[0]
