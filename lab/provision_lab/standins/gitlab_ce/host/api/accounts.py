"""Users, namespaces, members, and new groups and projects.

Sources: GitLab's lib/api/users.rb, members.rb, groups.rb, projects.rb, namespaces.rb; lib/gitlab/path_regex.rb (names),
lib/security/weak_passwords.rb; app/models/group.rb and project.rb (visibility).
"""

from __future__ import annotations

import datetime
import re
import secrets
from typing import Literal

from . import entities
from .access import (
    DEVELOPER,
    GUEST,
    LEVELS,
    MAINTAINER,
    OWNER,
    find_group,
    find_project,
    is_admin,
    level,
    role,
)
from .http import API, ApiError, Context, Response, forbidden, invalid, missing, not_found, paged, route
from .store import Record, ensure_project, ensure_user, now

Kind = Literal["groups", "projects"]
VISIBILITY = ("private", "internal", "public")
_NAMES = {value: name for name, value in LEVELS.items()}
_PATH = re.compile(r"[a-zA-Z0-9_.](?:[a-zA-Z0-9_.-]*[a-zA-Z0-9_-])?\Z")
_FORMAT = "can contain only letters, digits, '_', '-' and '.'. Cannot start with '-' or end in '.', '.git' or '.atom'."
_TOP = frozenset(
    [
        "-",
        ".well-known",
        "404.html",
        "422.html",
        "500.html",
        "502.html",
        "503.html",
        "admin",
        "api",
        "assets",
        "dashboard",
        "explore",
        "favicon.ico",
        "files",
        "groups",
        "health_check",
        "help",
        "import",
        "jwt",
        "login",
        "oauth",
        "profile",
        "projects",
        "public",
        "robots.txt",
        "s",
        "search",
        "sitemap",
        "unsubscribes",
        "uploads",
        "users",
        "v2",
    ]
)
_IN_PROJECTS = frozenset(
    [
        "-",
        "badges",
        "blame",
        "blob",
        "builds",
        "commits",
        "create",
        "create_dir",
        "edit",
        "files",
        "find_file",
        "new",
        "preview",
        "raw",
        "refs",
        "tree",
        "update",
        "wikis",
    ]
)
_WEAK = frozenset(
    [
        "password",
        "password1",
        "password123",
        "12345678",
        "123456789",
        "1234567890",
        "qwertyuiop",
        "admin123",
        "11111111",
    ]
)


@route("GET", f"{API}/users", scopes=("api", "read_api", "read_user"))
def list_users(context: Context) -> Response:
    """All users, or the one of a name."""
    name = context.parameters.text("username")
    found = [one for one in context.store.all("users") if name is None or one["username"].lower() == name.lower()]
    return paged(context, [_user(context, one) for one in reversed(found)])


@route("GET", f"{API}/users/:identity", scopes=("api", "read_api", "read_user"))
def show_user(context: Context, identity: str) -> Response:
    """One user."""
    return Response(200, _user(context, _find_user(context, identity)))


@route("POST", f"{API}/users")
def create_user(context: Context) -> Response:
    """Creates a user: administrators alone."""
    sent = context.parameters
    absent = [name for name in ("email", "name", "username") if not sent.text(name)]
    if absent:
        raise missing(*absent)
    if not (sent.text("password") or sent.flag("reset_password") or sent.flag("force_random_password")):
        text = "password, reset_password, force_random_password are missing, at least one parameter must be provided"
        raise ApiError(400, {"error": text})
    if not is_admin(context):
        raise forbidden()
    record: Record = {
        "username": str(sent.text("username")),
        "admin": False,
        "external": False,
        "state": "active",
        "id": 0,
    }
    record |= _user_fields(context, record)
    user = ensure_user(context.store, record["username"], sent.text("password"))
    user |= {name: value for name, value in record.items() if name != "id"} | {"created_at": now()}
    context.store.changed()
    return Response(201, _user(context, user))


@route("PUT", f"{API}/users/:identity")
def update_user(context: Context, identity: str) -> Response:
    """Changes a user: administrators alone."""
    if not is_admin(context):
        raise forbidden()
    user = _find_user(context, identity)
    user |= _user_fields(context, user)
    context.store.changed()
    return Response(200, _user(context, user))


