"""The registry's bucket can be reached and used from the GitLab host.

Requests are signed here and sent by curl there, headers and all on its standard input: nothing is installed for it. Looking lists one object; the proof puts, gets and deletes one.
"""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from provision.errors import NotReady, Refused
from provision.formats.sigv4 import Signer, curl_config
from provision.host.curl import FAILURES
from provision.host.scripts import script
from provision.resources.base import Change, Note, Observation, Probe, Resource
from provision.secret import Secret, reveal
from provision.shell import Command, Result
from provision.url import Url

_PROBE_KEY = "provision-probe"
# The host's time and the answer's headers go to stderr: the registry signs by the host's clock.
_LOOK = "date +%s >&2; curl -D /dev/stderr -K - -w '\\n%{http_code}\\n'"
_SKEW_SECONDS = 300  # S3 refuses requests that are 15 minutes off; from 5 on it is a matter of time


@dataclass(frozen=True)
class S3Bucket(Resource):
    """A bucket that these keys may list, put to, get from and delete from.

    endpoint  None is Amazon's own of the region
    Without keys (IAM) only the registry itself can tell: nothing is asked.
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
        """The bucket's address, path style."""
        return (self.endpoint or Url.parse(f"https://s3.{self.region}.amazonaws.com")) / self.bucket

    def probe(self) -> Probe:
        look = Command(_LOOK).reading(self._request("GET", f"{self.url}?list-type=2&max-keys=1"))
        return Probe({"list": look})

    def plan(self, seen: Observation) -> Iterator[Change | Note]:
        problem = diagnose(seen["list"], self)
        if problem is not None:
            raise problem
        if seen.record == self._fingerprint():
            return
        target = f"{self.url}/{_PROBE_KEY}"
        requests = [
            self._request("PUT", target, "provision"),
            self._request("GET", target),
            self._request("DELETE", target),
        ]
        prove = script("check_bucket").reading("".join(f"{one}--\n" for one in requests))
        yield Change(
            f"prove bucket {self.bucket}: put, get and delete an object",
            prove,
            "run",
            record=self._fingerprint(),
            deadline=90,
            verification=True,
        )

    def _request(self, method: str, url: str, body: str = "") -> str:
        signer = Signer(self.access_key, self.secret_key, self.region, self.session_token)
        now = datetime.datetime.now(datetime.UTC)
        return curl_config(method, url, signer.headers(method, url, body.encode(), now), body)

    def _fingerprint(self) -> str:
        # The secret key is long and random, so its digest tells nothing.
        text = "\0".join([str(self.url), self.region, reveal(self.access_key), reveal(self.secret_key)])
        return hashlib.sha256(text.encode()).hexdigest()[:16]


_CAUSES = {
    "NoSuchBucket": ("there is no bucket {bucket}", "create it, or correct registry.s3.bucket"),
    "InvalidAccessKeyId": ("the access key is not known there", "correct registry.s3.accesskey"),
    "SignatureDoesNotMatch": ("the secret key is wrong", "correct registry.s3.secretkey"),
    "RequestTimeTooSkewed": (
        "this machine's clock is off, which signed the request",
        "set it right: timedatectl set-ntp true",
    ),
    "AuthorizationHeaderMalformed": ("the region is wrong", "correct registry.s3.region"),
    "PermanentRedirect": ("the bucket is in another region", "correct registry.s3.region or regionendpoint"),
    "AccessDenied": (
        "these keys may not list the bucket",
        "allow s3:ListBucket, GetObject, PutObject and DeleteObject",
    ),
}


def diagnose(result: Result, wanted: S3Bucket) -> Refused | NotReady | None:
    """What a listing's answer means; None when the bucket can be listed."""
    body, _, code = result.text.rstrip("\n").rpartition("\n")
    where = f"S3 {wanted.url}"
    if result.code in FAILURES:
        cause, remedy = FAILURES[result.code]
        return Refused(f"{where}: {cause}", hint=remedy)
    if result.code == 127:
        return NotReady(f"{where}: curl is not on the host", hint="apt-get install curl")
    if result.code != 0:
        return Refused(f"{where}: {result.errors.strip()}", hint="try the same from the host with curl -v")
    skew = clock_skew(result.errors)
    if abs(skew) > _SKEW_SECONDS:
        return Refused(
            f"{where}: the host's clock is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} the storage's, "
            "so that requests of the registry would be refused",
            hint="set it right on the host: timedatectl set-ntp true",
        )
    if code == "200":
        return None
    for name, (cause, remedy) in _CAUSES.items():
        if f"<Code>{name}</Code>" in body:
            return Refused(f"{where}: {cause.format(bucket=wanted.bucket)} ({name})", hint=remedy)
    return Refused(f"{where}: HTTP {code} {body[:200]}", hint="is it S3 that answers there?")


def clock_skew(errors: str) -> float:
    """Seconds by which the host is ahead of the server, from `date +%s` and a Date header; 0 when one is missing."""
    lines = errors.splitlines()
    date = next((line.partition(":")[2].strip() for line in lines if line.lower().startswith("date:")), "")
    if not (lines and lines[0].isdigit() and date):
        return 0.0
    from email.utils import parsedate_to_datetime  # costs a start-up that hosts without S3 need not pay

    try:
        return float(lines[0]) - parsedate_to_datetime(date).timestamp()
    except ValueError:
        return 0.0
