"""The registry's bucket, checked from the GitLab host.

Requests are sent by curl, which reads their headers on its standard input: nothing is installed for it. The observation
lists one object. The verification does what the registry's driver does to store a layer, with the same checksums, part size
and form of address. Sources: Amazon S3's REST API; GitLab's container registry, registry/storage/driver/s3-aws; AWS SDK for
Go, service/internal/checksum.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from provision.errors import Refused
from provision.formats.s3 import Signer, checksum, checksum_of_zeros, curl_config
from provision.host.releases import ASK_PACKAGES, read_packages
from provision.host.scripts import CURL_FAILURES, NO_PROGRAM, script
from provision.host.state import fingerprint
from provision.resources.base import Change, Note, Observation, Probe, Resource, without_program
from provision.resources.gitlab.gitlab_rb import NEWEST, gitlab_version
from provision.secret import Secret, mask, reveal
from provision.shell import Command, Result
from provision.url import Url

_OBJECT: Final = "provision-probe"
_SKEW_SECONDS: Final = 300  # S3 refuses requests that are 15 minutes off; a clock that is 5 minutes off will get worse
_TEXT: Final = b"provision"  # the content of that object; check_bucket.sh has it, too
_SMALLEST_PART: Final = 5 * 1024 * 1024
_DRIVERS_PART: Final = 2 * _SMALLEST_PART
_LARGEST_PART: Final = 64 * 1024 * 1024  # a larger one would not show more, and take long
_HOST_LABEL: Final = re.compile(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]")


@dataclass(frozen=True)
class S3Bucket(Resource):
    """A bucket exists, and the registry's driver can use it with these keys.

    endpoint            of the storage; None: Amazon's own in the region
    folder              the driver's rootdirectory
    path_style          the bucket's name is in the path, not in the host's name; None: exactly with an endpoint
    part_size           the driver's chunksize, in bytes; the check uploads at most 64 MiB
    checksum_algorithm  of the driver; "" for none. GitLab before 19.0 has a driver without checksums
    insecure            the service's certificate is not checked
    proxy               a configuration for curl, as `Proxy.for_curl` returns it: the registry has the same proxy
    With an IAM role instead of keys only the registry itself can use the bucket: there is no resource then.
    """

    bucket: str
    region: str
    endpoint: Url | None
    access_key: str | Secret
    secret_key: str | Secret
    session_token: str | Secret = ""
    folder: str = ""
    path_style: bool | None = None
    part_size: int = _DRIVERS_PART
    checksum_algorithm: str = "CRC64NVME"
    insecure: bool = False
    proxy: str | Secret = ""

    @property
    def label(self) -> str:
        return f"S3Bucket {self.bucket}"

    @property
    def record_key(self) -> str:
        return "s3"

    @property
    def url(self) -> Url:
        """The bucket's URL."""
        return self._url(path_style=self.has_path_style)

    def _url(self, *, path_style: bool) -> Url:
        service = self.endpoint or Url.parse(f"https://s3.{self.region}.amazonaws.com")
        if path_style:
            return service / self.bucket
        return Url.parse(f"{service.scheme}://{self.bucket}.{service.authority}{service.path}")

    @property
    def has_path_style(self) -> bool:
        """Whether the bucket's name is in the path."""
        return not self._can_be_host or (self.endpoint is not None if self.path_style is None else self.path_style)

    @property
    def _can_be_host(self) -> bool:
        """Whether the name can be in the host's name. Otherwise the driver's library puts it into the path."""
        return bool(_HOST_LABEL.fullmatch(self.bucket)) and not (self.endpoint and self.endpoint.is_ip)

    def probe(self) -> Probe:
        styles = (self.has_path_style, not self.has_path_style) if self._can_be_host else (True,)
        urls = [f"{self._url(path_style=one)}?list-type=2&max-keys=1" for one in styles]
        requests = "--\n".join(self._request("GET", one) for one in urls)
        return Probe({"list": script("list_bucket").reading(requests), "packages": ASK_PACKAGES})

    def plan(self, seen: Observation) -> Iterator[Change | Note]:
        if seen["list"].code == NO_PROGRAM:
            yield without_program(f"verify bucket {self.bucket}: list it", "curl")
            return
        problem = listing_problem(seen["list"], self)
        if problem is not None:
            raise problem
        version = gitlab_version(read_packages(seen["packages"])) or NEWEST
        uploads, deletion = self._checksums(version)
        record = self._fingerprint(seen, f"{uploads} {deletion}")
        if seen.record in (record, self._hash_of_version_1):
            return
        yield Change(
            f"verify bucket {self.bucket}: put, get and delete an object",
            self._check(uploads, deletion),
            "run",
            record=record,
            deadline=300,
            verification=True,
        )

    def _checksums(self, version: str) -> tuple[str, str]:
        """The algorithms that this version's driver uses: for uploads, and without those for deletions.

        GitLab 19.0 and 19.1 send a checksum when they delete, also if checksums are disabled; 19.2 and later send
        Content-MD5 then, and so does the driver before 19.0. Source: GitLab, "Upgrade notes", and the registry's v4.40.2.
        """
        numbers = tuple(int(one) for one in re.findall(r"\d+", version)[:2])
        if numbers < (19, 0):
            return "", "MD5"
        return self.checksum_algorithm, "MD5" if numbers >= (19, 2) else "CRC32"

    def _check(self, uploads: str, deletion: str) -> Command:
        from html import escape  # a check is rare

        key = "/".join(filter(None, [self.folder.strip("/"), _OBJECT]))
        objects = "".join(f"<Object><Key>{escape(key)}{part}</Key></Object>" for part in ("", "-parts", "-copy"))
        body = f'<Delete xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{objects}</Delete>'
        part = min(self.part_size, _LARGEST_PART)
        sums = [""] * 3
        if uploads:
            sums = [checksum(uploads, _TEXT), *(checksum_of_zeros(uploads, size) for size in (part, _SMALLEST_PART))]
        settings: list[str | int] = [self.bucket, quote(key, safe="/-_.~"), part, _SMALLEST_PART, uploads, *sums]
        headers = [_checksum_header(one, body.encode()) for one in (uploads or deletion, deletion)]
        command = script(
            "check_bucket", self.url.origin, self.url.path, *settings, *headers, "yes" if self.insecure else ""
        )
        signer = self._signer.for_host(datetime.datetime.now(datetime.UTC))
        proxy = reveal(self.proxy) or "\n\n"  # two lines
        return command.reading(signer + proxy + body)

    @property
    def _signer(self) -> Signer:
        return Signer(self.access_key, self.secret_key, self.region, self.session_token)

    def _request(self, method: str, url: str, body: str = "") -> str:
        now = datetime.datetime.now(datetime.UTC)
        config = curl_config(method, url, self._signer.headers(method, url, body.encode(), now), body)
        insecure = "insecure\n" if self.insecure else ""
        return config + insecure + reveal(self.proxy)

    @property
    def _hash_of_version_1(self) -> str:
        """The record of version 0.1.0, without a key. Only root reads it: the bucket is not verified again for it."""
        url = str(self._url(path_style=True))
        text = "\0".join([url, self.region, reveal(self.access_key), reveal(self.secret_key)])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def _fingerprint(self, seen: Observation, checksums: str) -> str:
        settings = [str(self.url), self.region, reveal(self.access_key), reveal(self.secret_key)]
        return fingerprint(seen.fingerprint_key, [*settings, self.folder, str(self.part_size), checksums])