def _user_fields(context: Context, user: Record) -> Record:
    """The sent fields of a user. Raises the refusals of GitLab."""
    sent, others = context.parameters, [one for one in context.store.all("users") if one["id"] != user["id"]]
    wanted: Record = {name: sent.text(name) for name in ("name", "email", "username") if name in sent}
    wanted |= {name: bool(sent.flag(name)) for name in ("admin", "external") if name in sent}
    email, name = str(wanted.get("email") or ""), str(wanted.get("username") or user["username"])
    if email and any(str(one.get("email", "")).lower() == email.lower() for one in others):
        raise ApiError(409, {"message": "Email has already been taken"})
    if any(one["username"].lower() == name.lower() for one in others):
        raise ApiError(409, {"message": "Username has already been taken"})
    problems: dict[str, list[str]] = {}
    if not _PATH.match(name) or name.endswith((".git", ".atom")):
        problems.setdefault("username", []).append(_FORMAT)
    if name in _TOP:
        problems.setdefault("username", []).append(f"{name} is a reserved name")
    if context.store.find("groups", full_path=name):
        problems.setdefault("username", []).append("has already been taken")
    if email and not re.fullmatch(r"[^@\s]+@[^@\s]+", email):
        problems["email"] = ["is invalid"]
    password = sent.text("password")
    if password is not None and (wrong := _password_problems(password, {**user, **wanted})):
        problems["password"] = wrong
    if problems:
        raise ApiError(400, {"message": problems})
    return wanted


def _password_problems(password: str, user: Record) -> list[str]:
    texts = ["gitlab", "devops", user["username"], str(user.get("name") or ""), str(user.get("email") or "")]
    words = {word.lower() for text in texts for word in (text, *re.split(r"[^0-9A-Za-z]", text)) if len(word) >= 4}
    found = []
    if len(password) < 8:
        found.append("is too short (minimum is 8 characters)")
    if password.lower() in _WEAK or any(word in password.lower() for word in words):
        found.append("must not contain commonly used combinations of words and letters")
    return found


def _find_user(context: Context, identity: str) -> Record:
    found = context.store.find("users", id=int(identity)) if identity.isdigit() else None
    if found is None:
        raise not_found("User")
    return found


def _user(context: Context, user: Record) -> Record:
    shown = entities.user_basic(context, user)
    if not is_admin(context):
        return shown
    more = {"email": user.get("email", ""), "is_admin": user["admin"], "external": user.get("external", False)}
    return (
        shown
        | more
        | {"created_at": user["created_at"], "namespace_id": entities.namespace_id(context, user["username"])}
    )


@route("GET", f"{API}/namespaces/:identity")
def show_namespace(context: Context, identity: str) -> Response:
    """The namespace of a user or a group."""
    user = context.store.find("users", username=identity)
    if user is not None and (is_admin(context) or user is context.caller):
        path = user["username"]
    else:
        path = find_group(context, identity)["full_path"] if _is_group(context, identity) else ""
    if not path:
        raise not_found("Namespace")
    return Response(200, entities.namespace(context, path))


def _is_group(context: Context, path: str) -> bool:
    return context.store.find("groups", full_path=path) is not None


@route("POST", f"{API}/groups")
def create_group(context: Context) -> Response:
    """Creates a group; its creator becomes its owner."""
    sent = context.parameters
    sent.require("name", "path")
    name, above = str(sent.text("path")), sent.number("parent_id")
    parent = context.store.find("groups", id=above) if above else None
    if above and parent is None:
        raise not_found("Group")
    if parent is not None and level(context, parent["full_path"]) < OWNER:
        raise forbidden()
    path = f"{parent['full_path']}/{name}" if parent else name
    visibility = sent.choice("visibility", VISIBILITY, "private")
    problems: dict[str, list[str]] = {}
    if not _PATH.match(name) or name.endswith((".git", ".atom")):
        problems["path"] = [_FORMAT]
    elif name in (_IN_PROJECTS if parent else _TOP):
        problems["path"] = [f"{name} is a reserved name"]
    elif _is_group(context, path) or (not parent and _is_user(context, name)):
        problems["path"] = ["has already been taken"]
    if parent is not None and _above(str(visibility), parent):
        text = f"{visibility} is not allowed since the parent group has a {_visibility(parent)} visibility."
        problems["visibility_level"] = [text]
    if problems:
        raise ApiError(400, {"message": f"Failed to save group {_inspect(problems)}"})
    fields = {"full_path": path, "name": sent.text("name"), "created_at": now(), "visibility": visibility}
    made = context.store.add("groups", {**fields, "description": sent.text("description") or ""})
    context.store.add("members", {"user": context.caller["username"], "path": path, "role": "owner"})
    return Response(201, entities.group(context, made))


