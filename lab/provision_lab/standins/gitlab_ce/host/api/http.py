"""Requests and answers as values, and the parameters of a request with the API's own complaints."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

Json = Any


@dataclass(frozen=True)
class Response:
    """`body` is sent as JSON, or as it is when it is text; None sends nothing."""

    status: int
    body: Json | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


class ApiError(Exception):
    """An answer that is a refusal."""

    def __init__(self, status: int, body: Json) -> None:
        super().__init__(f"{status}")
        self.response = Response(status, body)


def missing(*names: str) -> ApiError:
    """400 as the API says it of required parameters."""
    return ApiError(400, {"error": ", ".join(f"{name} is missing" for name in names)})


def bad(name: str, says: str = "is invalid") -> ApiError:
    """400 of a parameter that has no valid value."""
    return ApiError(400, {"error": f"{name} {says}"})


def invalid(field_name: str, *messages: str) -> ApiError:
    """400 of a record that cannot be saved."""
    return ApiError(400, {"message": {field_name: list(messages)}})


def forbidden(why: str = "") -> ApiError:
    """403, with the reason where the API gives one."""
    return ApiError(403, {"message": f"403 Forbidden{' - ' + why if why else ''}"})


def not_found(what: str) -> ApiError:
    """404: `what` is `Runner`, `Project`, …"""
    return ApiError(404, {"message": f"404 {what} Not Found"})


@dataclass(frozen=True)
class Request:
    """One request. `path` is still percent-encoded and without the query, which `raw_query` has as it came."""

    method: str
    path: str
    query: dict[str, Json]
    body: dict[str, Json]
    headers: Mapping[str, str]
    client: str
    raw_query: str = ""

    @property
    def parameters(self) -> dict[str, Json]:
        """Query and body together; the body wins."""
        return {**self.query, **self.body}

    def header(self, name: str) -> str:
        """A header's value, or nothing; names in any case."""
        return self.headers.get(name.lower(), "")


class Parameters:
    """Typed access to what was sent. Every method raises the 400 that the API answers."""

    def __init__(self, values: Mapping[str, Json]) -> None:
        self._values = values

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def require(self, *names: str) -> None:
        """All of them are there."""
        absent = [name for name in names if self._values.get(name) is None]
        if absent:
            raise missing(*absent)

    def text(self, name: str, default: str | None = None, *, limit: int | None = None) -> str | None:
        """A text, at most `limit` long."""
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
        """A boolean, or one of the words for it."""
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
    """The parameters in a body, by its content type. Raises ApiError for broken JSON."""
    if not raw:
        return {}
    if kind.startswith("multipart/form-data"):
        return _multipart(kind, raw)
    if "json" not in kind:
        return parse_pairs(raw.decode(errors="replace"))
    try:
        body = json.loads(raw)
    except ValueError:
        raise ApiError(400, {"error": "invalid json: The request body could not be parsed"}) from None
    return body if isinstance(body, dict) else {}


def parse_pairs(text: str) -> dict[str, Json]:
    """A query string: `a[]=1&a[]=2` is a list, `filter[x]=1` a table."""
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
