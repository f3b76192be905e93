"""`/jwt/auth`: whoever logs in to the registry is sent here."""

from __future__ import annotations

import base64
import binascii
from typing import Any
from urllib.parse import parse_qs

from .access import owns
from .http import ApiError, Response
from .routing import Context, route
from .seed import check_password
from .store import Record, now
from .tokens import signed

_REGISTRY_SCOPES = {"api", "read_registry", "write_registry"}


@route("GET", "/jwt/auth", scopes=())
def token(context: Context) -> Response:
    """A token with what the caller may do; less than asked for, or nothing, is not an error."""
    if not context.settings["registry_host"]:
        raise _refused(404, "UNAVAILABLE", "registry not enabled")
    user, writes, only = _who(context)
    # A push that mounts another image's layer sends `scope` twice.
    scopes = [one for text in parse_qs(context.request.raw_query).get("scope", []) for one in text.split()]
    if user is None and not scopes:
        raise _refused(403, "DENIED", "access forbidden")
    granted = [access for scope in scopes if (access := _grant(context, scope, user, writes, only))]
    subject = user["username"] if user else ""
    text = signed(context.settings["signing_key"], context.settings["issuer"], subject, granted)
    return Response(200, {"token": text})


def _who(context: Context) -> tuple[Record | None, bool, int | None]:
    """The user, whether writing is allowed, and the one project a job's token is for. 401 for wrong credentials."""
    header = context.request.header("authorization")
    if not header:
        return None, False, None
    try:
        name, _, password = base64.b64decode(header.partition(" ")[2], validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        raise _denied() from None
    known = context.store.find("tokens", token=password) if password else None
    if known is not None and known.get("project"):
        owner = context.store.find("projects", path_with_namespace=known["project"])
        if name == "gitlab-ci-token" and owner:
            return context.store.find("users", username=known["user"]), True, owner["id"]
        raise _denied()
    if known is not None and _REGISTRY_SCOPES & set(known["scopes"]):
        writes = bool({"api", "write_registry"} & set(known["scopes"]))
        return context.store.find("users", username=known["user"]), writes, None
    user = context.store.find("users", username=name)
    if user is None or not check_password(user, password):
        raise _denied()
    return user, True, None


def _grant(context: Context, scope: str, user: Record | None, writes: bool, only: int | None) -> dict[str, Any] | None:
    """What one `repository:NAME:ACTIONS` gets, or None."""
    kind, _, rest = scope.partition(":")
    name, _, actions = rest.rpartition(":")
    if kind == "registry" and name == "catalog" and user and user["admin"]:
        return {"type": kind, "name": name, "actions": ["*"]}
    project = _project_of(context, name) if kind == "repository" else None
    if project is None or project["container_registry_access_level"] == "disabled":
        return None
    if only is not None and only != project["id"]:
        return None
    allowed: set[str] = set()
    if owns(user, project):
        allowed = {"pull", "push", "delete", "*"} if writes else {"pull"}
    elif project["visibility"] == "public" and project["container_registry_access_level"] == "enabled":
        allowed = {"pull"}
    granted = [action for action in actions.split(",") if action in allowed]
    if not granted:
        return None
    if {"push", "*"} & set(granted):
        _remember(context, project, name)
    return {"type": kind, "name": name, "actions": granted}


def _project_of(context: Context, name: str) -> Record | None:
    """The project that an image belongs to: `group/project`, or up to two levels below it."""
    parts = name.split("/")
    for length in range(len(parts), max(len(parts) - 3, 1), -1):
        wanted = "/".join(parts[:length])
        for project in context.store.all("projects"):
            if project["path_with_namespace"].lower() == wanted:
                return project
    return None


def _remember(context: Context, project: Record, name: str) -> None:
    """The first permission to push makes the repository known."""
    if context.store.find("repositories", path=name) is None:
        context.store.add("repositories", {"path": name, "project_id": project["id"], "created_at": now()})


def _denied() -> ApiError:
    return _refused(401, "UNAUTHORIZED", "HTTP Basic: Access denied. The provided password or token is incorrect.")


def _refused(status: int, code: str, message: str) -> ApiError:
    return ApiError(status, {"errors": [{"code": code, "message": message, "detail": None}]})
