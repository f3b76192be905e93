"""GitLab's API as a runner asks it: token in a header and in the body, its own authorities, no redirects followed."""

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
from .version import ARCHITECTURE, REVISION, VERSION

CREATED = "glrt-"  # the prefix of tokens that GitLab hands out for a runner made there
_DEADLINE = 30.0


@dataclass(frozen=True)
class Answer:
    """code 0: nothing came back, and `status` says why."""

    code: int
    status: str
    body: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Server:
    """One entry's server: url, and tls-ca-file or the certificate that lies under its host's name."""

    url: str
    ca_file: str
    certs: str  # /etc/gitlab-runner/certs

    def ask(self, method: str, path: str, token: str, body: dict[str, Any]) -> tuple[Answer, str]:
        """One call below /api/v4, and its correlation id."""
        correlation = secrets.token_hex(16)
        url = f"{self.url.rstrip('/')}/api/v4/{path}"
        sent = {"RUNNER-TOKEN": token, "Content-Type": "application/json", "Accept": "application/json"}
        sent |= {"X-Request-ID": correlation, "User-Agent": f"gitlab-runner {VERSION} (linux/{ARCHITECTURE})"}
        try:
            return self._call(method, url, json.dumps(body), sent), correlation
        except (OSError, http.client.HTTPException, ValueError) as error:
            why = f'couldn\'t execute {method} against {url}: {method.capitalize()} "{url}": {_told(error, url)}'
            return Answer(0, why), correlation

    def _call(self, method: str, url: str, body: str, headers: dict[str, str]) -> Answer:
        parts = urlsplit(url)
        host = parts.hostname or ""
        if parts.scheme == "https":
            link: http.client.HTTPConnection = http.client.HTTPSConnection(
                host, parts.port, timeout=_DEADLINE, context=self._context(host)
            )
        elif parts.scheme == "http":
            link = http.client.HTTPConnection(host, parts.port, timeout=_DEADLINE)
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
        return Answer(reply.status, f"{reply.status} {reply.reason}", data if isinstance(data, dict) else {})

    def _context(self, host: str) -> ssl.SSLContext:
        context = ssl.create_default_context()
        named = Path(self.certs) / f"{host}.crt"
        extra = self.ca_file or (str(named) if named.exists() else "")
        if extra:
            context.load_verify_locations(extra)
        return context


def is_created(token: str) -> bool:
    """A token of a runner made in GitLab, by nothing but its prefix."""
    return token.startswith(CREATED)


def short(token: str) -> str:
    """What logs show of a token."""
    return token.removeprefix(CREATED)[:9] if not token.startswith("GR1348941") else token[:18]


def about(config_executor: str = "") -> dict[str, Any]:
    """What a runner says of itself."""
    told = {"name": "gitlab-runner", "version": VERSION, "revision": REVISION, "platform": "linux"}
    return told | {"architecture": ARCHITECTURE, "executor": config_executor}


def verify(server: Server, token: str, system_id: str) -> Answer | None:
    """POST runners/verify. None: the token is refused. Trouble on the way is no refusal."""
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
    """POST runners, with a registration token. None: it was not done."""
    answer, correlation = server.ask("POST", "runners", token, {"token": token, "info": about(), **parameters})
    fields = {"correlation_id": correlation, "runner": short(token)}
    if answer.code == 201:
        logs.info("Registering runner... succeeded", **fields)
        return answer
    told = {0: "client error", 403: "forbidden (check registration token)", 410: "is disallowed"}
    logs.error(f"Registering runner... {told.get(answer.code, 'failed')}", status=answer.status, **fields)
    return None


def unregister(server: Server, token: str, system_id: str) -> bool:
    """Takes the runner out; of one that was created in GitLab only this machine."""
    created = is_created(token)
    body = {"token": token} | ({"system_id": system_id} if created else {})
    answer, correlation = server.ask("DELETE", "runners/managers" if created else "runners", token, body)
    fields = {"correlation_id": correlation, "runner": short(token)}
    text = f"Unregistering runner{' manager' if created else ''} from GitLab"
    if answer.code == 204:
        logs.info(f"{text} succeeded", **fields)
        return True
    told = {0: "client error", 403: "forbidden"}
    logs.error(f"{text} {told.get(answer.code, 'failed')}", status=answer.status, **fields)
    return False


def _told(error: Exception, url: str) -> str:
    """An error in Go's words, as far as people grep for them."""
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
