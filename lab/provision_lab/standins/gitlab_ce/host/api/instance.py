"""The instance: version, health, the caller, the sign-in page."""

from __future__ import annotations

import ipaddress

from . import entities
from .http import API, ApiError, Context, Response, route
from .store import ALL_SCOPES


@route("GET", f"{API}/metadata", scopes=("api", "read_api", "create_runner", "manage_runner"))
def metadata(context: Context) -> Response:
    """The version and edition."""
    kas = {"enabled": False, "externalUrl": None, "externalK8sProxyUrl": None, "version": None}
    return Response(
        200,
        {"version": context.settings["version"], "revision": "5a4d1e00000", "kas": kas, "enterprise": False},
    )


@route("GET", f"{API}/version", scopes=("api", "read_api", "create_runner", "manage_runner"))
def version(context: Context) -> Response:
    """The same at its older address."""
    return metadata(context)


@route("GET", f"{API}/user", scopes=("api", "read_api", "read_user"))
def me(context: Context) -> Response:
    """The caller."""
    user = context.caller
    return Response(200, entities.user_basic(context, user) | {"is_admin": user["admin"], "email": ""})


@route("GET", f"{API}/personal_access_tokens/self", scopes=tuple(ALL_SCOPES))
def own_token(context: Context) -> Response:
    """The token of this request."""
    token, user = context.token or {}, context.caller
    fields = {
        "id": token.get("id"),
        "name": token.get("name") or "",
        "revoked": False,
        "created_at": token.get("created_at"),
    }
    more = {
        "scopes": token.get("scopes", []),
        "user_id": user["id"],
        "active": True,
        "expires_at": token.get("expires_at"),
    }
    return Response(200, fields | more)


@route("GET", "/-/health", scopes=())
def health(context: Context) -> Response:
    """Answers when the server runs."""
    _local_only(context)
    return Response(200, "GitLab OK", {"Content-Type": "text/plain; charset=utf-8"})


@route("GET", "/-/liveness", scopes=())
def liveness(context: Context) -> Response:
    """Answers when the process runs."""
    _local_only(context)
    return Response(200, {"status": "ok"})


@route("GET", "/-/readiness", scopes=())
def readiness(context: Context) -> Response:
    """Answers when the services behind it run."""
    _local_only(context)
    return Response(200, {"status": "ok", "master_check": [{"status": "ok"}]})


@route("GET", "/", scopes=())
def front_door(context: Context) -> Response:
    """Redirects to the sign-in page."""
    return Response(302, "", {"Location": f"{context.settings['external_url']}/users/sign_in"})


@route("GET", "/users/sign_in", scopes=())
def sign_in(context: Context) -> Response:
    """The sign-in page."""
    return Response(200, f"<!DOCTYPE html>\n<title>Sign in · GitLab {context.settings['version']} (lab)</title>\n")


def _local_only(context: Context) -> None:
    """Raises 404 for all but the allow-listed addresses, as GitLab does."""
    client = ipaddress.ip_address(context.request.client)
    if not any(client in ipaddress.ip_network(one, strict=False) for one in context.settings["monitoring_whitelist"]):
        raise ApiError(404, "<!DOCTYPE html>\n<title>The page could not be found (404)</title>\n")
