"""A web application by the interface itself, PEP 3333: no framework."""

from collections.abc import Callable, Iterable
from typing import Any


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answers each request with its path, and with the address of the client that nginx saw."""
    client = environ.get("HTTP_X_FORWARDED_FOR", "nobody")
    body = f"{environ['PATH_INFO']} for {client}\n".encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
