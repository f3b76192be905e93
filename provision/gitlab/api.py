"""HTTP to a given address under a given name: what /etc/hosts would do, for one session only.

A connection to GitLab's REST API.

GitLab's name may not be resolved where the tool runs (a rehearsal, a split DNS): then the address that the
inventory gives its host is used, with TLS still checked for the name.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlsplit, urlunsplit

from requests import PreparedRequest, Response
from requests.adapters import HTTPAdapter

from provision.errors import ApiFailed
from provision.secret import Secret
from provision.url import Url, bracketed

if TYPE_CHECKING:
    from gitlab import Gitlab
    from requests import Session


class ByAddress(HTTPAdapter):
    """Connects to `address`; TLS asks for and checks `name`, and so does the Host header."""

    def __init__(self, name: str, address: str) -> None:
        self._name, self._address = name, bracketed(address)
        super().__init__()

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        """Makes connections that offer and check the name instead of the address."""
        super().init_poolmanager(*arguments, server_hostname=self._name, assert_hostname=self._name, **options)

    def send(self, request: PreparedRequest, *arguments: Any, **options: Any) -> Response:
        """Sends to the address, with the name in the Host header."""
        parts = urlsplit(request.url or "")
        port = f":{parts.port}" if parts.port else ""
        request.headers["Host"] = str(parts.netloc)
        request.url = urlunsplit(parts._replace(netloc=f"{self._address}{port}"))
        return super().send(request, *arguments, **options)


_SECONDS = 30
# A limit on requests is waited for as GitLab tells it, for a minute in all: python-gitlab would wait for hours.
_PATIENCE = 60
# Who did not answer in time is not waited for again at once: ten projects would be ten times thirty seconds.
_SILENCE = 5
_silent: dict[Url, float] = {}
_AT_ONCE: Final[dict[str, Any]] = {"obey_rate_limit": False}


@dataclass(frozen=True)
class Api:
    """Where the API is and what opens it. `fallback` is the address to use when the name is not resolved here."""

    url: Url
    token: Secret
    ca: Path | None = None
    fallback: str = field(default="", compare=False)

    def post(self, path: str, data: dict[str, Any]) -> dict[str, Any]:
        """One POST below /api/v4; the answer's JSON. Raises ApiFailed with GitLab's own reason."""
        return self._ask(path, lambda client: client.http_post(path, post_data=data, **_AT_ONCE))

    def list(self, path: str, query: dict[str, Any]) -> list[dict[str, Any]]:
        """All pages of a GET below /api/v4 that answers a list."""
        answer = self._ask(
            path, lambda client: {"all": list(client.http_list(path, query_data=query, get_all=True, **_AT_ONCE))}
        )
        return [dict(one) for one in answer["all"]]

    def get(self, path: str, query: dict[str, Any] | None = None) -> dict[str, Any]:
        """One GET below /api/v4."""
        return self._ask(path, lambda client: client.http_get(path, query_data=query, **_AT_ONCE))

    def find(self, path: str, query: dict[str, Any] | None = None) -> dict[str, Any] | None:
        """The same, or None where there is no such thing (404)."""
        try:
            return self.get(path, query)
        except ApiFailed as error:
            if error.status == 404:
                return None
            raise

    def put(self, path: str, data: dict[str, Any]) -> dict[str, Any]:
        """One PUT below /api/v4."""
        return self._ask(path, lambda client: client.http_put(path, post_data=data, **_AT_ONCE))

    def delete(self, path: str, query: dict[str, Any] | None = None) -> None:
        """One DELETE below /api/v4, which answers nothing."""

        def ask(client: Gitlab) -> dict[str, Any]:
            client.http_delete(path, query_data=query or {}, **_AT_ONCE)
            return {}

        self._ask(path, ask)

    def number(self, kind: str, path: str) -> int:
        """The id of a project or group (`kind`: projects, groups) by its path."""
        place = f"/{kind}/{quote(path, safe='')}"
        return int(self.get(place)["id"])

    def _ask(self, path: str, question: Callable[[Gitlab], Any]) -> dict[str, Any]:
        import gitlab
        import requests

        if time.monotonic() - _silent.get(self.url, -_SILENCE) < _SILENCE:
            raise self._unreached("it did not answer in time a moment ago")
        try:
            answer = self._patiently(question)
        except gitlab.exceptions.GitlabError as error:
            raise explain(self.url, path, error) from error
        except requests.exceptions.RequestException as error:
            if isinstance(error, requests.exceptions.Timeout):
                _silent[self.url] = time.monotonic()
            raise self._unreached(_reason(error)) from error
        if not isinstance(answer, dict):
            raise ApiFailed(f"{path} at {self.url} answered no JSON object", hint="is it GitLab that answers there?")
        return answer

    def _unreached(self, reason: str) -> ApiFailed:
        return ApiFailed(
            f"GitLab at {self.url} is not reached from here: {reason}",
            hint="the API is asked from this machine: check its name, route and certificate (registry.certificate.ca)",
        )

    def _patiently(self, question: Callable[[Gitlab], Any]) -> Any:
        from gitlab.exceptions import GitlabHttpError

        client = self._client()
        told: list[str] = []
        client.session.hooks["response"].append(lambda answer, **_: told.append(answer.headers.get("Retry-After", "")))
        patience = _PATIENCE
        while True:
            try:
                return question(client)
            except GitlabHttpError as error:
                pause = int(told[-1]) if told and told[-1].isdecimal() else patience + 1
                if error.response_code != 429 or pause > patience:
                    raise
                patience -= max(pause, 1)
                time.sleep(pause)

    def _client(self) -> Gitlab:
        import gitlab

        verify: bool | str = str(self.ca) if self.ca else True
        return gitlab.Gitlab(
            str(self.url),
            private_token=self.token.reveal(),
            ssl_verify=verify,
            timeout=_SECONDS,
            session=self._session(),
            retry_transient_errors=False,
        )

    def _session(self) -> Session:
        import requests

        session = requests.Session()
        # Proxies are for the world outside; what ~/.netrc says must not replace the token.
        session.trust_env = False
        if self.fallback and not _resolves(self.url.host):
            session.mount(self.url.origin, ByAddress(self.url.host, self.fallback))
        return session


def explain(url: Url, path: str, error: Exception) -> ApiFailed:
    """GitLab's refusal in words, with what to do about it."""
    code = getattr(error, "response_code", None)
    hints = {
        401: "gitlab.api_token is not valid: make a new one",
        403: "the token's owner may not do this: it takes an owner of the project or group (an administrator for instance "
        "runners) and a token with scope api or create_runner",
        404: "check the project or group, and that the token may see it",
        410: "registration tokens are off (the default since GitLab 17.0): leave registration_token out and give gitlab.api_token",
        429: "GitLab limits requests: wait a minute and run again",
    }
    hint = hints.get(code or 0, "GitLab itself is in trouble: look at gitlab-ctl tail" if (code or 0) >= 500 else "")
    return ApiFailed(
        f"GitLab at {url} refused {path}: {code} {getattr(error, 'error_message', error)}", hint=hint, status=code or 0
    )


def _resolves(name: str) -> bool:
    try:
        socket.getaddrinfo(name, None)
    except OSError:
        return False
    return True


def _reason(error: BaseException) -> str:
    # The innermost reason is the one that a person can act on.
    while True:
        inner = getattr(error, "reason", None) or (error.args[0] if error.args else None)
        if not isinstance(inner, BaseException):
            return str(error)
        error = inner
