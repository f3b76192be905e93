"""Runners as records: made, found, filtered, and touched when one of their machines calls."""

from __future__ import annotations

import secrets
import string
from typing import Any

from .entities import contact, status
from .http import ApiError, Parameters, bad, forbidden
from .routing import Context
from .store import Record, Store, age, now

TYPES = ("instance_type", "group_type", "project_type")
LEVELS = ("not_protected", "ref_protected")
_SHORTEST_TIMEOUT = 600
_TOUCH_SECONDS = 40  # a polling runner is not written down each time
_LETTERS = string.ascii_letters + string.digits + "_-"


def new_token(runner_type: str) -> str:
    """An authentication token as the server makes them since 17.9: the type stands in it."""
    return f"glrt-t{TYPES.index(runner_type) + 1}_" + "".join(secrets.choice(_LETTERS) for _ in range(20))


def new_legacy_token() -> str:
    """The token of a runner that came by a registration token."""
    return "glrtr-" + "".join(secrets.choice(_LETTERS) for _ in range(20))


def editable(sent: Parameters) -> dict[str, Any]:
    """The settings among what was sent, checked one by one."""
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
    """What the model refuses to save. Raises ApiError."""
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
    """A checked runner, kept. `origin`: token, created_by, project_ids."""
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
    """The runner whose authentication token it is. Raises the API's bare 403."""
    found = context.store.find("runners", token=token) if token else None
    if found is None:
        raise forbidden()
    return found


def touch(context: Context, runner: Record, sent: Parameters) -> Record:
    """Notes that a machine with this system id has called, and what it says of itself."""
    info = context.request.parameters.get("info")
    said = info if isinstance(info, dict) else {}
    system = sent.text("system_id") or "<legacy>"
    manager: Record | None = next((one for one in runner["managers"] if one["system_id"] == system), None)
    if manager is None:
        manager = {"id": context.store.new_id("managers"), "system_id": system, "created_at": now()}
        manager |= {"contacted_at": None, "ip_address": context.request.client}
        manager |= dict.fromkeys(("version", "revision", "platform", "architecture"))
        runner["managers"].append(manager)
        context.store.changed()
    news = {key: said[key] for key in ("version", "revision", "platform", "architecture") if key in said}
    if any(manager[key] != value for key, value in news.items()):
        manager |= news
        context.store.changed()
    if manager["contacted_at"] is None or age(manager["contacted_at"]) > _TOUCH_SECONDS:
        manager["contacted_at"] = now()
        context.store.changed()
    return manager


def select(context: Context, runners: list[Record]) -> list[Record]:
    """Those that the filters leave, newest first."""
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
