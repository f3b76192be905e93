"""S3 that cannot be used is refused before anything changes: one cause with its remedy."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from time import time
from typing import Any

import pytest

from provision_lab import LabHost
from provision_lab.certificates import Authority
from provision_lab.harness import Harness, inventory_of
from tests.support.faults import pending
from tests.support.runs import applied, provision, reconfigures, unchanged, untouched, without_s3
from tests.support.web import tls

S3 = Mapping[str, Any]
Broken = AbstractContextManager[S3]


@pytest.fixture(scope="module")
def harness(harness_factory: Callable[..., Harness]) -> Harness:
    """A converged GitLab host whose registry stores images on its disk."""
    harness = harness_factory(LabHost("gitlab"))
    without_s3(harness)
    applied(harness, "server")
    return harness


def working(harness: Harness) -> S3:
    """The lab's own S3 in the inventory."""
    table: S3 = inventory_of(harness.lab)["registry"]["s3"]
    return table


class Answers(BaseHTTPRequestHandler):
    """S3 as a test needs it: `codes` by method; its clock is `ahead` seconds ahead."""

    codes: Mapping[str, str] = {}
    ahead = 0.0
    kept = b""

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        method = "LIST" if "list-type" in self.path else self.command
        if code := self.codes.get(method):
            status, content = 403, f"<Error><Code>{code}</Code><Message>No.</Message></Error>".encode()
        else:
            type(self).kept = body or self.kept
            status, content = 204 if method == "DELETE" else 200, self.kept if method == "GET" else b""
        self.send_response_only(status)
        self.send_header("Date", formatdate(time() + self.ahead, usegmt=True))
        if status != 204:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_PUT = do_DELETE = _answer

    def log_message(self, *_: object) -> None:
        """Logs nothing."""


@contextmanager
def fake(
    harness: Harness, codes: Mapping[str, str] | None = None, ahead: float = 0, *, https: bool = False
) -> Iterator[S3]:
    """S3 on this machine with these answers; the inventory's table for it."""
    handler = type("Handler", (Answers,), {"codes": codes or {}, "ahead": ahead})
    server = ThreadingHTTPServer((harness.lab.gateway, 0), handler)
    if https:
        pair = Authority("nobody's").issue(["s3.example.com"], [harness.lab.gateway])
        server.socket = tls(pair, harness.folder).wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield {"regionendpoint": f"http{'s' * https}://{harness.lab.gateway}:{server.server_port}"}
    server.shutdown()
    thread.join()
    server.server_close()


def answering(**codes: str) -> Callable[[Harness], Broken]:
    """S3 that refuses these methods with that code."""
    return lambda harness: fake(harness, codes)


def other_key(name: str) -> Callable[[Harness], Broken]:
    """The lab's S3 with another key."""

    def broken(harness: Harness) -> Broken:
        path = harness.folder / "other"
        path.write_text("not-the-one")
        return nullcontext({name: {"file": str(path)}})

    return broken


def endpoint(url: str) -> Callable[[Harness], Broken]:
    """Another endpoint; GATEWAY is replaced by this machine's address."""
    return lambda harness: nullcontext({"regionendpoint": url.replace("GATEWAY", harness.lab.gateway)})


@dataclass(frozen=True)
class Fault:
    """What is wrong with S3, and the text of the error."""

    name: str
    breaks: Callable[[Harness], Broken]
    cause: str
    remedy: str


FAULTS = [
    Fault("wrong secret", other_key("secretkey"), "the secret key is wrong", "registry.s3.secretkey"),
    Fault("unknown key", other_key("accesskey"), "the storage does not know the access key", "registry.s3.accesskey"),
    Fault("no such bucket", lambda _: nullcontext({"bucket": "nowhere"}), "there is no bucket nowhere", "create it"),
    Fault("wrong region", answering(LIST="AuthorizationHeaderMalformed"), "the region is wrong", "registry.s3.region"),
    Fault("elsewhere", answering(LIST="PermanentRedirect"), "in another region", "regionendpoint"),
    Fault("no name", endpoint("http://s3.nowhere.test:9000"), "its name does not resolve on the host", "DNS"),
    Fault("nobody there", endpoint("http://GATEWAY:9"), "the connection is refused", "port and firewall"),
    Fault("no TLS there", endpoint("https://GATEWAY:9000"), "the TLS handshake fails", "check scheme and port"),
    Fault(
        "not trusted",
        lambda harness: fake(harness, https=True),
        "is not trusted on the host",
        "registry.certificate.ca",
    ),
    Fault("host's clock", lambda harness: fake(harness, ahead=3600), "s behind the storage's", "timedatectl"),
    Fault("our clock", answering(LIST="RequestTimeTooSkewed"), "the clock of this machine", "timedatectl"),
    Fault("may not list", answering(LIST="AccessDenied"), "these keys may not list the bucket", "s3:ListBucket"),
    Fault("may not put", answering(PUT="AccessDenied"), "these keys may not put an object", "s3:PutObject"),
    Fault("may not get", answering(GET="AccessDenied"), "these keys may not get an object", "s3:GetObject"),
    Fault("may not delete", answering(DELETE="AccessDenied"), "these keys may not delete an object", "s3:DeleteObject"),
    Fault("full", answering(PUT="QuotaExceeded"), "S3 does not put an object", "QuotaExceeded"),
    Fault("no S3", answering(LIST="Teapot"), "Teapot", "check that the endpoint is S3"),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: str(fault.name))
def test_storage_that_cannot_be_used(harness: Harness, fault: Fault) -> None:
    """Exit code 1, cause and remedy; no byte of GitLab's changes, nothing is pending or reconfigured."""
    before = reconfigures(harness)
    with (
        fault.breaks(harness) as changed,
        untouched(harness, "gitlab", "/etc/gitlab", "/var/opt/gitlab/registry", "/var/lib/provision"),
    ):
        outcome = provision(harness, "server", changes={"registry": {"s3": {**working(harness), **changed}}})
    (error,) = outcome.of("error")
    assert (outcome.code, error["task"], error["resource"]) == (
        1,
        "registry",
        f"S3Bucket {changed.get('bucket', 'registry')}",
    )
    output = f"{error['text']} → {error['hint']}"
    assert [words for words in (fault.cause, fault.remedy) if words not in output] == [], output
    assert (reconfigures(harness), pending(harness, "gitlab")) == (before, [])
    assert outcome.statuses("gitlab")["registry"] == "failed"


def test_no_scheme(harness: Harness) -> None:
    """Invalid input: the error has its place in the inventory, and no host is contacted."""
    s3 = {**working(harness), "regionendpoint": f"{harness.lab.gateway}:9000"}
    outcome = provision(harness, "server", changes={"registry": {"s3": s3}})
    assert (outcome.code, outcome.events) == (2, ())
    assert "registry.s3.regionendpoint" in outcome.stderr
    assert "with its scheme" in outcome.stderr


def test_afterwards_all_is_as_it_was(harness: Harness) -> None:
    """Without S3 in the inventory, nothing is to do."""
    unchanged(harness, "server")
