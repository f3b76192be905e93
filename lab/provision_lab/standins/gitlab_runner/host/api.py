"""GitLab's API as a runner uses it: the token in a header and in the body, own authorities, no redirects."""

from __future__ import annotations

import http.client
import json
import secrets
import socket
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from . import logs
from .logs import ARCHITECTURE, REVISION, VERSION

CREATED = "glrt-"  # the prefix of the token of a runner that was created in GitLab
_DEADLINE = 30.0
_HELD = 90.0  # GitLab holds a request for jobs for 50 s


@dataclass(frozen=True)
class Answer:
    """An answer. Code 0: there was none, and `status` is the reason."""

    code: int
    status: str
    body: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)

    def header(self, name: str) -> str:
        """A header's value, or ""."""
        return self.headers.get(name.lower(), "")


@dataclass(frozen=True)
class Server:
    """One entry's server: its URL, and tls-ca-file or the certificate that is named after its host."""

    url: str
    ca_file: str
    certs: str  # /etc/gitlab-runner/certs

    def ask(
        self, method: str, path: str, token: str, body: dict[str, Any], *, deadline: float = _DEADLINE
    ) -> tuple[Answer, str]:
        """Sends one request below /api/v4; its answer and correlation id. A job's own requests have the job's token."""
        kind = "JOB-TOKEN" if path.startswith("jobs/") and path != "jobs/request" else "RUNNER-TOKEN"
        sent = {kind: token, "Content-Type": "application/json", "Accept": "application/json"}
        correlation = secrets.token_hex(16)
        return self._send(
            method, path, sent | {"X-Request-ID": correlation}, json.dumps(body).encode(), deadline
        ), correlation

    def ask_for_a_job(self, token: str, body: dict[str, Any]) -> tuple[Answer, str]:
        """Sends POST jobs/request, which GitLab may hold."""
        return self.ask("POST", "jobs/request", token, body, deadline=_HELD)

    def patch(self, path: str, token: str, piece: bytes, start: int) -> Answer:
        """Sends a piece of a job's log."""
        place = f"{start}-{start + len(piece) - 1}"
        return self._send(
            "PATCH", path, {"JOB-TOKEN": token, "Content-Type": "text/plain", "Content-Range": place}, piece
        )

    def _send(
        self, method: str, path: str, headers: dict[str, str], body: bytes, deadline: float = _DEADLINE
    ) -> Answer:
        url = f"{self.url.rstrip('/')}/api/v4/{path}"
        sent = headers | {"User-Agent": f"gitlab-runner {VERSION} (linux/{ARCHITECTURE})"}
        try:
            return self._call(method, url, body, sent, deadline)
        except (OSError, http.client.HTTPException, ValueError) as error:
            why = f'couldn\'t execute {method} against {url}: {method.capitalize()} "{url}": {_go_message(error, url)}'
            return Answer(0, why)

    def _call(self, method: str, url: str, body: bytes, headers: dict[str, str], deadline: float) -> Answer:
        parts = urlsplit(url)
        host = parts.hostname or ""
        if parts.scheme == "https":
            link: http.client.HTTPConnection = http.client.HTTPSConnection(
                host, parts.port or 443, timeout=deadline, context=self._context(parts.netloc)
            )
        elif parts.scheme == "http":
            link = http.client.HTTPConnection(host, parts.port or 80, timeout=deadline)
        else:
            raise ValueError(f'unsupported protocol scheme "{parts.scheme}"')
        try:
            link.request(method, parts.path, body, headers)
            reply = link.getresponse()
            text = reply.read()
        finally:
            link.close()
        try:
            data = json.loads(text or b"{}")
        except ValueError:
            data = {}
        headers = {name.lower(): value for name, value in reply.getheaders()}
        return Answer(reply.status, f"{reply.status} {reply.reason}", data if isinstance(data, dict) else {}, headers)

    def _context(self, authority: str) -> ssl.SSLContext:
        context = ssl.create_default_context()
        # The real one cuts at the first colon too, an IPv6 address as well.
        named = Path(self.certs) / f"{authority.split(':')[0]}.crt"
        extra = self.ca_file or (str(named) if named.exists() else "")
        if extra:
            context.load_verify_locations(extra)
        return context


