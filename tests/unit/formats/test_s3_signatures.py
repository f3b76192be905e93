"""Signatures of S3 requests, against botocore's own."""

from __future__ import annotations

import datetime
import hashlib
import hmac
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provision.formats.s3 import Signer, curl_config
from provision.secret import Secret

auth = pytest.importorskip("botocore.auth", reason="needs botocore to compare with (extra `lab`)")
awsrequest = pytest.importorskip("botocore.awsrequest")
credentials = pytest.importorskip("botocore.credentials")

NOON = datetime.datetime(2026, 2, 28, 12, 0, tzinfo=datetime.UTC)
LATER = datetime.timedelta(seconds=299)


def theirs(signer: Signer, method: str, url: str, body: bytes, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The headers that botocore signs and sends for the same request."""
    monkeypatch.setattr(auth, "get_current_datetime", lambda: NOON.replace(tzinfo=None))
    keys = credentials.Credentials(
        signer.access_key,
        signer.secret_key.reveal() if isinstance(signer.secret_key, Secret) else signer.secret_key,
        signer.session_token or None,
    )
    request: Any = awsrequest.AWSRequest(method=method, url=url, data=body)
    request.context["payload_signing_enabled"] = True
    auth.S3SigV4Auth(keys, "s3", signer.region).add_auth(request)
    return {name.lower(): value for name, value in request.headers.items()}


@pytest.mark.parametrize(
    ("method", "url", "body"),
    [
        ("GET", "https://nyc3.digitaloceanspaces.com/registry?list-type=2&max-keys=1", b""),
        ("GET", "http://198.18.0.1:9000/registry?max-keys=1&list-type=2", b""),
        ("PUT", "https://s3.eu-central-1.amazonaws.com/my-bucket/provision-probe", b"provision"),
        ("DELETE", "https://minio.example.com:9000/b/provision-probe", b""),
        ("GET", "https://s3.example.com/", b""),
    ],
)
@pytest.mark.parametrize("token", ["", "temporary/+=token"])
def test_botocore_signs_alike(method: str, url: str, body: bytes, token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Method, path, query in any order, body, port and session token all go into it."""
    signer = Signer("AKIDEXAMPLE", Secret("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"), "nyc3", token)
    ours = signer.headers(method, url, body, NOON)
    expected = theirs(signer, method, url, body, monkeypatch)
    assert ours["authorization"] == expected["authorization"]
    assert ours["x-amz-date"] == expected["x-amz-date"] == "20260228T120000Z"
    assert ours["x-amz-content-sha256"] == expected["x-amz-content-sha256"]
    assert ours.get("x-amz-security-token") == expected.get("x-amz-security-token")


words = st.text("abcdefghijklmnopqrstuvwxyz0123456789-._~", min_size=1, max_size=12)


@settings(max_examples=60, deadline=None)
@given(
    bucket=words,
    key=words,
    query=st.dictionaries(words, words, max_size=4),
    body=st.binary(max_size=40),
    secret=st.text("abcXYZ019+/", min_size=1, max_size=40),
)
def test_any_plain_request_is_signed_alike(
    bucket: str, key: str, query: dict[str, str], body: bytes, secret: str
) -> None:
    """Names as S3 allows them, any query, any body, any key."""
    url = f"https://s3.example.com:9000/{bucket}/{key}" + ("?" if query else "")
    url += "&".join(f"{name}={value}" for name, value in query.items())
    signer = Signer("AKID", secret, "eu-central-1")
    with pytest.MonkeyPatch.context() as patch:
        expected = theirs(signer, "PUT", url, body, patch)
    assert signer.headers("PUT", url, body, NOON)["authorization"] == expected["authorization"]


def test_requests_of_one_run_are_equal() -> None:
    """Within five minutes the same request has the same signature; later it has a new one."""
    signer = Signer("AKID", "secret", "nyc3")
    first = signer.headers("GET", "https://s3.example.com/b", b"", NOON)
    assert signer.headers("GET", "https://s3.example.com/b", b"", NOON + LATER) == first
    later = signer.headers("GET", "https://s3.example.com/b", b"", NOON + LATER + datetime.timedelta(seconds=1))
    assert later["x-amz-date"] == "20260228T120500Z"


def test_the_secret_key_is_in_no_header() -> None:
    """Only the signature is sent."""
    signer = Signer(Secret("AKIDEXAMPLE"), Secret("the-secret-key-itself"), "nyc3")
    assert "the-secret-key-itself" not in str(signer.headers("GET", "https://s3.example.com/b", b"", NOON))
    assert "the-secret-key-itself" not in repr(signer)


def test_a_configuration_for_curl() -> None:
    """What `curl -K -` reads; without a body no data."""
    text = curl_config("PUT", "https://s3/b/k", {"host": "s3"}, "hello")
    assert text.splitlines() == [
        "silent",
        "show-error",
        "connect-timeout = 10",
        "max-time = 20",
        'request = "PUT"',
        'url = "https://s3/b/k"',
        'header = "host: s3"',
        'data-binary = "hello"',
        'header = "content-type: application/octet-stream"',
    ]
    assert "data-binary" not in curl_config("GET", "https://s3/b", {})


def test_a_host_gets_a_key_of_the_day() -> None:
    """Six lines: with HMAC's two blocks, a host signs what depends on earlier answers. The secret key does not follow from them."""
    signer = Signer("AKID", Secret("the-secret-key"), "eu", "a-token")
    access, token, scope, time, *blocks = signer.for_host(NOON).splitlines()
    assert (access, token, scope, time) == ("AKID", "a-token", "20260228/eu/s3/aws4_request", "20260228T120000Z")
    inner, outer = (bytes(int(one, 8) for one in block.split("\\")[1:]) for block in blocks)
    text = b"text to sign"
    signature = hashlib.sha256(outer + hashlib.sha256(inner + text).digest()).hexdigest()
    assert signature == hmac.new(signer._key("20260228"), text, "sha256").hexdigest()
    assert "the-secret-key" not in signer.for_host(NOON)
