"""The key pair with which GitLab signs the registry's tokens, and other secrets made once."""

from __future__ import annotations

import datetime
import secrets
import string
from pathlib import Path

from .paths import write_atomically


def ensure_token_keys(certificate: Path, key: Path) -> bool:
    """Makes the pair unless it is there; true when it was made."""
    if certificate.exists() and key.exists():
        return False
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.x509.oid import NameOID

    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Registry")])
    now = datetime.datetime.now(datetime.UTC).replace(tzinfo=None)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=3650))
        .sign(private, hashes.SHA256())
    )
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    write_atomically(key, pem.decode(), 0o600)
    write_atomically(certificate, signed.public_bytes(serialization.Encoding.PEM).decode(), 0o644)
    return True


def ensure_secret(path: Path) -> str:
    """A random text kept in a file of its own."""
    if not path.exists():
        write_atomically(path, secrets.token_hex(64), 0o600)
    return path.read_text()


def random_password() -> str:
    """A password as the package makes for root."""
    letters = string.ascii_letters + string.digits + "+/"
    return "".join(secrets.choice(letters) for _ in range(43)) + "="
