"""Registry tokens: what GitLab allows, signed with the key that the registry trusts."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import time
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

LIFETIME = 300


def signed(key_file: str, issuer: str, subject: str, access: list[dict[str, Any]]) -> str:
    """A token that the registry accepts: RS256, named by the key's fingerprint."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding

    key, fingerprint = _key(key_file, Path(key_file).stat().st_mtime_ns)
    moment = int(time.time())
    claims = {
        "access": access,
        "jti": secrets.token_hex(16),
        "aud": "container_registry",
        "sub": subject,
        "iss": issuer,
        "iat": moment,
        "nbf": moment - 5,
        "exp": moment + LIFETIME,
    }
    header = {"typ": "JWT", "alg": "RS256", "kid": fingerprint}
    text = f"{_base64(json.dumps(header).encode())}.{_base64(json.dumps(claims).encode())}"
    return f"{text}.{_base64(key.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256()))}"


@cache
def _key(path: str, changed: int) -> tuple[RSAPrivateKey, str]:  # noqa: ARG001 - `changed` makes a new key a new entry
    """The private key and libtrust's fingerprint of its public half."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

    key = serialization.load_pem_private_key(Path(path).read_bytes(), None)
    if not isinstance(key, RSAPrivateKey):
        raise TypeError(f"{path} holds no RSA key")
    public = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    text = base64.b32encode(hashlib.sha256(public).digest()[:30]).decode()
    return key, ":".join(text[start : start + 4] for start in range(0, len(text), 4))


def _base64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
