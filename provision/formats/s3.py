"""Requests to S3 that curl on a host sends: AWS Signature Version 4, and the checksums of uploads.

Source: AWS, "Create a signed AWS API request"; "Checking object integrity"; NVM Express, NVM Command Set, "64b CRC".

curl can sign requests (`--aws-sigv4`), but up to 7.88 at least it leaves out the header x-amz-content-sha256, which S3
requires (seen with 7.88.1). So a request is signed here. Where requests depend on earlier answers, the host signs them with
a key of the day. The secret key does not reach the host in either case.

The checksums are in base64, as GitLab's registry sends them with everything that it uploads. CRC32, CRC32C and CRC64NVME are
reflected CRCs that begin and end with all bits inverted.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import hmac
from collections.abc import Mapping
from functools import cache
from typing import Final, NamedTuple
from urllib.parse import parse_qsl, quote

from provision.secret import Secret, reveal
from provision.url import Url

_ROUNDING_SECONDS: Final = 300  # equal requests of one run have equal signatures; S3 accepts them for 15 minutes
_POLYNOMIALS: Final = {
    "CRC32": (32, 0xEDB88320),
    "CRC32C": (32, 0x82F63B78),
    "CRC64NVME": (64, 0x9A6C9329AC4BC9B5),
}
_BLOCK: Final = 1 << 20


class Signer(NamedTuple):
    """The keys and the region of one S3 endpoint. `session_token` belongs to temporary keys."""

    access_key: str | Secret
    secret_key: str | Secret
    region: str
    session_token: str | Secret = ""

    def for_host(self, now: datetime.datetime) -> str:
        """Return the first six lines for `use_s3` of lib/s3.sh, with which a host signs requests that depend on earlier answers.

        access key, session token or nothing, scope, time, and the two blocks of HMAC (RFC 2104) with the key that signs.
        This key is derived from the secret key for one day, region and service; the secret key does not follow from it.
        """
        stamp, day = _time_of(now)
        key = self._key(day).ljust(64, b"\0")
        blocks = ["".join(f"\\{byte ^ mask:03o}" for byte in key) for mask in (0x36, 0x5C)]
        given = [reveal(self.access_key), reveal(self.session_token), f"{day}/{self.region}/s3/aws4_request", stamp]
        return "".join(f"{line}\n" for line in [*given, *blocks])

    def headers(self, method: str, url: str, body: bytes, now: datetime.datetime) -> dict[str, str]:
        """Return the headers to send with the request. They hold a signature, not the key."""
        stamp, day = _time_of(now)
        parts = Url.parse(url, request=True)
        signed = {
            "host": parts.authority,
            "x-amz-content-sha256": hashlib.sha256(body).hexdigest(),
            "x-amz-date": stamp,
        }
        if self.session_token:
            signed["x-amz-security-token"] = reveal(self.session_token)
        query = "&".join(
            f"{quote(key, safe='')}={quote(value, safe='')}" for key, value in sorted(parse_qsl(parts.query))
        )
        names = ";".join(sorted(signed))
        canonical = "\n".join(
            [
                method,
                parts.path or "/",
                query,
                *(f"{name}:{signed[name]}" for name in sorted(signed)),
                "",
                names,
                signed["x-amz-content-sha256"],
            ]
        )
        scope = f"{day}/{self.region}/s3/aws4_request"
        text = "\n".join(["AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256(canonical.encode()).hexdigest()])
        signature = hmac.new(self._key(day), text.encode(), hashlib.sha256).hexdigest()
        signed["authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={reveal(self.access_key)}/{scope}, SignedHeaders={names}, Signature={signature}"
        )
        return signed

    def _key(self, day: str) -> bytes:
        key = f"AWS4{reveal(self.secret_key)}".encode()
        for part in (day, self.region, "s3", "aws4_request"):
            key = hmac.new(key, part.encode(), hashlib.sha256).digest()
        return key


def _time_of(now: datetime.datetime) -> tuple[str, str]:
    """The time of a signature, and its day."""
    moment = datetime.datetime.fromtimestamp(now.timestamp() // _ROUNDING_SECONDS * _ROUNDING_SECONDS, datetime.UTC)
    return f"{moment:%Y%m%dT%H%M%SZ}", f"{moment:%Y%m%d}"


def curl_config(method: str, url: str, headers: Mapping[str, str], body: str = "") -> str:
    """Return a configuration for `curl -K -` that sends the request."""
    lines = [
        f'request = "{method}"',
        f'url = "{url}"',
        *(f'header = "{name}: {value}"' for name, value in headers.items()),
    ]
    if body:
        lines += [f'data-binary = "{body}"', 'header = "content-type: application/octet-stream"']
    return "\n".join(["silent", "show-error", "connect-timeout = 10", "max-time = 20", *lines, ""])


def checksum(algorithm: str, content: bytes) -> str:
    """The checksum of `content`, which should be short. Raises KeyError or ValueError for an unknown algorithm."""
    if algorithm not in _POLYNOMIALS:
        return _base64(hashlib.new(algorithm, content).digest())
    width, polynomial = _POLYNOMIALS[algorithm]
    state = (1 << width) - 1
    for byte in content:
        state = _next(state ^ byte, polynomial)
    return _finished(state, width)


@cache
def checksum_of_zeros(algorithm: str, size: int) -> str:
    """The checksum of `size` zero bytes. Raises KeyError or ValueError for an unknown algorithm."""
    if algorithm not in _POLYNOMIALS:
        digest = hashlib.new(algorithm)
        for start in range(0, size, _BLOCK):
            digest.update(bytes(min(_BLOCK, size - start)))
        return _base64(digest.digest())
    width, polynomial = _POLYNOMIALS[algorithm]
    state = (1 << width) - 1
    # One zero byte is a linear function of the state; the function of twice as many is its square.
    power = [_next(1 << bit, polynomial) for bit in range(width)]
    while size:
        if size & 1:
            state = _applied(power, state)
        power = [_applied(power, column) for column in power]
        size >>= 1
    return _finished(state, width)


def _next(state: int, polynomial: int) -> int:
    for _ in range(8):
        state = state >> 1 ^ (polynomial if state & 1 else 0)
    return state


def _applied(columns: list[int], state: int) -> int:
    result = 0
    for bit, column in enumerate(columns):
        if state >> bit & 1:
            result ^= column
    return result


def _finished(state: int, width: int) -> str:
    return _base64((state ^ (1 << width) - 1).to_bytes(width // 8, "big"))


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()
