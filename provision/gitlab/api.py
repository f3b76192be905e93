"""A client of GitLab's REST API, on python-gitlab.

The machine that runs this program may not resolve GitLab's name (a rehearsal, split DNS). Then the client connects to the
address of the GitLab host in the inventory, and checks the certificate for the name.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol
from urllib.parse import quote

from provision.errors import ApiFailed
from provision.secret import Secret
from provision.url import Url

if TYPE_CHECKING:
    from gitlab import Gitlab

TIMEOUT_SECONDS: Final = 30.0
# After a timeout no request is sent for this time: otherwise each of ten projects would wait for a dead server.
OUTAGE_SECONDS: Final = 5.0
# Total wait for GitLab's rate limit (Retry-After). python-gitlab itself would wait for hours.
RATE_LIMIT_SECONDS: Final = 60
pause: ContextVar[Callable[[float, str], None]] = ContextVar("pause", default=lambda seconds, _: time.sleep(seconds))
"""Waits for some seconds because of a reason."""
_OWN_RATE_LIMIT: Final[dict[str, Any]] = {"obey_rate_limit": False}
_LONGEST_TEXT: Final = 128 << 20  # bytes; GitLab's own limit for a job's log is 100 MB


class Following(Protocol):
    """How a request that follows something in GitLab reports and waits: a pipeline may take an hour."""

    def report(self, text: str) -> None:
        """Reports news, as one line."""

    def wait(self, seconds: float, left: str) -> None:
        """Waits. `left`: what stays undone when the user interrupts it."""


class _Alone:
    def report(self, text: str) -> None:
        del text

    def wait(self, seconds: float, left: str) -> None:
        del left
        time.sleep(seconds)


following: ContextVar[Following] = ContextVar("following", default=_Alone())  # noqa: B039 - it has no state


def _no_reader(host: str) -> Secret:
    raise ApiFailed(f"the token for GitLab's API is kept on {host}, and nothing reads it here", requires="access")


read_kept_token: ContextVar[Callable[[str], Secret]] = ContextVar("read_kept_token", default=_no_reader)
"""Returns the token that is kept on a host. Raises ApiFailed."""

ADMIN_MODE: Final = "in admin mode an administrator's token also needs the scope admin_mode"
NO_PROJECT_HINT: Final = (
    f"correct its path, or give it create = true, so that `provision accounts` creates it; {ADMIN_MODE}"
)
_HINTS: Final = {
    401: "gitlab.api_token is not valid, or has expired: create a new one",
    # Sources: GitLab's config/authz/roles/*.yml; docs.gitlab.com, "Admin Mode" for tokens.
    403: "the token's owner may not do this: projects need the role Maintainer, runners of a group the role Owner, and "
    "instance runners an administrator; the token needs the scope api, or create_runner to create runners only, and in "
    "admin mode an administrator's token also admin_mode",
    404: f"check the project or group, and that the token may see it: {ADMIN_MODE}",
    410: "registration tokens are off (the default since GitLab 17.0): remove registration_token and give gitlab.api_token",
    429: "GitLab limits requests: wait a minute and rerun the command",
}
_SERVER_HINT: Final = "GitLab itself reports an error: check `gitlab-ctl tail` on its host"


@dataclass(frozen=True)
class KeptToken:
    """The token that the task `access` keeps on a GitLab host. It is read there when a request needs it."""

    host: str

    def reveal(self) -> str:
        """The text, for the request. Raises ApiFailed when it cannot be read."""
        return read_kept_token.get()(self.host).reveal()


@dataclass
class _Outage:
    """A server that did not answer in time. No request is sent until `ends`, in seconds of the monotonic clock."""

    ends: float = 0.0

    def begin(self) -> None:
        self.ends = time.monotonic() + OUTAGE_SECONDS

    @property
    def lasts(self) -> bool:
        return time.monotonic() < self.ends


@dataclass(frozen=True)
class Api:
    """GitLab's API at one URL, used with one token; safe to share between threads.

    url       GitLab's external URL
    token     a personal, group or project access token; empty where a registration token is used
    ca        a file with CA certificates that are trusted besides the system's; None for none
    fallback  the address to connect to when the URL's name does not resolve here; "" for none
    address   the address to connect to, whatever the URL's name resolves to; "" for none

    The token is sent to the URL's scheme, host and port only. A redirect to another server, and a redirect of a request
    that is not GET, is refused. REQUESTS_CA_BUNDLE and SSL_CERT_FILE replace the system's certificates; HTTPS_PROXY and
    NO_PROXY name the proxy. A request by plain http goes to the server directly.

    Every method raises ApiFailed with GitLab's own reason, its HTTP status, or 0 when there was no answer. After a server
    did not answer in time, requests fail at once for some seconds, so that many requests wait only once.

    Source: docs.gitlab.com/api/rest.
    """

    url: Url
    token: Secret | KeptToken
    ca: Path | None = None
    fallback: str = field(default="", compare=False)
    address: str = ""
    _outage: _Outage = field(default_factory=_Outage, init=False, compare=False, repr=False)

    @property
    def connected_address(self) -> str:
        """The address to connect to; "" where the URL's name leads, or the proxy of the environment."""
        return self.address or ("" if _is_resolved(self.url.host) else self.fallback)

    def get(self, path: str, query: dict[str, Any] | None = None) -> dict[str, Any]:
        """The JSON object at a path below /api/v4."""
        return self._object(path, lambda client: client.http_get(path, query_data=query, **_OWN_RATE_LIMIT))

    def find(self, path: str, query: dict[str, Any] | None = None) -> dict[str, Any] | None:
        """As `get`, but None if the object does not exist (404)."""
        try:
            return self.get(path, query)
        except ApiFailed as error:
            if error.status == 404:
                return None
            raise

    def get_list(self, path: str, query: dict[str, Any]) -> list[dict[str, Any]]:
        """All pages of a list."""

        def send(client: Gitlab) -> list[dict[str, Any]]:
            return [dict(one) for one in client.http_list(path, query_data=query, get_all=True, **_OWN_RATE_LIMIT)]

        pages: list[dict[str, Any]] = self._request(path, send)
        return pages

    def get_page(self, path: str, query: dict[str, Any]) -> list[dict[str, Any]]:
        """The first page of a list, of `per_page` entries."""

        def send(client: Gitlab) -> list[dict[str, Any]]:
            return [dict(one) for one in client.http_list(path, query_data=query, get_all=False, **_OWN_RATE_LIMIT)]

        page: list[dict[str, Any]] = self._request(path, send)
        return page

    def tail(self, path: str, size: int) -> bytes:
        """The last bytes of the text at a path, at most `size`. The bytes before them are read and dropped."""

        def send(client: Gitlab) -> bytes:
            answer: Any = client.http_get(path, streamed=True, **_OWN_RATE_LIMIT)
            kept, total = b"", 0
            with answer:
                for piece in answer.iter_content(1 << 16):
                    kept, total = (kept + piece)[-size:], total + len(piece)
                    if total > _LONGEST_TEXT:
                        raise ApiFailed(f"{path} at {self.url} is longer than {_LONGEST_TEXT >> 20} MiB")
            return kept

        return bytes(self._request(path, send))

    def post(self, path: str, data: dict[str, Any]) -> dict[str, Any]:
        """Sends a POST and returns the answer's JSON object."""
        return self._object(path, lambda client: client.http_post(path, post_data=data, **_OWN_RATE_LIMIT))

    def put(self, path: str, data: dict[str, Any]) -> dict[str, Any]:
        """Sends a PUT and returns the answer's JSON object."""
        return self._object(path, lambda client: client.http_put(path, post_data=data, **_OWN_RATE_LIMIT))

    def delete(self, path: str, query: dict[str, Any] | None = None) -> None:
        """Sends a DELETE."""
        self._request(path, lambda client: client.http_delete(path, query_data=query or {}, **_OWN_RATE_LIMIT))

    def id_of(self, kind: Literal["projects", "groups"], path: str) -> int:
        """The number of a project or group by its path, such as "sammy/hello"."""
        return int(self.get(f"/{kind}/{quote(path, safe='')}")["id"])

    def _object(self, path: str, send: Callable[[Gitlab], Any]) -> dict[str, Any]:
        answer = self._request(path, send)
        if not isinstance(answer, dict):
            raise ApiFailed(
                f"{path} at {self.url} returned no JSON object", hint="check that GitLab answers at this URL"
            )
        return answer

    def _request(self, path: str, send: Callable[[Gitlab], Any]) -> Any:
        import gitlab
        import requests

        if self._outage.lasts:
            raise self._unreachable("it did not answer in time a moment ago")
        try:
            return self._within_rate_limit(send)
        except gitlab.exceptions.GitlabError as error:
            raise _refusal(self.url, path, error, kept=isinstance(self.token, KeptToken)) from error
        except requests.exceptions.RequestException as error:
            if isinstance(error, requests.exceptions.Timeout):
                self._outage.begin()
            raise self._unreachable(innermost_reason(error)) from error

    def _unreachable(self, reason: str) -> ApiFailed:
        return ApiFailed(
            f"GitLab at {self.url} cannot be reached from this machine: {reason}",
            hint="the API is called from this machine: check name, route and certificate (registry.certificate.ca) here",
        )

    def _within_rate_limit(self, send: Callable[[Gitlab], Any]) -> Any:
        from gitlab.exceptions import GitlabHttpError

        client = self._client()
        pauses: list[str] = []
        client.session.hooks["response"].append(
            lambda answer, **_: pauses.append(answer.headers.get("Retry-After", ""))
        )
        left = RATE_LIMIT_SECONDS
        while True:
            try:
                return send(client)
            except GitlabHttpError as error:
                asked = pauses[-1] if pauses else ""
                if error.response_code != 429 or not asked.isdecimal():
                    raise
                seconds = max(int(asked), 1)
                if seconds > left:
                    raise _limited(self.url, seconds) from error
                left -= seconds
                pause.get()(seconds, f"GitLab at {self.url} limits requests and asks to wait {seconds} s")

    def _client(self) -> Gitlab:
        import gitlab

        from provision.gitlab.session import session_for  # imports requests

        return gitlab.Gitlab(
            str(self.url),
            private_token=self.token.reveal(),
            timeout=TIMEOUT_SECONDS,
            session=session_for(self.url, self.ca, self.connected_address),
            retry_transient_errors=False,
            # The addresses of further pages come from the server: they are asked at our URL.
            keep_base_url=True,
        )


