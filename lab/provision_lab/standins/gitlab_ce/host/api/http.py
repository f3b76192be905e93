"""Requests, answers and parameters; the routes to the endpoints and who may use them; lists in pages."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode

from .store import Record, Store, find_token

Json = Any


@dataclass(frozen=True)
class Response:
    """An answer. A body of text or bytes is sent unchanged, another one as JSON; None sends no body."""

    status: int
    body: Json | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


class ApiError(Exception):
    """An answer that refuses the request."""

    def __init__(self, status: int, body: Json) -> None:
        super().__init__(f"{status}")
        self.response = Response(status, body)


def missing(*names: str) -> ApiError:
    """400 for missing required parameters."""
    return ApiError(400, {"error": ", ".join(f"{name} is missing" for name in names)})


def bad(name: str, problem: str = "is invalid") -> ApiError:
    """400 for a parameter with an invalid value."""
    return ApiError(400, {"error": f"{name} {problem}"})


def invalid(field_name: str, *messages: str) -> ApiError:
    """400 for a record that cannot be saved."""
    return ApiError(400, {"message": {field_name: list(messages)}})


def forbidden(why: str = "") -> ApiError:
    """403, with a reason where the API gives one."""
    return ApiError(403, {"message": f"403 Forbidden{' - ' + why if why else ''}"})


def not_found(what: str) -> ApiError:
    """404; `what` is `Runner`, `Project`, …"""
    return ApiError(404, {"message": f"404 {what} Not Found"})


@dataclass(frozen=True)
class Request:
    """One request. `path` is percent-encoded and without the query; `raw_query` and `raw` are query and body as received."""

    method: str
    path: str
    query: dict[str, Json]
    body: dict[str, Json]
    headers: Mapping[str, str]
    client: str
    raw_query: str = ""
    raw: bytes = b""

    @property
    def parameters(self) -> dict[str, Json]:
        """The parameters of query and body; the body has precedence."""
        return {**self.query, **self.body}

    def header(self, name: str) -> str:
        """A header's value, or ""; the name in any case."""
        return self.headers.get(name.lower(), "")


class Parameters:
    """Typed access to the parameters. Every method raises the 400 that the API answers."""

    def __init__(self, values: Mapping[str, Json]) -> None:
        self._values = values

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def require(self, *names: str) -> None:
        """Raises 400 unless all of these are present."""
        absent = [name for name in names if self._values.get(name) is None]
        if absent:
            raise missing(*absent)

    def text(self, name: str, default: str | None = None, *, limit: int | None = None) -> str | None:
        """A text of at most `limit` characters."""
        value = self._values.get(name)
        if value is None:
            return default
        if isinstance(value, dict | list):
            raise bad(name)
        value = str(value)
        if limit is not None and len(value) > limit:
            raise bad(name, f"is too long (maximum is {limit} characters)")
        return value

    def choice(self, name: str, choices: Iterable[str], default: str | None = None) -> str | None:
        """One of the choices."""
        value = self.text(name)
        if value is None:
            return default
        if value not in choices:
            raise bad(name, "does not have a valid value")
        return value

    def flag(self, name: str, default: bool | None = None) -> bool | None:
        """A boolean, or a word for one."""
        value = self._values.get(name)
        if value is None or value == "":
            return default
        if isinstance(value, bool):
            return value
        words = {"true": True, "1": True, "t": True, "on": True, "false": False, "0": False, "f": False, "off": False}
        try:
            return words[str(value).lower()]
        except KeyError:
            raise bad(name) from None

    def number(self, name: str, default: int | None = None) -> int | None:
        """An integer."""
        value = self._values.get(name)
        if value is None or value == "":
            return default
        try:
            return int(str(value))
        except ValueError:
            raise bad(name) from None

    def texts(self, name: str) -> list[str] | None:
        """A list, or a text with commas."""
        value = self._values.get(name)
        if value is None:
            return None
        if isinstance(value, str):
            value = value.split(",")
        if not isinstance(value, list):
            raise bad(name)
        return [str(one).strip() for one in value if str(one).strip()]


def parse_body(kind: str, raw: bytes) -> dict[str, Json]:
    """The parameters in a body, by its content type. Raises ApiError for invalid JSON."""
    if not raw:
        return {}
    if kind.startswith("multipart/form-data"):
        return _multipart(kind, raw)
    if kind.startswith(("application/x-git-", "text/plain")):
        return {}
    if "json" not in kind:
        return parse_pairs(raw.decode(errors="replace"))
    try:
        body = json.loads(raw)
    except ValueError:
        raise ApiError(400, {"error": "invalid json: The request body could not be parsed"}) from None
    return body if isinstance(body, dict) else {}


def parse_pairs(text: str) -> dict[str, Json]:
    """The parameters of a query string: `a[]=1&a[]=2` is a list, `filter[x]=1` a table."""
    values: dict[str, Json] = {}
    for name, value in parse_qsl(text, keep_blank_values=True):
        if name.endswith("[]"):
            values.setdefault(name[:-2], []).append(value)
        elif name.endswith("]") and "[" in name:
            outer, inner = name[:-1].split("[", 1)
            values.setdefault(outer, {})[inner] = value
        else:
            values[name] = value
    return values


