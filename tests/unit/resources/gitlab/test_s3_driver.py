"""`S3Bucket`'s verification against S3 servers: what the registry's driver does, and the setting that helps where it is refused."""

from __future__ import annotations

import base64
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from provision.formats.s3 import checksum, checksum_of_zeros
from provision.resources import Result, S3Bucket
from provision.shell import Command
from provision.testing import LocalSession, observe, planned
from provision.url import Url
from provision_lab.certificates import Authority
from tests.support.buckets import ACCESS_KEY, SECRET_KEY, Bucket, Refusal, Rule, bucket, denying, operation
from tests.support.local import Local, one_shell
from tests.support.web import tls

pytestmark = pytest.mark.slow

PART = 10 * 1024 * 1024
LAYER = [
    *("PutObject", "GetObject", "ListMultipartUploads", "CreateMultipartUpload", "UploadPart", "UploadPart"),
    *("CompleteMultipartUpload", "CopyObject", "DeleteObjects"),
]
MULTIPART = "so it needs a service that has them"
Check = Callable[..., Result]
Environ = dict[str, Any]


@pytest.fixture
def check(local: Local, tmp_path: Path) -> Check:
    """Verifies a bucket from this machine, with a version of GitLab installed."""

    def run(there: Bucket, version: str = "19.3.0-ce.0", **settings: Any) -> Result:
        wanted = S3Bucket("registry", "us-east-1", Url.parse(there.url), ACCESS_KEY, SECRET_KEY, **settings)
        packages = f"gitlab-ce\t{version}\tii \n" if version else ""
        (change,) = planned(wanted, observe(wanted, {"list": "<ListBucketResult/>\n200\n", "packages": packages}))
        assert isinstance(change.run, Command)
        folder = tmp_path / "run"
        folder.mkdir(exist_ok=True)
        result = local({"/run": folder}).run(change.run, deadline=change.deadline)
        assert list(folder.iterdir()) == []
        return result

    return run


def checksums(environ: Environ) -> dict[str, str]:
    """The headers of a request that name or hold a checksum, in lower case without x-amz-."""
    names = {
        key: value
        for key, value in environ.items()
        if "CHECKSUM" in key or key in ("HTTP_CONTENT_MD5", "HTTP_X_AMZ_TRAILER")
    }
    return {key.removeprefix("HTTP_").removeprefix("X_AMZ_").lower(): value for key, value in names.items()}


class Seen:
    """A rule that refuses nothing and keeps the checksums of each operation."""

    def __init__(self) -> None:
        self.checksums: dict[str, dict[str, str]] = {}
        self.lengths: list[int] = []

    def __call__(self, environ: Environ) -> None:
        self.checksums[operation(environ)] = checksums(environ)
        if operation(environ) == "UploadPart":
            self.lengths.append(int(environ["CONTENT_LENGTH"]))


def test_one_layer_is_stored_as_the_driver_does(check: Check) -> None:
    """In two parts, with its checksums; then nothing is left."""
    seen = Seen()
    with bucket(seen) as there:
        result = check(there, folder="/some folder/")
        assert (result.code, result.errors) == (0, "")
        assert there.asked == LAYER
        assert there.objects() == []
    assert seen.lengths == [PART, len("provision")]
    text, algorithm = checksum("CRC64NVME", b"provision"), {"sdk_checksum_algorithm": "CRC64NVME"}
    assert seen.checksums["PutObject"] == seen.checksums["UploadPart"] == {**algorithm, "checksum_crc64nvme": text}
    created = {"checksum_algorithm": "CRC64NVME"}
    assert seen.checksums["CreateMultipartUpload"] == seen.checksums["CopyObject"] == created
    assert seen.checksums["DeleteObjects"].keys() == {"sdk_checksum_algorithm", "checksum_crc64nvme"}


@one_shell
def test_over_tls_the_checksum_follows_the_content(check: Check, tmp_path: Path) -> None:
    """As a trailer, which services refuse that know the header alone."""
    seen = Seen()
    context = tls(Authority("nobody's").issue(["localhost"], ["127.0.0.1"]), tmp_path)
    with bucket(seen, context=context) as there:
        assert (check(there, insecure=True).errors, there.asked) == ("", LAYER)
        assert check(there).errors.startswith("S3 does not put an object: curl: (60)")
    assert seen.checksums["UploadPart"] == {
        "sdk_checksum_algorithm": "CRC64NVME",
        "trailer": "x-amz-checksum-crc64nvme",
    }


