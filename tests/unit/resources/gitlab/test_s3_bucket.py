"""`S3Bucket`: every refusal named with its remedy; looking and proving run with a real curl."""

from __future__ import annotations

import dataclasses
import datetime
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from provision.errors import Refused
from provision.resources import Result, S3Bucket
from provision.resources.base import Change
from provision.resources.gitlab.s3_bucket import clock_skew, listing_problem
from provision.secret import Secret
from provision.shell import Command
from provision.testing import LocalSession, observe, observe_on, planned
from provision.url import Url

BUCKET = S3Bucket(
    "registry", "nyc3", Url.parse("https://nyc3.example.com"), Secret("the-access-key"), Secret("the-secret-key")
)
LISTED = "<ListBucketResult/>\n200\n"
needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
Serve = Callable[..., Any]


def plan(bucket: S3Bucket, listed: Result | str, record: Any = None) -> list[Change]:
    """The changes for a listing."""
    return planned(bucket, observe(bucket, {"list": listed, "packages": ""}, record=record))


def test_bare() -> None:
    """It can be listed and was never verified: the verification is run, changes nothing, and is recorded."""
    (change,) = plan(BUCKET, LISTED)
    assert change.summary == "verify bucket registry: put, get and delete an object"
    assert change.verification
    assert change.record


def test_converged() -> None:
    """Verified with these settings: only listed."""
    (change,) = plan(BUCKET, LISTED)
    assert plan(BUCKET, LISTED, change.record) == []


@pytest.mark.parametrize(
    "settings",
    [
        {"secret_key": Secret("another-key")},
        {"access_key": Secret("another-id")},
        {"bucket": "other"},
        {"endpoint": Url.parse("https://ams3.example.com")},
        {"region": "ams3"},
        {"part_size": 20_000_000},
        {"checksum_algorithm": ""},
        {"folder": "images"},
        {"path_style": False},
    ],
)
def test_other_settings_are_verified_again(settings: dict[str, Any]) -> None:
    """The record differs between keys without holding them."""
    (change,) = plan(BUCKET, LISTED)
    assert "the-secret-key" not in str(change.record)
    assert len(plan(dataclasses.replace(BUCKET, **settings), LISTED, change.record)) == 1


def test_the_record_has_a_key() -> None:
    """Another host's record differs: the keys of the bucket cannot be guessed from it."""
    seen = [observe(BUCKET, {"list": LISTED, "packages": ""}, fingerprint_key=key * 32) for key in ("00", "01")]
    one, other = (planned(BUCKET, one)[0].record for one in seen)
    assert one != other


def test_a_bucket_that_broke_after_its_verification() -> None:
    """The listing is asked on every look."""
    (change,) = plan(BUCKET, LISTED)
    with pytest.raises(Refused, match="there is no bucket registry"):
        plan(BUCKET, "<Error><Code>NoSuchBucket</Code></Error>\n404\n", change.record)


def xml(code: str, status: int) -> Result:
    """An error of S3's."""
    return Result(f"<?xml?><Error><Code>{code}</Code><Message>m</Message></Error>\n{status}\n".encode())


