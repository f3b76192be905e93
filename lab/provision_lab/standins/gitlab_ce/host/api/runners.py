"""Runners as users and scripts see them."""

from __future__ import annotations

from . import entities
from .access import maintained, project
from .http import ApiError, Response, bad, forbidden, invalid, missing, not_found
from .machines import give_new_token
from .paging import paged
from .routing import API, Context, route
from .runner_records import TYPES, check, create, editable, new_token, select
from .store import Record


@route("POST", f"{API}/user/runners", scopes=("api", "create_runner"))
def create_runner(context: Context) -> Response:
    """A runner owned by the caller: the only moment at which its token is told."""
    sent = context.parameters
    sent.require("runner_type")
    kind = sent.choice("runner_type", TYPES) or ""
    if sent.text("group_id") and sent.text("project_id"):
        raise ApiError(400, {"error": "group_id, project_id are mutually exclusive"})
    owners: list[int] = []
    if kind == "instance_type":
        for name in ("group_id", "project_id"):
            if sent.text(name):
                raise bad(name, "is only for that type of runner")
        if not context.caller["admin"]:
            raise forbidden("Insufficient permissions")
    elif kind == "project_type":
        if sent.text("group_id"):
            raise bad("group_id", "is only for that type of runner")
        number = sent.number("project_id")
        if number is None:
            raise missing("project_id")
        owner = context.store.find("projects", id=number)
        if owner is None or not maintained(context, owner):
            raise forbidden("Insufficient permissions")
        owners = [number]
    elif sent.number("group_id") is None:
        raise missing("group_id")
    else:
        raise forbidden("Insufficient permissions")  # there are no groups here
    settings = editable(sent)
    origin = {"token": new_token(kind), "created_by": context.caller["username"], "project_ids": owners}
    runner = create(context.store, kind, settings, **origin)
    return Response(201, {"id": runner["id"], "token": runner["token"], "token_expires_at": None})


@route("GET", f"{API}/runners/all")
def all_runners(context: Context) -> Response:
    """Every runner, for administrators."""
    if not context.caller["admin"]:
        raise forbidden()
    return _listed(context, context.store.all("runners"))


@route("GET", f"{API}/runners")
def own_runners(context: Context) -> Response:
    """The runners of the caller's projects."""
    mine = {one["id"] for one in context.store.all("projects") if maintained(context, one)}
    return _listed(context, [one for one in context.store.all("runners") if mine & set(one["project_ids"])])


@route("GET", f"{API}/runners/:identity")
def show(context: Context, identity: str) -> Response:
    """One runner; never its token."""
    return Response(200, entities.runner_details(context, _runner(context, identity, reading=True)))


@route("PUT", f"{API}/runners/:identity", scopes=("api", "manage_runner"))
def update(context: Context, identity: str) -> Response:
    """Changes settings; all of them or none."""
    runner = _runner(context, identity)
    wanted = editable(context.parameters)
    if not wanted:
        names = "description, active, paused, tag_list, run_untagged, locked, access_level, maximum_timeout"
        raise ApiError(400, {"error": f"{names} are missing, at least one parameter must be provided"})
    check(runner | wanted)
    runner |= wanted
    context.store.changed()
    return Response(200, entities.runner_details(context, runner))


@route("DELETE", f"{API}/runners/:identity", scopes=("api", "manage_runner"))
def delete(context: Context, identity: str) -> Response:
    """Deletes a runner."""
    context.store.remove("runners", _runner(context, identity))
    return Response(204)


@route("GET", f"{API}/runners/:identity/managers")
def managers(context: Context, identity: str) -> Response:
    """The machines on which a runner's token is used."""
    runner = _runner(context, identity, reading=True)
    return paged(context, [entities.manager(one) for one in runner["managers"]])


@route("POST", f"{API}/runners/:identity/reset_authentication_token", scopes=("api", "manage_runner"))
def reset_token(context: Context, identity: str) -> Response:
    """A new token; the old one is void at once."""
    return Response(201, give_new_token(context, _runner(context, identity)))


@route("GET", f"{API}/projects/:identity/runners")
def project_runners(context: Context, identity: str) -> Response:
    """The runners that may take a project's jobs."""
    owner = project(context, identity, "Project")
    mine = [one for one in context.store.all("runners") if owner["id"] in one["project_ids"]]
    if owner["shared_runners_enabled"]:
        mine += [one for one in context.store.all("runners") if one["runner_type"] == "instance_type"]
    return _listed(context, mine)


@route("POST", f"{API}/projects/:identity/runners")
def assign(context: Context, identity: str) -> Response:
    """Lets a project runner serve one project more."""
    owner = project(context, identity, "Project")
    context.parameters.require("runner_id")
    runner = _runner(context, str(context.parameters.number("runner_id")))
    if runner["runner_type"] != "project_type":
        raise forbidden("Runner is not a project runner")
    if owner["id"] in runner["project_ids"]:
        raise invalid("runner_projects.runner", "has already been taken")
    if runner["locked"] and not context.caller["admin"]:
        raise forbidden("Runner is locked")
    runner["project_ids"].append(owner["id"])
    context.store.changed()
    return Response(201, entities.runner(context, runner))


@route("DELETE", f"{API}/projects/:identity/runners/:runner")
def unassign(context: Context, identity: str, runner: str) -> Response:
    """Takes a runner off a project, unless that is the one it was made for."""
    owner = project(context, identity, "Project")
    found = _runner(context, runner)
    if owner["id"] not in found["project_ids"]:
        raise not_found("Runner")
    if found["project_ids"][0] == owner["id"]:
        raise forbidden("You cannot unassign a runner from the owner project. Delete the runner instead")
    found["project_ids"].remove(owner["id"])
    context.store.changed()
    return Response(204)


def _listed(context: Context, runners: list[Record]) -> Response:
    return paged(context, [entities.runner(context, one) for one in select(context, runners)])


def _runner(context: Context, identity: str, *, reading: bool = False) -> Record:
    if not identity.isdigit():
        raise bad("id")
    runner = context.store.find("runners", id=int(identity))
    if runner is None:
        raise not_found("Runner")
    if context.caller["admin"] or (reading and runner["runner_type"] == "instance_type"):
        return runner
    owners = [one for one in context.store.all("projects") if one["id"] in runner["project_ids"]]
    if not any(maintained(context, one) for one in owners):
        raise ApiError(403, {"message": "403 Forbidden - No access granted"})
    return runner
