"""Runners: their records, the requests of gitlab-runner itself (with a runner's token), and those of users."""

from __future__ import annotations

import secrets
import string
from typing import Any

from . import entities
from .access import MAINTAINER, OWNER, find_project, is_admin, level, maintained
from .entities import contact, status
from .http import (
    API,
    ApiError,
    Context,
    Parameters,
    Response,
    bad,
    forbidden,
    invalid,
    missing,
    not_found,
    paged,
    route,
)
from .store import Record, Store, age, now

TYPES = ("instance_type", "group_type", "project_type")
LEVELS = ("not_protected", "ref_protected")
_SHORTEST_TIMEOUT = 600
_TOUCH_SECONDS = 40  # so that a polling runner does not cause a write each time
_LETTERS = string.ascii_letters + string.digits + "_-"


def new_token(runner_type: str) -> str:
    """An authentication token in the form of 17.9 and later, which contains the type."""
    return f"glrt-t{TYPES.index(runner_type) + 1}_" + "".join(secrets.choice(_LETTERS) for _ in range(20))


def new_legacy_token() -> str:
    """The token of a runner that was registered with a registration token."""
    return "glrtr-" + "".join(secrets.choice(_LETTERS) for _ in range(20))


def editable(sent: Parameters) -> dict[str, Any]:
    """The settings among the parameters, checked."""
    wanted: dict[str, Any] = {}
    if "active" in sent:
        wanted["paused"] = not sent.flag("active")
    for name in ("paused", "locked", "run_untagged"):
        if name in sent:
            wanted[name] = bool(sent.flag(name))
    if "access_level" in sent:
        wanted["access_level"] = sent.choice("access_level", LEVELS)
    if "description" in sent:
        wanted["description"] = sent.text("description")
    for name in ("maintainer_note", "maintenance_note"):
        if name in sent:
            wanted["maintenance_note"] = sent.text(name, limit=1024)
    if "maximum_timeout" in sent:
        wanted["maximum_timeout"] = sent.number("maximum_timeout")
    if "tag_list" in sent:
        wanted["tag_list"] = sorted(set(sent.texts("tag_list") or []))
    return wanted


def check(runner: Record) -> None:
    """Raises ApiError for settings that GitLab refuses to save."""
    timeout = runner["maximum_timeout"]
    if timeout is not None and timeout < _SHORTEST_TIMEOUT:
        raise _unsaved("Maximum timeout needs to be at least 10 minutes")
    if not runner["run_untagged"] and not runner["tag_list"]:
        raise _unsaved("Tags list can not be empty when runner is not allowed to pick untagged jobs")
    if len(runner["tag_list"]) > 50:
        raise _unsaved("Tags list Too many tags specified. Please limit the number of tags to 50")


def _unsaved(text: str) -> ApiError:
    return ApiError(400, {"message": f"400 Bad request - {text}"})


def create(store: Store, runner_type: str, settings: dict[str, Any], **origin: Any) -> Record:
    """Stores a checked runner. `origin`: token, created_by, project_ids."""
    defaults: dict[str, Any] = {
        "description": None,
        "paused": False,
        "locked": False,
        "access_level": "not_protected",
        "run_untagged": True,
        "tag_list": [],
        "maximum_timeout": None,
        "maintenance_note": None,
    }
    runner = {"runner_type": runner_type, "created_at": now(), "managers": [], **defaults, **settings, **origin}
    check(runner)
    return store.add("runners", runner)


def by_token(context: Context, token: str | None) -> Record:
    """The runner with this authentication token. Raises the API's 403 without a reason."""
    found = context.store.find("runners", token=token) if token else None
    if found is None:
        raise forbidden()
    return found


def touch(context: Context, runner: Record, sent: Parameters) -> Record:
    """Records that the machine with this system id has called, and what it sent about itself."""
    info = context.request.parameters.get("info")
    sent_info = info if isinstance(info, dict) else {}
    system = sent.text("system_id") or "<legacy>"
    manager: Record | None = next((one for one in runner["managers"] if one["system_id"] == system), None)
    if manager is None:
        manager = {"id": context.store.new_id("managers"), "system_id": system, "created_at": now()}
        manager |= {"contacted_at": None, "ip_address": context.request.client}
        manager |= dict.fromkeys(("version", "revision", "platform", "architecture"))
        runner["managers"].append(manager)
        context.store.changed()
    news = {key: sent_info[key] for key in ("version", "revision", "platform", "architecture") if key in sent_info}
    if any(manager[key] != value for key, value in news.items()):
        manager |= news
        context.store.changed()
    if manager["contacted_at"] is None or age(manager["contacted_at"]) > _TOUCH_SECONDS:
        manager["contacted_at"] = now()
        context.store.changed()
    return manager