def test_the_trailer_holds_the_checksum(check: Check, tmp_path: Path) -> None:
    """Read as S3 does: one chunk, its end, and the trailer."""
    bodies: list[bytes] = []

    def rule(environ: Environ) -> Refusal | None:
        if operation(environ) == "UploadPart":
            bodies.append(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
            return 507, "QuotaExceeded"
        return None

    context = tls(Authority("nobody's").issue(["localhost"], ["127.0.0.1"]), tmp_path)
    with bucket(rule, context=context) as there:
        assert check(there, insecure=True).code == 1
    value = checksum_of_zeros("CRC64NVME", PART).encode()
    size, rest = bodies[0].split(b"\r\n", 1)
    assert int(size, 16) == PART
    assert rest == bytes(PART) + b"\r\n0\r\nx-amz-checksum-crc64nvme:" + value + b"\r\n\r\n"


@one_shell
@pytest.mark.parametrize(
    ("version", "settings", "uploads", "deletions"),
    [
        ("19.3.0-ce.0", {"checksum_algorithm": "SHA256"}, "SHA256", "checksum_sha256"),
        ("19.3.0-ce.0", {"checksum_algorithm": ""}, "", "content_md5"),
        ("19.1.0-ce.0", {"checksum_algorithm": ""}, "", "checksum_crc32"),
        ("18.11.0-ce.0", {}, "", "content_md5"),
        ("", {}, "CRC64NVME", "checksum_crc64nvme"),
    ],
)
def test_each_version_has_its_checksums(
    check: Check, version: str, settings: Mapping[str, Any], uploads: str, deletions: str
) -> None:
    """The driver before 19.0 has none; 19.0 and 19.1 send one with deletions in any case."""
    seen = Seen()
    with bucket(seen) as there:
        assert check(there, version, **settings).errors == ""
    assert seen.checksums["PutObject"].get("sdk_checksum_algorithm", "") == uploads
    assert deletions in seen.checksums["DeleteObjects"]


@one_shell
def test_keys_of_a_session(check: Check) -> None:
    """Their token is sent and signed."""
    tokens: set[str] = set()

    def rule(environ: Environ) -> None:
        assert "x-amz-security-token" in environ["HTTP_AUTHORIZATION"]
        tokens.add(environ["HTTP_X_AMZ_SECURITY_TOKEN"])

    with bucket(rule) as there:
        assert check(there, session_token="temporary/+=token").errors == ""
    assert tokens == {"temporary/+=token"}


@one_shell
@pytest.mark.parametrize(
    ("denied", "words"),
    [
        ("PutObject", "may not put an object (AccessDenied): allow s3:PutObject"),
        ("GetObject", "may not get an object (AccessDenied): allow s3:GetObject"),
        ("ListMultipartUploads", "may not list multipart uploads (AccessDenied): allow s3:ListBucketMultipartUploads"),
        ("CreateMultipartUpload", "may not begin a multipart upload (AccessDenied): allow s3:PutObject"),
        ("DeleteObjects", "may not delete an object (AccessDenied): allow s3:DeleteObject"),
    ],
)
def test_a_permission_that_is_missing(check: Check, denied: str, words: str) -> None:
    """It is named; a deletion is answered with 200, and the error inside. Nothing else is tried, and the rest is removed."""
    with bucket(denying(denied)) as there:
        result = check(there)
        assert (result.code, result.errors) == (1, f"these keys {words} in the bucket's policy\n")
        assert there.asked.count(denied) == 1
        assert there.objects() == []


def refuses_checksums(status: int, code: str, *operations: str) -> Rule:
    """A service that does not know these checksums, in all or some operations."""

    def rule(environ: Environ) -> Refusal | None:
        known = environ.keys() & {"HTTP_CONTENT_MD5"}
        affected = not operations or operation(environ) in operations
        return (status, code) if affected and checksums(environ) and not known else None

    return rule


@one_shell
@pytest.mark.parametrize(
    ("rule", "step"),
    [
        (refuses_checksums(501, "NotImplemented"), "put an object"),
        (refuses_checksums(400, "InvalidRequest", "CreateMultipartUpload"), "begin a multipart upload"),
        (refuses_checksums(400, "XAmzContentSHA256Mismatch", "UploadPart"), f"store a part of {PART} bytes"),
        (refuses_checksums(400, "InvalidRequest", "DeleteObjects"), "delete an object"),
    ],
    ids=["all", "begin", "part", "delete"],
)
def test_a_service_that_refuses_the_checksum(check: Check, rule: Rule, step: str) -> None:
    """checksum_disabled is the remedy, and it is one."""
    with bucket(rule) as there:
        result = check(there)
        assert result.code == 1
        assert result.errors.startswith(f"S3 does not {step}: ")
        remedy = "without the driver's checksum (CRC64NVME) it does: set registry.s3.checksum_disabled = true\n"
        assert result.errors.endswith(remedy)
        assert there.objects() == []
        assert check(there, checksum_algorithm="").errors == ""


@one_shell
def test_a_version_that_cannot_leave_it_out(check: Check) -> None:
    """GitLab 19.0 and 19.1 delete with a checksum, whatever the setting: the remedy is another version."""
    with bucket(refuses_checksums(400, "InvalidRequest", "DeleteObjects")) as there:
        result = check(there, "19.1.2-ce.0", checksum_algorithm="")
        assert result.errors.startswith("S3 does not delete an object: ")
        assert "GitLab 19.0 and 19.1 send this checksum even with registry.s3.checksum_disabled" in result.errors
        assert there.objects() == []


def limits(largest: int = 0, smallest: int = 0, status: int = 413, code: str = "EntityTooLarge") -> Rule:
    """A service with limits for the size of a part; the smallest is checked at the end, as S3 does."""
    sizes: list[int] = []

    def rule(environ: Environ) -> Refusal | None:
        if operation(environ) == "UploadPart":
            sizes.append(int(environ["CONTENT_LENGTH"]))
            if largest and sizes[-1] > largest:
                return status, code
        if operation(environ) == "CompleteMultipartUpload" and max(sizes[-2:]) < smallest:
            return 400, "EntityTooSmall"
        return None

    return rule


@one_shell
@pytest.mark.parametrize(
    ("rule", "words", "works"),
    [
        (
            limits(PART - 1),
            f"it wants smaller parts: set registry.s3.chunksize to less than {PART}, at least 5242880",
            PART // 2,
        ),
        (
            limits(PART - 1, status=500, code="InternalError"),
            "it takes smaller parts: set registry.s3.chunksize = 5242880",
            PART // 2,
        ),
        (limits(smallest=2 * PART), f"it wants larger parts: set registry.s3.chunksize to more than {PART}", 2 * PART),
    ],
    ids=["too large", "fails", "too small"],
)
def test_a_service_that_refuses_the_size_of_parts(check: Check, rule: Rule, words: str, works: int) -> None:
    """chunksize is the remedy, and it is one."""
    with bucket(rule) as there:
        result = check(there)
        assert result.code == 1
        assert result.errors.splitlines()[-1] == words
        assert there.objects() == []
        assert check(there, part_size=works).errors == ""


@one_shell
def test_a_service_without_multipart_uploads(check: Check) -> None:
    """The registry stores every layer so: no setting helps."""

    def rule(environ: Environ) -> Refusal | None:
        return (501, "NotImplemented") if operation(environ) == "CreateMultipartUpload" else None

    with bucket(rule) as there:
        result = check(there)
        assert result.errors.startswith("S3 does not begin a multipart upload: ")
        assert result.errors.endswith(f"with a multipart upload, {MULTIPART}\n")
        assert "checksum_disabled" not in result.errors


@one_shell
def test_another_refusal_is_printed_unchanged(check: Check) -> None:
    """S3's own words."""

    def rule(environ: Environ) -> Refusal | None:
        return (507, "QuotaExceeded") if operation(environ) == "PutObject" else None

    with bucket(rule) as there:
        errors = check(there).errors
    assert errors.startswith("S3 does not put an object: ")
    assert "<Code>QuotaExceeded</Code>" in errors
    assert "registry.s3" not in errors


@one_shell
@pytest.mark.parametrize("upload", ['a"\noutput = "/etc/x', "x y", "../../secret", ""])
def test_an_upload_id_cannot_configure_curl(check: Check, upload: str) -> None:
    """What the storage answers becomes part of an address, and nothing else."""
    paths: list[str] = []

    def rule(environ: Environ) -> Refusal | None:
        paths.append(environ["REQUEST_URI"])
        return (200, f"<UploadId>{upload}</UploadId>") if operation(environ) == "CreateMultipartUpload" else None

    with bucket(rule) as there:
        assert check(there).code == 1
    assert [path for path in paths if "secret" in path and ".." in path.partition("?")[0]] == []


@one_shell
def test_no_program_has_a_key_in_its_arguments(there_is: Callable[[str], Path], check: Check) -> None:
    """curl reads all on its standard input."""
    calls = there_is("curl")
    with bucket() as there:
        assert check(there).errors == ""
    text = calls.read_text()
    assert len(text.splitlines()) >= len(LAYER)
    assert ACCESS_KEY not in text
    assert "Signature" not in text


@pytest.fixture
def there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Records the arguments of each call of a program, which then runs."""

    def add(name: str) -> Path:
        calls, folder = tmp_path / f"{name}.calls", tmp_path / "bin"
        folder.mkdir()
        real = subprocess.run(["which", name], check=True, capture_output=True, text=True).stdout.strip()
        (folder / name).write_text(f'#!/bin/sh\necho "$*" >> {calls}\nexec {real} "$@"\n')
        (folder / name).chmod(0o755)
        plain = LocalSession.__init__

        def init(self: LocalSession, folders: Any, environment: Any = None, **options: Any) -> None:
            path = f"{folder}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
            plain(self, folders, {**(environment or {}), "PATH": path}, **options)

        monkeypatch.setattr(LocalSession, "__init__", init)
        return calls

    return add


def test_deletions_have_the_right_checksum() -> None:
    """MD5 in base64, as S3 requires it with several deletions."""
    from provision.resources.gitlab.s3_bucket import _checksum_header

    assert (
        _checksum_header("MD5", b"")
        == "content-md5:" + base64.b64encode(bytes.fromhex("d41d8cd98f00b204e9800998ecf8427e")).decode()
    )
    assert _checksum_header("CRC32", b"123456789") == "x-amz-checksum-crc32:y/Q5Jg=="