@route("PUT", f"{API}/groups/:identity")
def update_group(context: Context, identity: str) -> Response:
    """Changes a group's settings."""
    sent, found = context.parameters, find_group(context, identity, OWNER)
    wanted = {name: sent.text(name) for name in ("name", "description") if name in sent}
    if "visibility" in sent:
        wanted["visibility"] = sent.choice("visibility", VISIBILITY)
        parent = context.store.find("groups", full_path=found["full_path"].rpartition("/")[0])
        if parent is not None and _above(str(wanted["visibility"]), parent):
            text = (
                f"{wanted['visibility']} is not allowed since the parent group has a {_visibility(parent)} visibility."
            )
            raise invalid("visibility_level", text)
    found |= wanted
    context.store.changed()
    return Response(200, entities.group(context, found))


def _is_user(context: Context, name: str) -> bool:
    return any(one["username"].lower() == name.lower() for one in context.store.all("users"))


def _visibility(record: Record) -> str:
    return str(record.get("visibility", "private"))


def _above(visibility: str, parent: Record) -> bool:
    return VISIBILITY.index(visibility) > VISIBILITY.index(_visibility(parent))


def _inspect(problems: dict[str, list[str]]) -> str:
    """A hash of messages as Ruby prints it."""
    texts = [f":{name}=>[{', '.join(chr(34) + one + chr(34) for one in found)}]" for name, found in problems.items()]
    return "{" + ", ".join(texts) + "}"


@route("POST", f"{API}/projects")
def create_project(context: Context) -> Response:
    """Creates an empty project. `default_branch` needs a first commit, which this does not make."""
    sent = context.parameters
    name = sent.text("path") or sent.text("name")
    if not name:
        raise ApiError(400, {"error": "name, path are missing, at least one parameter must be provided"})
    number = sent.number("namespace_id")
    space = entities.namespace_path(context, number) if number else context.caller["username"]
    own = space == context.caller["username"] or level(context, space or "") >= DEVELOPER
    if space is None or not own:
        raise invalid("namespace", "is not valid")
    visibility = str(sent.choice("visibility", VISIBILITY, "private"))
    group = context.store.find("groups", full_path=space)
    problems: dict[str, list[str]] = {}
    if not _PATH.match(name) or name.endswith((".git", ".atom")):
        problems["path"] = [_FORMAT]
    elif name in _IN_PROJECTS:
        problems["path"] = [f"{name} is a reserved name"]
    elif context.store.find("projects", path_with_namespace=f"{space}/{name}"):
        problems |= {one: ["has already been taken"] for one in ("project_namespace.name", "name", "path")}
    if group is not None and _above(visibility, group):
        problems["visibility_level"] = [f"{visibility} is not allowed in a {_visibility(group)} group."]
    if problems:
        raise ApiError(400, {"message": problems})
    made = ensure_project(context.store, f"{space}/{name}")
    made |= {"name": sent.text("name") or name, "visibility": visibility, "description": sent.text("description")}
    context.store.changed()
    return Response(201, entities.project(context, made))


def _source(context: Context, kind: Kind, identity: str, least: int = GUEST) -> tuple[Record, str]:
    """The group or project, and its path."""
    if kind == "groups":
        found = find_group(context, identity, least)
        return found, found["full_path"]
    found = find_project(context, identity, least)
    return found, found["path_with_namespace"]


def _members(context: Context, path: str) -> dict[str, str]:
    """The direct members' roles by user name. The owner of a personal namespace is one of its projects."""
    owner = path.split("/")[0]
    found = {owner: "owner"} if "/" in path and context.store.find("users", username=owner) else {}
    return found | {one["user"]: one["role"] for one in context.store.all("members") if one["path"] == path}


def _member(context: Context, name: str, its_role: str) -> Record:
    user = context.store.find("users", username=name) or {"id": 0, "username": name}
    return entities.user_basic(context, user) | {"access_level": LEVELS[its_role], "expires_at": None}


def _wanted_level(context: Context) -> int:
    value = context.parameters.number("access_level")
    if value is None:
        raise missing("access_level")
    if value not in _NAMES or value > OWNER:
        raise invalid("access_level", "is not included in the list")
    return value


