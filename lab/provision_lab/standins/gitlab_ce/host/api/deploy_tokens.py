"""Deploy tokens of projects and groups: logins for images and code that are no user's, and of no use for the API.

Sources: GitLab's lib/api/deploy_tokens.rb, app/models/deploy_token.rb, config/authz/roles/*.yml (a project's maintainer makes
them; in a group only an owner does, and a maintainer reads them).
"""

from __future__ import annotations

import datetime
import re
import secrets

from .access import MAINTAINER, OWNER, find_group, find_project, is_admin
from .http import API, ApiError, Context, Response, bad, forbidden, paged, route
from .store import Record, Store

SCOPES = (
    *("read_repository", "read_registry", "write_registry", "read_package_registry", "write_package_registry"),
    *("read_virtual_registry", "write_virtual_registry"),
)
_USERNAME = re.compile(r"[a-zA-Z0-9.+_-]{1,255}")


@route("GET", f"{API}/deploy_tokens")
def list_all(context: Context) -> Response:
    """Those of the instance, for administrators."""
    if not is_admin(context):
        raise forbidden()
    return _list(context, context.store.all("deploy_tokens"))


@route("GET", f"{API}/projects/:identity/deploy_tokens")
def list_of_project(context: Context, identity: str) -> Response:
    """Those of a project."""
    return _list(context, _of(context, "project", find_project(context, identity, MAINTAINER)))


@route("GET", f"{API}/groups/:identity/deploy_tokens")
def list_of_group(context: Context, identity: str) -> Response:
    """Those of a group."""
    return _list(context, _of(context, "group", find_group(context, identity, MAINTAINER)))


@route("POST", f"{API}/projects/:identity/deploy_tokens")
def create_for_project(context: Context, identity: str) -> Response:
    """Makes one for a project. Only this answer has its text."""
    return _create(context, "project", find_project(context, identity, MAINTAINER))


@route("POST", f"{API}/groups/:identity/deploy_tokens")
def create_for_group(context: Context, identity: str) -> Response:
    """Makes one for the projects of a group. Only this answer has its text."""
    return _create(context, "group", find_group(context, identity, OWNER))


@route("GET", f"{API}/projects/:identity/deploy_tokens/:number")
def show_of_project(context: Context, identity: str, number: str) -> Response:
    """One of a project."""
    return Response(200, _entity(_find(context, "project", find_project(context, identity, MAINTAINER), number)))


@route("GET", f"{API}/groups/:identity/deploy_tokens/:number")
def show_of_group(context: Context, identity: str, number: str) -> Response:
    """One of a group."""
    return Response(200, _entity(_find(context, "group", find_group(context, identity, MAINTAINER), number)))


@route("DELETE", f"{API}/projects/:identity/deploy_tokens/:number")
def delete_of_project(context: Context, identity: str, number: str) -> Response:
    """Deletes one of a project."""
    record = _find(context, "project", find_project(context, identity, MAINTAINER), number)
    context.store.remove("deploy_tokens", record)
    return Response(204)


@route("DELETE", f"{API}/groups/:identity/deploy_tokens/:number")
def delete_of_group(context: Context, identity: str, number: str) -> Response:
    """Deletes one of a group."""
    context.store.remove("deploy_tokens", _find(context, "group", find_group(context, identity, OWNER), number))
    return Response(204)


def login(store: Store, name: str, password: str) -> Record | None:
    """The token that Docker or git logs in with: its text, under its own name. Source: Gitlab::Auth, deploy_token_check."""
    found = store.find("deploy_tokens", token=password) if password else None
    return found if found and found["username"] == name and not _expired(found) else None


def covers(store: Store, record: Record, project: Record) -> bool:
    """Whether the token is for this project: its own, or one in its group or below."""
    if record["owner"] == "project":
        return bool(record["owner_id"] == project["id"])
    group = store.find("groups", id=record["owner_id"])
    return group is not None and project["path_with_namespace"].startswith(f"{group['full_path']}/")


def _of(context: Context, kind: str, owner: Record) -> list[Record]:
    return [one for one in context.store.all("deploy_tokens") if (one["owner"], one["owner_id"]) == (kind, owner["id"])]


def _find(context: Context, kind: str, owner: Record, number: str) -> Record:
    for one in _of(context, kind, owner):
        if str(one["id"]) == number:
            return one
    raise ApiError(404, {"message": "404 Not found"})


def _list(context: Context, found: list[Record]) -> Response:
    active = context.parameters.flag("active")
    return paged(context, [_entity(one) for one in found if active is None or active is not _expired(one)])


def _create(context: Context, kind: str, owner: Record) -> Response:
    sent = context.parameters
    sent.require("name", "scopes")
    scopes = sent.texts("scopes") or []
    if not set(scopes) <= set(SCOPES):
        raise bad("scopes", "does not have a valid value")
    if not scopes:
        raise ApiError(400, {"message": "Scopes can't be blank"})
    username = sent.text("username")
    if username is not None and not _USERNAME.fullmatch(username):
        text = "Username can contain only letters, digits, '_', '-', '+', and '.'"
        raise ApiError(400, {"message": text})
    record = context.store.add(
        "deploy_tokens",
        {
            "name": sent.text("name"),
            "username": username,
            "expires_at": _moment(sent.text("expires_at")),
            "scopes": [one for one in SCOPES if one in scopes],
            "token": f"gldt-{secrets.token_urlsafe(15)}",
            "owner": kind,
            "owner_id": owner["id"],
        },
    )
    record["username"] = username or f"gitlab+deploy-token-{record['id']}"
    return Response(201, _entity(record) | {"token": record["token"]})


def _moment(text: str | None) -> str | None:
    """A date or time in the API's format."""
    if not text:
        return None
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError:
        raise bad("expires_at") from None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)
    return moment.astimezone(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _expired(record: Record) -> bool:
    """It works to the end of its last day."""
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    return record["expires_at"] is not None and record["expires_at"][:10] < today


def _entity(record: Record) -> Record:
    names = ("id", "name", "username", "expires_at", "scopes")
    return {**{name: record[name] for name in names}, "revoked": False, "expired": _expired(record)}
