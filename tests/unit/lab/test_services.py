"""Signature Version 4 on the server's side, compared with AWS's own example and the real client."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from provision_lab.services import BadSignature, verify
from tests.support.waiting import wait_for

ACCESS, SECRET = "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def example(**changes: str) -> dict[str, str]:
    """The request of AWS's "Authenticating Requests: GET Object" example, as a WSGI environment."""
    signed = "host;range;x-amz-content-sha256;x-amz-date"
    signature = "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
    credential = f"{ACCESS}/20130524/us-east-1/s3/aws4_request"
    authorization = f"AWS4-HMAC-SHA256 Credential={credential},SignedHeaders={signed},Signature={signature}"
    return {
        "REQUEST_METHOD": "GET",
        "REQUEST_URI": "/test.txt",
        "QUERY_STRING": "",
        "HTTP_HOST": "examplebucket.s3.amazonaws.com",
        "HTTP_RANGE": "bytes=0-9",
        "HTTP_X_AMZ_CONTENT_SHA256": EMPTY,
        "HTTP_X_AMZ_DATE": "20130524T000000Z",
        "HTTP_AUTHORIZATION": authorization,
        **changes,
    }


def test_awss_own_example_is_accepted() -> None:
    """The published request with its published signature is accepted."""
    verify(example(), ACCESS, SECRET)


@pytest.mark.parametrize(
    ("changes", "secret", "code"),
    [
        ({}, "another", "SignatureDoesNotMatch"),
        ({"HTTP_RANGE": "bytes=0-10"}, SECRET, "SignatureDoesNotMatch"),
        ({"REQUEST_URI": "/other.txt"}, SECRET, "SignatureDoesNotMatch"),
        ({"REQUEST_METHOD": "DELETE"}, SECRET, "SignatureDoesNotMatch"),
        ({"QUERY_STRING": "acl="}, SECRET, "SignatureDoesNotMatch"),
        ({"HTTP_AUTHORIZATION": ""}, SECRET, "AccessDenied"),
        ({"HTTP_AUTHORIZATION": "Basic abc"}, SECRET, "AccessDenied"),
        ({"HTTP_AUTHORIZATION": "AWS4-HMAC-SHA256 Credential=x"}, SECRET, "AccessDenied"),
    ],
)
def test_what_is_not_signed_so_is_refused(changes: dict[str, str], secret: str, code: str) -> None:
    """Another secret, a changed request, a missing or partial signature: refused with S3's errors."""
    with pytest.raises(BadSignature) as refused:
        verify(example(**changes), ACCESS, secret)
    assert (refused.value.code, refused.value.status) == (code, "403 Forbidden")


def test_an_unknown_key_is_named_so() -> None:
    """S3 distinguishes an unknown key from a wrong signature."""
    with pytest.raises(BadSignature) as refused:
        verify(example(), "AKIAOTHER", SECRET)
    assert refused.value.code == "InvalidAccessKeyId"


def test_the_payloads_hash_is_required() -> None:
    """Without x-amz-content-sha256 (as curl signs by itself), S3 answers 400, and so does the lab."""
    request = example()
    del request["HTTP_X_AMZ_CONTENT_SHA256"]
    with pytest.raises(BadSignature) as refused:
        verify(request, ACCESS, SECRET)
    assert (refused.value.code, refused.value.status) == ("InvalidRequest", "400 Bad Request")


@pytest.mark.parametrize(
    "url", ["/b/a%20b/%C3%BC%2Bc~d", "/b?list-type=2&prefix=a%2Fb%20c&delimiter=%2F", "/b?uploads", "/"]
)
def test_botocore_signs_what_we_accept(url: str) -> None:
    """The real client's signatures of unusual paths and queries are accepted."""
    from botocore.auth import S3SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    request = AWSRequest("GET", f"http://198.18.0.1:9000{url}", headers={"Host": "198.18.0.1:9000"})
    S3SigV4Auth(Credentials(ACCESS, SECRET), "s3", "us-east-1").add_auth(request)
    environ = {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in request.headers.items()}
    path, _, query = url.partition("?")
    verify(
        {**environ, "REQUEST_METHOD": "GET", "REQUEST_URI": url, "QUERY_STRING": query, "PATH_INFO": path},
        ACCESS,
        SECRET,
    )


def test_s3_is_loaded_with_its_first_request(tmp_path: Path) -> None:
    """A check whether the port answers does not load moto. The first request is answered, and the bucket is there."""
    import boto3  # type: ignore[import-untyped]

    (tmp_path / "s3_access_key").write_text(ACCESS)
    (tmp_path / "s3_secret_key").write_text(SECRET)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "provision_lab.services", "s3", "127.0.0.1", str(port), "registry", str(tmp_path)]
    with subprocess.Popen(command) as service:
        try:
            maps = Path(f"/proc/{service.pid}/maps")
            for _ in range(2):  # the second is accepted when the service has dealt with the first
                wait_for(lambda: is_open(port), "the port is open")
            assert "cryptography" not in maps.read_text()  # moto imports it
            keys = {"aws_access_key_id": ACCESS, "aws_secret_access_key": SECRET, "region_name": "us-east-1"}
            client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}", **keys)
            assert [one["Name"] for one in client.list_buckets()["Buckets"]] == ["registry"]
            assert "cryptography" in maps.read_text()
        finally:
            service.kill()


def is_open(port: int) -> bool:
    """Whether a server accepts connections."""
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True