@pytest.mark.parametrize(
    ("result", "kind", "text", "hint"),
    [
        (xml("NoSuchBucket", 404), Refused, "there is no bucket registry (NoSuchBucket)", "create it, or correct"),
        (xml("InvalidAccessKeyId", 403), Refused, "the storage does not know the access key", "registry.s3.accesskey"),
        (xml("SignatureDoesNotMatch", 403), Refused, "the secret key is wrong", "registry.s3.secretkey"),
        (xml("RequestTimeTooSkewed", 403), Refused, "the clock of this machine", ""),
        (xml("AuthorizationHeaderMalformed", 400), Refused, "the region is wrong", "registry.s3.region"),
        (xml("PermanentRedirect", 301), Refused, "the bucket is in another region", "regionendpoint"),
        (xml("AccessDenied", 403), Refused, "these keys may not list the bucket", "s3:ListBucket"),
        (Result(b"<html>hello\n404\n"), Refused, "HTTP 404 <html>hello", "check that the endpoint is S3"),
        (Result(b"\n000\n", b"", 6), Refused, "its name does not resolve on the host", "DNS"),
        (Result(b"\n000\n", b"", 7), Refused, "the connection is refused", "firewall"),
        (Result(b"\n000\n", b"", 28), Refused, "no answer in time", "routes"),
        (Result(b"\n000\n", b"", 35), Refused, "the TLS handshake fails", "https"),
        (Result(b"\n000\n", b"", 60), Refused, "not trusted on the host", "CA"),
        (Result(b"", b"curl: (3) URL malformed\n", 3), Refused, "curl: (3) URL malformed", "curl -v"),
    ],
)
def test_broken(result: Result, kind: type[Exception], text: str, hint: str) -> None:
    """Each cause in words, with where it was asked and what to do."""
    problem = listing_problem(result, BUCKET)
    assert isinstance(problem, kind)
    assert isinstance(problem, Refused)
    assert problem.text.startswith("S3 https://nyc3.example.com/registry: ")
    assert text in problem.text
    assert hint in problem.hint
    with pytest.raises(kind):
        plan(BUCKET, result)


@pytest.mark.parametrize(
    ("endpoint", "url"),
    [
        ("", "https://registry.s3.nyc3.amazonaws.com"),
        ("https://minio.example.com:9000/", "https://minio.example.com:9000/registry"),
        ("https://[2001:db8::2]:9000", "https://[2001:db8::2]:9000/registry"),
    ],
)
def test_the_address(endpoint: str, url: str) -> None:
    """Amazon's own has the bucket's name in the host's, an endpoint in the path."""
    assert str(dataclasses.replace(BUCKET, endpoint=Url.parse(endpoint) if endpoint else None).url) == url


@pytest.mark.parametrize(
    ("bucket", "endpoint", "path_style", "url"),
    [
        ("registry", "https://s3.example.com:9000", False, "https://registry.s3.example.com:9000"),
        ("registry", "", True, "https://s3.nyc3.amazonaws.com/registry"),
        ("with.dot", "", None, "https://s3.nyc3.amazonaws.com/with.dot"),
        ("registry", "http://192.0.2.1:9000", False, "http://192.0.2.1:9000/registry"),
    ],
    ids=["named host", "path at AWS", "no certificate has it", "an address"],
)
def test_the_form_of_the_address(bucket: str, endpoint: str, path_style: bool | None, url: str) -> None:
    """As the driver builds it: pathstyle decides, unless the name cannot be part of a host's name."""
    place = Url.parse(endpoint) if endpoint else None
    assert str(dataclasses.replace(BUCKET, bucket=bucket, endpoint=place, path_style=path_style).url) == url


@pytest.mark.parametrize(
    ("path_style", "words", "remedy"),
    [(None, "the bucket's name in the path,", "false"), (False, "the bucket's name in the host's name,", "true")],
)
def test_the_other_form_works(path_style: bool | None, words: str, remedy: str) -> None:
    """The storage refuses one form, and lists the bucket by the other: pathstyle is the remedy."""
    bucket = dataclasses.replace(BUCKET, path_style=path_style)
    refusal = Result(b"<Error><Code>SecondLevelDomainForbidden</Code></Error>\n403\nother\n")
    problem = listing_problem(refusal, bucket)
    assert isinstance(problem, Refused)
    assert words in problem.text
    assert problem.hint == f"set registry.s3.pathstyle = {remedy}"


def test_no_secret_is_in_an_argument() -> None:
    """What the host is sent on standard input holds a signature, not the secret key."""
    question = BUCKET.probe()["list"]
    assert isinstance(question, Command)
    (change,) = plan(BUCKET, LISTED)
    assert isinstance(change.run, Command)
    for command in (question, change.run):
        assert "the-access-key" not in command.script
        assert b"the-secret-key" not in command.stdin
        assert b"the-access-key" in command.stdin