def _checksum_header(algorithm: str, body: bytes) -> str:
    if algorithm == "MD5":
        return f"content-md5:{base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()}"
    return f"x-amz-checksum-{algorithm.lower()}:{checksum(algorithm, body)}"


_CAUSES: Final = {
    "NoSuchBucket": ("there is no bucket {bucket}", "create it, or correct registry.s3.bucket"),
    "InvalidAccessKeyId": ("the storage does not know the access key", "correct registry.s3.accesskey"),
    "SignatureDoesNotMatch": ("the secret key is wrong", "correct registry.s3.secretkey"),
    "RequestTimeTooSkewed": (
        "the clock of this machine, which signed the request, is wrong",
        "set it: timedatectl set-ntp true",
    ),
    "AuthorizationHeaderMalformed": ("the region is wrong", "correct registry.s3.region"),
    "PermanentRedirect": ("the bucket is in another region", "correct registry.s3.region or regionendpoint"),
    "AccessDenied": (
        "these keys may not list the bucket",
        "allow s3:ListBucket, GetObject, PutObject and DeleteObject",
    ),
}


def listing_problem(result: Result, wanted: S3Bucket) -> Refused | None:
    """The error that an answer to the listing means; None when the bucket can be listed."""
    text, other_style, _ = result.text.rstrip("\n").partition("\nother")
    body, _, code = text.rpartition("\n")
    where = f"S3 {wanted.url}"
    if other_style:
        here, there = ("path", "host's name") if wanted.has_path_style else ("host's name", "path")
        return Refused(
            f"{where}: the storage refuses addresses with the bucket's name in the {here}, and takes it in the {there}",
            hint=f"set registry.s3.pathstyle = {'false' if wanted.has_path_style else 'true'}",
        )
    if result.code in CURL_FAILURES:
        cause, remedy = CURL_FAILURES[result.code]
        return Refused(f"{where}: {cause}", hint=remedy)
    if result.code != 0:
        return Refused(f"{where}: {result.errors.strip()}", hint="try it on the host: curl -v")
    skew = clock_skew(result.errors)
    if abs(skew) > _SKEW_SECONDS:
        return Refused(
            f"{where}: the host's clock is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} the storage's, "
            "so the storage would refuse the registry's requests",
            hint="set it on the host: timedatectl set-ntp true",
        )
    if code == "200":
        return None
    for name, (cause, remedy) in _CAUSES.items():
        if f"<Code>{name}</Code>" in body:
            return Refused(f"{where}: {cause.format(bucket=wanted.bucket)} ({name})", hint=remedy)
    return Refused(f"{where}: HTTP {code} {mask(body)[:200]}", hint="check that the endpoint is S3")


def clock_skew(errors: str) -> float:
    """Seconds by which the host's clock is ahead of the server's, from `date +%s` and a Date header; 0 when one is missing."""
    lines = errors.splitlines()
    date = next((line.partition(":")[2].strip() for line in lines if line.lower().startswith("date:")), "")
    if not (lines and lines[0].isdigit() and date):
        return 0.0
    from email.utils import parsedate_to_datetime  # slow to import, and needed for S3 only

    try:
        return float(lines[0][:20]) - parsedate_to_datetime(date).timestamp()
    except (ValueError, TypeError, OverflowError):
        return 0.0