def is_created(token: str) -> bool:
    """Whether the token is that of a runner that was created in GitLab; only its prefix tells."""
    return token.startswith(CREATED)


def short(token: str) -> str:
    """The part of a token that logs show."""
    return token.removeprefix(CREATED)[:9] if not token.startswith("GR1348941") else token[:18]


def about(config_executor: str = "") -> dict[str, Any]:
    """What a runner sends about itself."""
    texts = {"name": "gitlab-runner", "version": VERSION, "revision": REVISION, "platform": "linux"}
    features = {
        "cancelable": True,
        "cancel_gracefully": True,
        "masking": True,
        "variables": True,
        "image": True,
        "services": True,
    }
    return {**texts, "architecture": ARCHITECTURE, "executor": config_executor, "features": features}


def verify(server: Server, token: str, system_id: str) -> Answer | None:
    """Sends POST runners/verify. None: the token is refused. A failed connection is not a refusal."""
    answer, correlation = server.ask("POST", "runners/verify", token, {"token": token, "system_id": system_id})
    fields = {"correlation_id": correlation, "runner": short(token)}
    if answer.code == 200:
        logs.info(f"Verifying runner... is {'valid' if is_created(token) else 'alive'}", **fields)
        return answer
    if answer.code == 403:
        if is_created(token):
            logs.info("Verifying runner... is not valid", **fields)
        else:
            logs.error("Verifying runner... is removed", status=answer.status, **fields)
        return None
    logs.error(f"Verifying runner... {'failed' if answer.code else 'client error'}", status=answer.status, **fields)
    return Answer(answer.code, answer.status)


def register(server: Server, token: str, parameters: dict[str, Any]) -> Answer | None:
    """Sends POST runners with a registration token. None: it failed."""
    answer, correlation = server.ask("POST", "runners", token, {"token": token, "info": about(), **parameters})
    fields = {"correlation_id": correlation, "runner": short(token)}
    if answer.code == 201:
        logs.info("Registering runner... succeeded", **fields)
        return answer
    texts = {0: "client error", 403: "forbidden (check registration token)", 410: "is disallowed"}
    logs.error(f"Registering runner... {texts.get(answer.code, 'failed')}", status=answer.status, **fields)
    return None


def unregister(server: Server, token: str, system_id: str) -> bool:
    """Deletes the runner; of one that was created in GitLab, only this machine's manager."""
    created = is_created(token)
    body = {"token": token} | ({"system_id": system_id} if created else {})
    answer, correlation = server.ask("DELETE", "runners/managers" if created else "runners", token, body)
    fields = {"correlation_id": correlation, "runner": short(token)}
    text = f"Unregistering runner{' manager' if created else ''} from GitLab"
    if answer.code == 204:
        logs.info(f"{text} succeeded", **fields)
        return True
    texts = {0: "client error", 403: "forbidden"}
    logs.error(f"{text} {texts.get(answer.code, 'failed')}", status=answer.status, **fields)
    return False


def _go_message(error: Exception, url: str) -> str:
    """An error in Go's words, as far as people search for them."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    if isinstance(error, ssl.SSLCertVerificationError):
        why = {10: "certificate has expired or is not yet valid", 62: f"certificate is not valid for {parts.hostname}"}
        text = why.get(error.verify_code, "certificate signed by unknown authority")
        return f"tls: failed to verify certificate: x509: {text}"
    if isinstance(error, socket.gaierror):
        return f"dial tcp: lookup {parts.hostname}: no such host"
    if isinstance(error, ConnectionRefusedError):
        return f"dial tcp {parts.hostname}:{port}: connect: connection refused"
    if isinstance(error, TimeoutError):
        return f"dial tcp {parts.hostname}:{port}: i/o timeout"
    return str(error) or type(error).__name__