def _endpoints(kind: Kind) -> None:
    """Registers the endpoints of the members of groups or projects."""
    least = OWNER if kind == "groups" else MAINTAINER

    @route("GET", f"{API}/{kind}/:identity/members")
    def list_members(context: Context, identity: str) -> Response:
        _, path = _source(context, kind, identity)
        return paged(context, [_member(context, *one) for one in _members(context, path).items()])

    @route("POST", f"{API}/{kind}/:identity/members")
    def add_member(context: Context, identity: str) -> Response:
        _, path = _source(context, kind, identity, least)
        value = _wanted_level(context)
        user = context.store.find("users", id=context.parameters.number("user_id"))
        if user is None:
            raise not_found("User")
        if user["username"] in _members(context, path):
            raise ApiError(409, {"message": "Member already exists"})
        _refuse_lower(context, user, path, value)
        context.store.add("members", {"user": user["username"], "path": path, "role": _NAMES[value]})
        return Response(201, _member(context, user["username"], _NAMES[value]))

    @route("PUT", f"{API}/{kind}/:identity/members/:number")
    def change_member(context: Context, identity: str, number: str) -> Response:
        _, path = _source(context, kind, identity, least)
        value = _wanted_level(context)
        user = _find_user(context, number)
        found = context.store.find("members", user=user["username"], path=path)
        if found is None:
            raise not_found("Member")
        _refuse_lower(context, user, path, value)
        found["role"] = _NAMES[value]
        context.store.changed()
        return Response(200, _member(context, user["username"], found["role"]))


_TOKENS = f"{API}/projects/:identity/access_tokens"


@route("GET", _TOKENS)
def list_bots(context: Context, identity: str) -> Response:
    """The tokens of a project's bots."""
    _, path = _source(context, "projects", identity, MAINTAINER)
    active = context.parameters.text("state") == "active"
    found = [one for one in context.store.all("tokens") if one.get("bot_of") == path]
    return paged(context, [_bot(one) for one in found if not (active and one.get("revoked"))])


@route("POST", _TOKENS)
def create_bot(context: Context, identity: str) -> Response:
    """Makes a bot with a role in the project, and its token, which only this answer has."""
    project, path = _source(context, "projects", identity, MAINTAINER)
    sent = context.parameters
    sent.require("name", "scopes")
    value = sent.number("access_level", MAINTAINER)
    if value not in _NAMES or value > level(context, path):
        raise ApiError(400, {"message": "400 Bad request - Could not provision maintainer:access to the access token"})
    end = str(sent.text("expires_at") or "")
    if not now()[:10] < end <= str(datetime.date.today() + datetime.timedelta(days=366)):
        raise ApiError(400, {"message": "400 Bad request - Expires at is invalid"})
    bot = ensure_user(context.store, f"project_{project['id']}_bot_{secrets.token_hex(16)}", None)
    context.store.add("members", {"user": bot["username"], "path": path, "role": _NAMES[value]})
    fields = {"name": sent.text("name"), "scopes": sent.texts("scopes"), "expires_at": end, "revoked": False}
    token = f"glpat-{secrets.token_hex(20)}"
    owner = {"user": bot["username"], "project": None, "bot_of": path, "created_at": now(), "access_level": value}
    made = context.store.add("tokens", {"token": token, **fields, **owner})
    return Response(201, _bot(made) | {"token": token})


@route("DELETE", f"{_TOKENS}/:number")
def revoke_bot(context: Context, identity: str, number: str) -> Response:
    """Revokes a bot's token, and deletes the bot."""
    _, path = _source(context, "projects", identity, MAINTAINER)
    found = next(
        (one for one in context.store.all("tokens") if one.get("bot_of") == path and str(one["id"]) == number), None
    )
    if found is None:
        raise not_found("project Access Token")
    found["revoked"] = True
    for table, name in (("members", "user"), ("users", "username")):
        context.store.remove(table, context.store.find(table, **{name: found["user"]}) or {})
    return Response(204)


def _bot(token: Record) -> Record:
    names = ("id", "name", "scopes", "revoked", "created_at", "expires_at", "access_level")
    return {name: token.get(name) for name in names} | {"active": not token.get("revoked")}


def _refuse_lower(context: Context, user: Record, path: str, value: int) -> None:
    """Raises 400 for less than the user has in a group above."""
    above = path.rpartition("/")[0]
    inherited = role(context.store, user, above) if above and _is_group(context, above) else 0
    if inherited > value:
        text = f"should be greater than or equal to {_NAMES[inherited].capitalize()} inherited membership from group {above}"
        raise invalid("access_level", text)


_endpoints("groups")
_endpoints("projects")