def select(context: Context, runners: list[Record]) -> list[Record]:
    """The runners that match the filters, newest first."""
    sent = context.parameters
    kind = sent.choice("type", TYPES)
    states = ("active", "paused", "online", "offline", "never_contacted", "stale")
    state = sent.choice("status", states)
    paused = sent.flag("paused")
    tags = set(sent.texts("tag_list") or [])
    prefix = sent.text("version_prefix")
    scope = sent.text("scope")
    if scope is not None:
        kind, state, paused = _scope(scope, kind, state, paused)

    def fits(runner: Record) -> bool:
        return (
            (kind is None or runner["runner_type"] == kind)
            and (paused is None or runner["paused"] is paused)
            and (state is None or _in_state(runner, state))
            and tags <= set(runner["tag_list"])
            and (prefix is None or any((one["version"] or "").startswith(prefix) for one in runner["managers"]))
        )

    return sorted((one for one in runners if fits(one)), key=lambda one: -int(one["id"]))


def _in_state(runner: Record, state: str) -> bool:
    if state in ("active", "paused"):
        return bool(runner["paused"]) is (state == "paused")
    return status(contact(runner)) == state


def _scope(
    scope: str, kind: str | None, state: str | None, paused: bool | None
) -> tuple[str | None, str | None, bool | None]:
    kinds = {"specific": "project_type", "shared": "instance_type", **{one: one for one in TYPES}}
    if scope in kinds:
        return kinds[scope], state, paused
    if scope in ("active", "paused", "online", "offline", "never_contacted", "stale"):
        return kind, scope, paused
    raise bad("scope", "does not have a valid value")


def _details(runner: Record) -> Record:
    return {"id": runner["id"], "token": runner["token"], "token_expires_at": None}


@route("POST", f"{API}/runners", scopes=())
def register(context: Context) -> Response:
    """Registers with a registration token: removed in 17.0, unless the switch allows it."""
    sent = context.parameters
    sent.require("token")
    if not context.switches.get("legacy_registration"):
        raise ApiError(410, {"message": "410 Gone - runner registration disallowed"})
    if sent.text("token") != context.switches.get("registration_token"):
        raise forbidden()
    settings = editable(sent)
    runner = create(context.store, "instance_type", settings, token=new_legacy_token(), created_by=None, project_ids=[])
    touch(context, runner, sent)
    return Response(201, _details(runner))


@route("POST", f"{API}/runners/verify", scopes=())
def verify(context: Context) -> Response:
    """Whether a token is valid; records a machine with a new system id."""
    sent = context.parameters
    sent.require("token")
    runner = by_token(context, sent.text("token"))
    if runner["runner_type"] == "project_type" and not runner["project_ids"]:
        raise ApiError(422, {"message": "422 Runner is orphaned"})
    touch(context, runner, sent)
    return Response(200, _details(runner))


@route("DELETE", f"{API}/runners", scopes=())
def unregister(context: Context) -> Response:
    """Deletes the runner."""
    sent = context.parameters
    sent.require("token")
    context.store.remove("runners", by_token(context, sent.text("token")))
    return Response(204)


@route("DELETE", f"{API}/runners/managers", scopes=())
def remove_manager(context: Context) -> Response:
    """Deletes one machine of a runner; the runner stays."""
    sent = context.parameters
    sent.require("token", "system_id")
    runner = by_token(context, sent.text("token"))
    found = [one for one in runner["managers"] if one["system_id"] == sent.text("system_id")]
    if not found:
        raise not_found("Runner manager")
    runner["managers"].remove(found[0])
    context.store.changed()
    return Response(204)


@route("POST", f"{API}/runners/reset_authentication_token", scopes=())
def rotate(context: Context) -> Response:
    """Replaces the token that was sent; the old one is invalid at once."""
    sent = context.parameters
    sent.require("token")
    return Response(201, give_new_token(context, by_token(context, sent.text("token"))))


def give_new_token(context: Context, runner: Record) -> Record:
    """Replaces a runner's token; the answer of the API."""
    runner["token"] = new_token(runner["runner_type"])
    context.store.changed()
    return {"token": runner["token"], "token_expires_at": None}


@route("POST", f"{API}/user/runners", scopes=("api", "create_runner"))
def create_runner(context: Context) -> Response:
    """Creates a runner for the caller. Only this answer contains its token."""
    sent = context.parameters
    sent.require("runner_type")
    kind = sent.choice("runner_type", TYPES) or ""
    if sent.text("group_id") and sent.text("project_id"):
        raise ApiError(400, {"error": "group_id, project_id are mutually exclusive"})
    owners: list[int] = []
    groups: list[int] = []
    if kind == "instance_type":
        for name in ("group_id", "project_id"):
            if sent.text(name):
                raise bad(name, "is only for that type of runner")
        if not is_admin(context):
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
    else:
        number = sent.number("group_id")
        if number is None:
            raise missing("group_id")
        group = context.store.find("groups", id=number)
        if group is None or level(context, group["full_path"]) < OWNER:
            raise forbidden("Insufficient permissions")
        groups = [number]
    settings = editable(sent)
    origin = {"token": new_token(kind), "created_by": context.caller["username"], "project_ids": owners}
    origin["group_ids"] = groups
    runner = create(context.store, kind, settings, **origin)
    return Response(201, {"id": runner["id"], "token": runner["token"], "token_expires_at": None})


