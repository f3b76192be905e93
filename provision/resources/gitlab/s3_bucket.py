"""The registry's bucket, checked from the GitLab host.

Requests are signed here and sent by curl there, which reads their headers on its standard input: nothing is installed for
it. The observation lists one object; the verification puts, gets and deletes one. Source: Amazon S3's REST API.
"""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from provision.errors import Refused
from provision.formats.sigv4 import Signer, curl_config
from provision.host.curl import FAILURES, NO_PROGRAM
from provision.host.scripts import script
from provision.host.state import fingerprint
from provision.resources.base import Change, Note, Observation, Probe, Resource, without_program
from provision.secret import Secret, mask, reveal
from provision.shell import Result
from provision.url import Url

_OBJECT: Final = "provision-probe"
_SKEW_SECONDS: Final = 300  # S3 refuses requests that are 15 minutes off; a clock that is 5 minutes off will get worse


@dataclass(frozen=True)
class S3Bucket(Resource):
    """A bucket exists, and these keys may list it, and put, get and delete its objects.

    endpoint  of the storage; None: Amazon's own in the region
    With an IAM role instead of keys only the registry itself can use the bucket: there is no resource then.
    """

    bucket: str
    region: str
    endpoint: Url | None
    access_key: str | Secret
    secret_key: str | Secret
    session_token: str | Secret = ""

    @property
    def label(self) -> str:
        return f"S3Bucket {self.bucket}"

    @property
    def record_key(self) -> str:
        return "s3"

    @property
    def url(self) -> Url:
        """The bucket's URL, path style."""
        return (self.endpoint or Url.parse(f"https://s3.{self.region}.amazonaws.com")) / self.bucket

    def probe(self) -> Probe:
        ask = script("list_bucket").reading(self._request("GET", f"{self.url}?list-type=2&max-keys=1"))
        return Probe({"list": ask})

    def plan(self, seen: Observation) -> Iterator[Change | Note]:
        if seen["list"].code == NO_PROGRAM:
            yield without_program(f"verify bucket {self.bucket}: list it", "curl")
            return
        problem = listing_problem(seen["list"], self)
        if problem is not None:
            raise problem
        record = self._fingerprint(seen)
        if seen.record in (record, self._hash_of_version_1):
            return
        target = f"{self.url}/{_OBJECT}"
        requests = [
            self._request("PUT", target, "provision"),
            self._request("GET", target),
            self._request("DELETE", target),
        ]
        yield Change(
            f"verify bucket {self.bucket}: put, get and delete an object",
            script("check_bucket").reading("".join(f"{one}--\n" for one in requests)),
            "run",
            record=record,
            deadline=90,
            verification=True,
        )

    def _request(self, method: str, url: str, body: str = "") -> str:
        signer = Signer(self.access_key, self.secret_key, self.region, self.session_token)
        now = datetime.datetime.now(datetime.UTC)
        return curl_config(method, url, signer.headers(method, url, body.encode(), now), body)

    @property
    def _hash_of_version_1(self) -> str:
        """The record of version 0.1.0, without a key. Only root reads it: the bucket is not verified again for it."""
        text = "\0".join([str(self.url), self.region, reveal(self.access_key), reveal(self.secret_key)])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def _fingerprint(self, seen: Observation) -> str:
        settings = [str(self.url), self.region, reveal(self.access_key), reveal(self.secret_key)]
        return fingerprint(seen.fingerprint_key, settings)


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
    body, _, code = result.text.rstrip("\n").rpartition("\n")
    where = f"S3 {wanted.url}"
    if result.code in FAILURES:
        cause, remedy = FAILURES[result.code]
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
