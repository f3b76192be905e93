"""Requests to a server whose name this machine does not resolve, by its address.

A module of its own, because it imports requests: a run that does not ask GitLab must not wait for that.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit, urlunsplit

from requests import PreparedRequest, Response
from requests.adapters import HTTPAdapter

from provision.url import bracketed


class ByAddress(HTTPAdapter):
    """Connects to `address`, and checks the certificate and sets the Host header for `name`, as an entry in /etc/hosts would."""

    def __init__(self, name: str, address: str) -> None:
        self._name, self._address = name, bracketed(address)
        super().__init__()

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        """Makes connections that request and check the name instead of the address."""
        super().init_poolmanager(*arguments, server_hostname=self._name, assert_hostname=self._name, **options)

    def send(self, request: PreparedRequest, *arguments: Any, **options: Any) -> Response:
        """Sends to the address, with the name in the Host header."""
        parts = urlsplit(request.url or "")
        port = f":{parts.port}" if parts.port else ""
        request.headers["Host"] = str(parts.netloc)
        request.url = urlunsplit(parts._replace(netloc=f"{self._address}{port}"))
        return super().send(request, *arguments, **options)