@route("GET", f"{API}/runners/all")
def all_runners(context: Context) -> Response:
    """Every runner, for administrators."""
    if not is_admin(context):
        raise forbidden()
    return _listed(context, context.store.all("runners"))


@route("GET", f"{API}/runners")
def own_runners(context: Context) -> Response:
    """The runners of the projects that the caller maintains, and of the groups that the caller owns."""
    projects = {one["id"] for one in context.store.all("projects") if maintained(context, one)}
    groups = {one["id"] for one in context.store.all("groups") if level(context, one["full_path"]) >= OWNER}
    found = context.store.all("runners")
    return _listed(context, [one for one in found if projects & set(one["project_ids"]) or groups & groups_of(one)])


@route("GET", f"{API}/runners/:identity")
def show_runner(context: Context, identity: str) -> Response:
    """One runner, without its token."""
    return Response(200, entities.runner_details(context, _runner(context, identity, reading=True)))


@route("PUT", f"{API}/runners/:identity", scopes=("api", "manage_runner"))
def update_runner(context: Context, identity: str) -> Response:
    """Changes settings: all of them or none."""
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
def delete_runner(context: Context, identity: str) -> Response:
    """Deletes a runner. Only an administrator deletes that of several projects."""
    runner = _runner(context, identity)
    if len(runner["project_ids"]) > 1 and not is_admin(context):
        raise forbidden("Runner associated with more than one project")
    context.store.remove("runners", runner)
    return Response(204)


@route("GET", f"{API}/runners/:identity/managers")
def managers(context: Context, identity: str) -> Response:
    """The machines on which a runner's token is used."""
    runner = _runner(context, identity, reading=True)
    return paged(context, [entities.manager(one) for one in runner["managers"]])


@route("POST", f"{API}/runners/:identity/reset_authentication_token", scopes=("api", "manage_runner"))
def reset_token(context: Context, identity: str) -> Response:
    """Replaces a runner's token; the old one is invalid at once."""
    return Response(201, give_new_token(context, _runner(context, identity)))


@route("GET", f"{API}/projects/:identity/runners")
def project_runners(context: Context, identity: str) -> Response:
    """The runners that may run a project's jobs."""
    owner = find_project(context, identity, MAINTAINER)
    mine = [one for one in context.store.all("runners") if owner["id"] in one["project_ids"]]
    if owner["shared_runners_enabled"]:
        mine += [one for one in context.store.all("runners") if one["runner_type"] == "instance_type"]
    if owner["group_runners_enabled"]:
        above = groups_above(context.store, owner["namespace"])
        mine += [one for one in context.store.all("runners") if above & groups_of(one)]
    return _listed(context, mine)


@route("POST", f"{API}/projects/:identity/runners")
def assign(context: Context, identity: str) -> Response:
    """Assigns a project runner to one more project."""
    owner = find_project(context, identity, MAINTAINER)
    context.parameters.require("runner_id")
    runner = _runner(context, str(context.parameters.number("runner_id")))
    if runner["runner_type"] == "group_type":
        raise forbidden("Runner is a group runner")
    if runner["runner_type"] != "project_type":
        raise forbidden("Runner is not a project runner")
    if owner["id"] in runner["project_ids"]:
        raise invalid("runner_projects.runner", "has already been taken")
    if runner["locked"] and not is_admin(context):
        raise forbidden("Runner is locked")
    runner["project_ids"].append(owner["id"])
    context.store.changed()
    return Response(201, entities.runner(context, runner))


@route("DELETE", f"{API}/projects/:identity/runners/:runner")
def unassign(context: Context, identity: str, runner: str) -> Response:
    """Removes a runner from a project, unless the runner was created for it."""
    owner = find_project(context, identity, MAINTAINER)
    found = _runner(context, runner)
    if owner["id"] not in found["project_ids"]:
        raise not_found("Runner")
    if found["locked"] and not is_admin(context):
        raise forbidden("Runner is locked")
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
    if is_admin(context) or (reading and runner["runner_type"] == "instance_type"):
        return runner
    owners = [one for one in context.store.all("projects") if one["id"] in runner["project_ids"]]
    groups = [one for one in context.store.all("groups") if one["id"] in groups_of(runner)]
    least = MAINTAINER if reading else OWNER
    if not any(maintained(context, one) for one in owners) and not any(
        level(context, one["full_path"]) >= least for one in groups
    ):
        raise forbidden("No access granted")
    return runner


def groups_of(runner: Record) -> set[int]:
    """The ids of the groups that a group's runner is for."""
    return set(runner.get("group_ids", ()))


def groups_above(store: Store, path: str) -> set[int]:
    """The ids of the group at `path` and of those that contain it."""
    return {one["id"] for one in store.all("groups") if f"{path}/".startswith(f"{one['full_path']}/")}