def project_address(path: str) -> str:
    """The project's place below /api/v4: `/projects/group%2Fname`."""
    return f"/projects/{quote(path, safe='')}"


def _limited(url: Url, seconds: int) -> ApiFailed:
    """The error for a rate limit that lasts longer than is waited for one request."""
    return ApiFailed(
        f"GitLab at {url} limits requests (429) and asks to wait {seconds} s; one request waits for at most "
        f"{RATE_LIMIT_SECONDS} s",
        hint=f"rerun the command in {seconds} s; an administrator of GitLab sets the limit (user and IP rate limits)",
        status=429,
    )


def _refusal(url: Url, path: str, error: Exception, *, kept: bool) -> ApiFailed:
    """The error for a request that GitLab refused: GitLab's reason, and the next step."""
    status = getattr(error, "response_code", None) or 0
    reason = getattr(error, "error_message", error)
    if str(reason).lstrip().startswith("<"):  # a page of Workhorse, or of a server in front of GitLab
        from http import HTTPStatus  # an error is rare

        reason = next((one.phrase for one in HTTPStatus if one == status), "")
    hint = _HINTS.get(status, _SERVER_HINT if status >= 500 else "")
    if status == 401 and kept:
        hint = "the token that this program made is not valid any more: `provision access` makes another one"
    return ApiFailed(f"GitLab at {url} refused {path}: {status or None} {reason}", hint=hint, status=status)


def _is_resolved(name: str) -> bool:
    try:
        socket.getaddrinfo(name, None)
    except OSError:
        return False
    return True


def innermost_reason(error: BaseException) -> str:
    """The message of the innermost exception, which names the cause."""
    while True:
        inner = getattr(error, "reason", None) or (error.args[0] if error.args else None)
        if not isinstance(inner, BaseException):
            return str(error)
        error = inner
