"""Which function answers which request, and who may ask."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from .http import ApiError, Parameters, Request, Response
from .store import Record, Store


@dataclass(frozen=True)
class Context:
    """What a handler has in its hands. `settings`: what the last reconfigure said; `switches`: the tests'."""

    request: Request
    store: Store
    settings: dict[str, Any]
    switches: dict[str, Any]
    user: Record | None

    @property
    def parameters(self) -> Parameters:
        """Query and body."""
        return Parameters(self.request.parameters)

    @property
    def caller(self) -> Record:
        """The user who asks; only where the route wants one."""
        if self.user is None:
            raise unauthorized()
        return self.user


Handler = Callable[..., Response]


@dataclass(frozen=True)
class Route:
    """`scopes`: one of them is enough; none: no token is asked for."""

    method: str
    pattern: re.Pattern[str]
    scopes: tuple[str, ...]
    handler: Handler


ROUTES: list[Route] = []
API = "/api/v4"


def route(method: str, path: str, *, scopes: tuple[str, ...] | None = None) -> Callable[[Handler], Handler]:
    """Registers a handler; `:name` in the path is one percent-encoded segment, `:name*` may hold slashes."""
    if scopes is None:
        scopes = ("api", "read_api") if method in ("GET", "HEAD") else ("api",)
    pattern = re.sub(r":(\w+)\*", r"(?P<\1>.+)", path)
    pattern = re.sub(r":(\w+)", r"(?P<\1>[^/]+)", pattern)

    def register(handler: Handler) -> Handler:
        ROUTES.append(Route(method, re.compile(pattern + r"/?\Z"), scopes or (), handler))
        return handler

    return register


def dispatch(request: Request, store: Store, settings: dict[str, Any], switches: dict[str, Any]) -> Response:
    """The answer, whatever happens in a handler that it foresees."""
    allowed = False
    try:
        for one in ROUTES:
            found = one.pattern.match(request.path)
            if not found:
                continue
            allowed = True
            if one.method != request.method:
                continue
            with store:
                user = _authenticate(request, store, one.scopes) if one.scopes else None
                context = Context(request, store, settings, switches, user)
                return one.handler(context, **{key: unquote(value) for key, value in found.groupdict().items()})
    except ApiError as error:
        return error.response
    if allowed:
        return Response(405, {"error": "405 Not Allowed"})
    if request.path.startswith(API):
        return Response(404, {"error": "404 Not Found"})
    return Response(404, "<!DOCTYPE html>\n<title>The page could not be found (404)</title>\n")


def unauthorized() -> ApiError:
    """401 as the API says it."""
    return ApiError(401, {"message": "401 Unauthorized"})


def _authenticate(request: Request, store: Store, scopes: tuple[str, ...]) -> Record:
    text = request.header("private-token") or str(request.query.get("private_token", ""))
    bearer = request.header("authorization")
    if not text and bearer.lower().startswith("bearer "):
        text = bearer[7:].strip()
    token = store.find("tokens", token=text) if text else None
    if token is None or token.get("project"):
        raise unauthorized()
    if not set(scopes) & set(token["scopes"]):
        raise ApiError(
            403,
            {
                "error": "insufficient_scope",
                "error_description": "The request requires higher privileges than provided by the access token.",
                "scope": " ".join(scopes),
            },
        )
    user = store.find("users", username=token["user"])
    if user is None:
        raise unauthorized()
    return user