@pytest.fixture
def host(tmp_path: Path) -> LocalSession:
    """This machine as a host."""
    return LocalSession({"/var/lib/provision": tmp_path})


@needs_curl
class TestWithCurl:
    """Against a server on loopback."""

    def test_looking_lists_one_object(self, serve: Serve, reply: Any, host: LocalSession) -> None:
        """One signed GET."""
        web = serve(lambda _: reply(200, b"<ListBucketResult/>"))
        bucket = dataclasses.replace(BUCKET, endpoint=Url.parse(web.url))
        assert len(planned(bucket, observe_on(host, bucket))) == 1
        (asked,) = web.asked
        assert (asked.method, asked.path) == ("GET", "/registry?list-type=2&max-keys=1")
        assert asked.headers["host"] == f"127.0.0.1:{web.port}"
        assert asked.headers["authorization"].startswith("AWS4-HMAC-SHA256 Credential=the-access-key/")

    def test_a_refusal_is_read(self, serve: Serve, reply: Any, host: LocalSession) -> None:
        """Body and status arrive, whatever the body ends with."""
        web = serve(lambda _: reply(403, b"<Error><Code>AccessDenied</Code>\n</Error>\n\n"))
        bucket = dataclasses.replace(BUCKET, endpoint=Url.parse(web.url))
        with pytest.raises(Refused, match="may not list the bucket"):
            planned(bucket, observe_on(host, bucket))

    @pytest.mark.parametrize("refused", [True, False])
    def test_a_form_that_is_refused(self, serve: Serve, reply: Any, host: LocalSession, refused: bool) -> None:
        """The other one is asked then, and only then; curl resolves names below `localhost` itself."""
        there, here = (403, b"<Code>SecondLevelDomainForbidden</Code>"), (200, b"<ListBucketResult/>")

        def answer(asked: Any) -> Any:
            in_path = asked.headers["host"].startswith("localhost")
            return reply(*(there if in_path and refused else here))

        web = serve(answer)
        bucket = dataclasses.replace(BUCKET, endpoint=Url.parse(f"http://localhost:{web.port}"))
        if refused:
            with pytest.raises(Refused) as caught:
                planned(bucket, observe_on(host, bucket))
            assert caught.value.hint == "set registry.s3.pathstyle = false"
            assert len(web.asked) == 2
        bucket = dataclasses.replace(bucket, path_style=False if refused else None)
        del web.asked[:]
        assert len(planned(bucket, observe_on(host, bucket))) == 1
        assert [one.path.partition("?")[0] for one in web.asked] == ["/" if refused else "/registry"]

    def test_nobody_answers(self, serve: Serve, reply: Any, host: LocalSession) -> None:
        """A closed port."""
        web = serve(lambda _: reply(200))
        web.close()
        bucket = dataclasses.replace(BUCKET, endpoint=Url.parse(web.url))
        with pytest.raises(Refused, match="the connection is refused"):
            planned(bucket, observe_on(host, bucket))

    @pytest.mark.parametrize(("minutes", "word"), [(-20, "behind"), (20, "ahead of")])
    def test_a_clock_that_is_off(self, minutes: int, word: str) -> None:
        """The registry signs by the host's clock."""
        there = datetime.datetime.now(datetime.UTC) - datetime.timedelta(minutes=minutes)
        errors = f"{int(time.time())}\nHTTP/1.1 200 OK\r\nDate: {there:%a, %d %b %Y %H:%M:%S} GMT\r\n"
        problem = listing_problem(Result(LISTED.encode(), errors.encode()), BUCKET)
        assert isinstance(problem, Refused)
        assert f"the host's clock is {abs(clock_skew(errors)):.0f} s {word} the storage's" in problem.text
        assert problem.hint.endswith("timedatectl set-ntp true")

    @pytest.mark.parametrize("errors", ["", "x\n", "1700000000\n", "1700000000\nDate: nonsense\n", "Date: x\n"])
    def test_an_unknown_clock(self, errors: str) -> None:
        """Nothing is concluded."""
        assert clock_skew(errors) == 0
