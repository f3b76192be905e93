"""A project's CI variables."""

from __future__ import annotations

import re
from typing import Any

from . import entities
from .access import project
from .http import ApiError, Parameters, Response, invalid, not_found
from .paging import paged
from .routing import API, Context, route
from .store import Record

KEY = re.compile(r"\A[a-zA-Z0-9_]{1,255}\Z")
MASKABLE = re.compile(r"\A[a-zA-Z0-9_+=/@:.~-]{8,}\Z")
MASKABLE_RAW = re.compile(r"\A\S{8,}\Z")
TYPES = ("env_var", "file")


@route("GET", f"{API}/projects/:identity/variables")
def listed(context: Context, identity: str) -> Response:
    """All variables of the project."""
    owner = project(context, identity)
    return paged(context, [entities.variable(one) for one in _of(context, owner)])


@route("GET", f"{API}/projects/:identity/variables/:key")
def show(context: Context, identity: str, key: str) -> Response:
    """One variable."""
    return Response(200, entities.variable(_variable(context, identity, key)))


@route("POST", f"{API}/projects/:identity/variables")
def create(context: Context, identity: str) -> Response:
    """A new variable; only now can it be hidden."""
    owner = project(context, identity)
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
def update(context: Context, identity: str, key: str) -> Response:
    """Changes a variable; a hidden one stays masked."""
    found = _variable(context, identity, key)
    wanted = _settings(context.parameters)
    if found["hidden"] and wanted.get("masked") is False:
        raise invalid("base", "The visibility setting cannot be changed for masked and hidden variables.")
    _check(context, project(context, identity), found | wanted)
    found |= wanted
    context.store.changed()
    return Response(200, entities.variable(found))


@route("DELETE", f"{API}/projects/:identity/variables/:key")
def delete(context: Context, identity: str, key: str) -> Response:
    """Forgets a variable."""
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
        wanted["variable_type"] = sent.choice("variable_type", TYPES)
    return wanted


def _check(context: Context, owner: Record, record: Record) -> None:
    for other in _of(context, owner):
        same = other["key"] == record["key"] and other["environment_scope"] == record["environment_scope"]
        if same and other["id"] != record.get("id"):
            raise invalid("key", f"({record['key']}) has already been taken")
    pattern = MASKABLE_RAW if record["raw"] else MASKABLE
    if record["masked"] and not pattern.match(record["value"] or ""):
        raise invalid("value", "is invalid")


def _of(context: Context, owner: Record) -> list[Record]:
    return [one for one in context.store.all("variables") if one["project_id"] == owner["id"]]


def _variable(context: Context, identity: str, key: str) -> Record:
    """The one that key and `filter[environment_scope]` name."""
    owner = project(context, identity)
    found = [one for one in _of(context, owner) if one["key"] == key]
    chosen = context.request.parameters.get("filter")
    if isinstance(chosen, dict) and chosen.get("environment_scope") is not None:
        found = [one for one in found if one["environment_scope"] == chosen["environment_scope"]]
    if not found:
        raise not_found("Variable")
    if len(found) > 1:
        says = "There are multiple variables with provided parameters. Please use 'filter[environment_scope]'"
        raise ApiError(409, {"message": says})
    return found[0]
