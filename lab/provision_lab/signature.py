"""AWS Signature Version 4 of a request, checked on the server's side.

Source: the AWS General Reference, "Create a signed AWS API request"; S3's errors by their own codes.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Any
from urllib.parse import parse_qsl, quote, unquote

_ALGORITHM = "AWS4-HMAC-SHA256"


class BadSignature(Exception):
    """The request is not signed by the holder of the secret key; `code` is S3's word for it."""

    def __init__(self, code: str, text: str, status: str = "403 Forbidden") -> None:
        super().__init__(text)
        self.code, self.status = code, status


def verify(environ: dict[str, Any], access_key: str, secret_key: str) -> None:
    """Raises BadSignature unless the WSGI request is signed with this pair, in its header or its query."""
    query = parse_qsl(environ.get("QUERY_STRING", ""), keep_blank_values=True)
    fields = {"Date": environ.get("HTTP_X_AMZ_DATE", "")} | _fields(environ.get("HTTP_AUTHORIZATION", ""), dict(query))
    credential, _, scope = fields["Credential"].partition("/")
    if credential != access_key:
        raise BadSignature("InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records.")
    names = fields["SignedHeaders"].split(";")
    headers = "".join(f"{name}:{_header(environ, name)}\n" for name in names)
    path = quote(unquote(environ.get("REQUEST_URI", environ.get("RAW_URI", "/")).partition("?")[0]), safe="/-_.~")
    signed = sorted((_escape(k), _escape(v)) for k, v in query if k != "X-Amz-Signature")
    pairs = "&".join(f"{key}={value}" for key, value in signed)
    payload = _payload(environ)
    request = "\n".join((environ["REQUEST_METHOD"], path, pairs, headers, ";".join(names), payload))
    hashed = hashlib.sha256(request.encode()).hexdigest()
    text = "\n".join((_ALGORITHM, fields["Date"], scope, hashed))
    key = f"AWS4{secret_key}".encode()
    for part in (*scope.split("/"), text):
        key = hmac.digest(key, part.encode(), "sha256")
    if not hmac.compare_digest(key.hex(), fields["Signature"]):
        text = "The request signature we calculated does not match the signature you provided. Check your key and signing method."
        raise BadSignature("SignatureDoesNotMatch", text)


def _payload(environ: dict[str, Any]) -> str:
    """What stands for the body. S3 insists on the header, unless the query holds the signature."""
    given = environ.get("HTTP_X_AMZ_CONTENT_SHA256")
    if given is None and environ.get("HTTP_AUTHORIZATION"):
        text = "Missing required header for this request: x-amz-content-sha256"
        raise BadSignature("InvalidRequest", text, "400 Bad Request")
    return given or "UNSIGNED-PAYLOAD"


def _fields(authorization: str, query: dict[str, str]) -> dict[str, str]:
    if "X-Amz-Signature" in query:
        names = ("Credential", "SignedHeaders", "Signature", "Date")
        return {name: query.get(f"X-Amz-{name}", "") for name in names}
    algorithm, _, rest = authorization.partition(" ")
    fields = dict(part.strip().split("=", 1) for part in rest.split(",") if "=" in part)
    if algorithm != _ALGORITHM or not fields.keys() >= {"Credential", "SignedHeaders", "Signature"}:
        raise BadSignature("AccessDenied", "Access Denied")
    return fields


def _header(environ: dict[str, Any], name: str) -> str:
    key = name.upper().replace("-", "_")
    value = environ.get(key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}", "")
    return " ".join(str(value).split())


def _escape(text: str) -> str:
    return quote(text, safe="-_.~")