def _multipart(kind: str, raw: bytes) -> dict[str, Json]:
    from email import message_from_bytes

    message = message_from_bytes(b"Content-Type: " + kind.encode() + b"\r\n\r\n" + raw)
    parts = message.get_payload()
    values: dict[str, Json] = {}
    for part in parts if isinstance(parts, list) else []:
        name = part.get_param("name", header="content-disposition") if hasattr(part, "get_param") else None
        content = part.get_payload(decode=True) if hasattr(part, "get_payload") else None
        if isinstance(name, str) and isinstance(content, bytes):
            values[name] = content.decode(errors="replace")
    return values


@dataclass(frozen=True)
class Context:
    """What an endpoint works with. `settings`: those of the last reconfigure; `switches`: those of tests."""

    request: Request
    store: Store
    settings: dict[str, Any]
    switches: dict[str, Any]
    user: Record | None
    token: Record | None = None

    @property
    def parameters(self) -> Parameters:
        """Query and body."""
        return Parameters(self.request.parameters)

    @property
    def caller(self) -> Record:
        """The user who sends the request; only for routes that require one."""
        if self.user is None:
            raise unauthorized()
        return self.user


Endpoint = Callable[..., Response]


@dataclass(frozen=True)
class Route:
    """An endpoint's address. One of `scopes` is enough; without scopes, no token is required."""

    method: str
    pattern: re.Pattern[str]
    scopes: tuple[str, ...]
    handler: Endpoint


ROUTES: list[Route] = []
API = "/api/v4"


def route(method: str, path: str, *, scopes: tuple[str, ...] | None = None) -> Callable[[Endpoint], Endpoint]:
    """Registers an endpoint. `:name` in the path is one percent-encoded segment, `:name*` may contain slashes."""
    if scopes is None:
        scopes = ("api", "read_api") if method in ("GET", "HEAD") else ("api",)
    pattern = re.sub(r":(\w+)\*", r"(?P<\1>.+)", path)
    pattern = re.sub(r":(\w+)", r"(?P<\1>[^/]+)", pattern)

    def register(handler: Endpoint) -> Endpoint:
        ROUTES.append(Route(method, re.compile(pattern + r"/?\Z"), scopes or (), handler))
        return handler

    return register


def dispatch(request: Request, store: Store, settings: dict[str, Any], switches: dict[str, Any]) -> Response:
    """The answer of the endpoint for a request, or a 404 or 405."""
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
                user, token = _authenticate(request, store, one.scopes) if one.scopes else (None, None)
                context = Context(request, store, settings, switches, user, token)
                return one.handler(context, **{key: unquote(value) for key, value in found.groupdict().items()})
    except ApiError as error:
        return error.response
    if allowed:
        return Response(405, {"error": "405 Not Allowed"})
    if request.path.startswith(API):
        return Response(404, {"error": "404 Not Found"})
    return Response(404, "<!DOCTYPE html>\n<title>The page could not be found (404)</title>\n")


def unauthorized() -> ApiError:
    """401 as the API answers it."""
    return ApiError(401, {"message": "401 Unauthorized"})


def authenticate_token(request: Request, store: Store) -> Record | None:
    """The record of the personal access token that a request has, or None."""
    text = request.header("private-token") or str(request.query.get("private_token", ""))
    bearer = request.header("authorization")
    if not text and bearer.lower().startswith("bearer "):
        text = bearer[7:].strip()
    token = find_token(store, text)
    return None if token is None or token.get("project") else token


def _authenticate(request: Request, store: Store, scopes: tuple[str, ...]) -> tuple[Record, Record]:
    """The user and the token."""
    token = authenticate_token(request, store)
    if token is None:
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
    return user, token


def paged(context: Context, items: list[Any]) -> Response:
    """The requested page of a list, with the headers that clients follow."""
    page = max(context.parameters.number("page", 1) or 1, 1)
    size = min(max(context.parameters.number("per_page", 20) or 20, 1), 100)
    pages = max(-(-len(items) // size), 1)
    after = page + 1 if page < pages else None
    before = page - 1 if page > 1 else None
    headers = {
        "X-Page": str(page),
        "X-Per-Page": str(size),
        "X-Total": str(len(items)),
        "X-Total-Pages": str(pages),
        "X-Next-Page": str(after or ""),
        "X-Prev-Page": str(before or ""),
        "Link": ", ".join(_links(context, size, {"prev": before, "next": after, "first": 1, "last": pages})),
    }
    return Response(200, items[(page - 1) * size : page * size], headers)


def _links(context: Context, size: int, relations: dict[str, int | None]) -> list[str]:
    address = context.settings["external_url"] + context.request.path
    kept = {key: value for key, value in context.request.query.items() if key not in ("page", "private_token")}
    links = []
    for name, page in relations.items():
        if page is not None:
            query = urlencode({**kept, "page": page, "per_page": size}, doseq=True)
            links.append(f'<{address}?{query}>; rel="{name}"')
    return links
