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
from tests.support.buckets import ACCESS_KEY, SECRET_KEY, Refusal, Rule, bucket, denying, operation
from tests.support.faults import on_host, pending
from tests.support.runs import provision, reconfigures, unchanged, untouched, without_s3
from tests.support.web import Reply, Request, Web, tls

S3 = Mapping[str, Any]
Broken = AbstractContextManager[S3]


@pytest.fixture(scope="module")
def harness(harness_factory: Callable[..., Harness]) -> Harness:
    """A converged GitLab host whose registry stores images on its disk."""
    harness = harness_factory(LabHost("gitlab", prepared="server"))
    without_s3(harness)
    return harness


def working(harness: Harness) -> S3:
    """The lab's own S3 in the inventory."""
    table: S3 = inventory_of(harness.lab)["registry"]["s3"]
    return table


class Answers(BaseHTTPRequestHandler):
    """A listing as a test needs it: `code` is its error; its clock is `ahead` seconds ahead."""

    code = ""
    ahead = 0.0

    def do_GET(self) -> None:
        status, content = 200, b"<ListBucketResult/>"
        if self.code:
            status, content = 403, f"<Error><Code>{self.code}</Code><Message>No.</Message></Error>".encode()
        self.send_response_only(status)
        self.send_header("Date", formatdate(time() + self.ahead, usegmt=True))
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Logs nothing."""


@contextmanager
def fake(harness: Harness, code: str = "", ahead: float = 0, *, https: bool = False) -> Iterator[S3]:
    """S3 on this machine with this answer to a listing; the inventory's table for it."""
    handler = type("Handler", (Answers,), {"code": code, "ahead": ahead})
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


def unlisted(code: str) -> Callable[[Harness], Broken]:
    """S3 that refuses to list with that code."""
    return lambda harness: fake(harness, code)


def refusing(rule: Rule) -> Callable[[Harness], Broken]:
    """S3 with moto on this machine that refuses what the rule does."""

    @contextmanager
    def broken(harness: Harness) -> Iterator[S3]:
        keys = {"accesskey": ACCESS_KEY, "secretkey": SECRET_KEY}
        for name, key in keys.items():
            (harness.folder / name).write_text(key)
        with bucket(rule, address=harness.lab.gateway) as there:
            yield {"regionendpoint": there.url} | {name: {"file": str(harness.folder / name)} for name in keys}

    return broken


def full(environ: dict[str, Any]) -> Refusal | None:
    """No more objects can be put."""
    return (507, "QuotaExceeded") if operation(environ) == "PutObject" else None


def without_checksums(environ: dict[str, Any]) -> Refusal | None:
    """Checksums are not known."""
    return (501, "NotImplemented") if "HTTP_X_AMZ_SDK_CHECKSUM_ALGORITHM" in environ else None


def small_bodies(environ: dict[str, Any]) -> Refusal | None:
    """A proxy refuses bodies of more than 8 MB."""
    return (413, "EntityTooLarge") if int(environ.get("CONTENT_LENGTH") or 0) > 8_000_000 else None


def without_multipart(environ: dict[str, Any]) -> Refusal | None:
    """There are no multipart uploads."""
    return (501, "NotImplemented") if operation(environ) == "CreateMultipartUpload" else None


@contextmanager
def named_hosts_only(harness: Harness) -> Iterator[S3]:
    """S3 that refuses the bucket's name in the path."""

    def answer(asked: Request) -> Reply:
        if asked.headers["host"].startswith("registry."):
            return Reply(200, b"<ListBucketResult/>")
        return Reply(403, b"<Error><Code>SecondLevelDomainForbidden</Code></Error>")

    web = Web(answer, address=harness.lab.gateway)
    names = f"{harness.lab.gateway} s3.lab.test registry.s3.lab.test"
    with on_host(harness, "gitlab", f"echo '{names}' >> /etc/hosts", "sed -i '/s3.lab.test/d' /etc/hosts"):
        yield {"regionendpoint": f"http://s3.lab.test:{web.port}"}
    web.close()


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
    Fault("wrong region", unlisted("AuthorizationHeaderMalformed"), "the region is wrong", "registry.s3.region"),
    Fault("elsewhere", unlisted("PermanentRedirect"), "in another region", "regionendpoint"),
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
    Fault("our clock", unlisted("RequestTimeTooSkewed"), "the clock of this machine", "timedatectl"),
    Fault("may not list", unlisted("AccessDenied"), "these keys may not list the bucket", "s3:ListBucket"),
    Fault("may not put", refusing(denying("PutObject")), "these keys may not put an object", "s3:PutObject"),
    Fault("may not get", refusing(denying("GetObject")), "these keys may not get an object", "s3:GetObject"),
    Fault(
        "may not delete", refusing(denying("DeleteObjects")), "these keys may not delete an object", "s3:DeleteObject"
    ),
    Fault("full", refusing(full), "S3 does not put an object", "QuotaExceeded"),
    Fault(
        "checksums",
        refusing(without_checksums),
        "without the driver's checksum (CRC64NVME)",
        "registry.s3.checksum_disabled = true",
    ),
    Fault("part size", refusing(small_bodies), "does not store a part of 10485760 bytes", "registry.s3.chunksize"),
    Fault("no multipart", refusing(without_multipart), "does not begin a multipart upload", "a service that has them"),
    Fault("path style", named_hosts_only, "the bucket's name in the path", "registry.s3.pathstyle = false"),
    Fault("no S3", unlisted("Teapot"), "Teapot", "check that the endpoint is S3"),
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
