"""Host certificates, and the list of revoked host keys.

A certificate is a host key that an authority has signed; `@cert-authority` lines of known_hosts name the authorities
that are trusted for a host. Format: OpenSSH's PROTOCOL.certkeys. Revoked keys: RevokedHostKeys in ssh_config(5).
"""

from __future__ import annotations

import base64
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    SSHCertificate,
    SSHCertificateType,
    SSHCertPublicKeyTypes,
    load_ssh_public_identity,
)

from provision.errors import HostKeyError

CERTIFICATE_SUFFIX = "-cert-v01@openssh.com"
# CASignatureAlgorithms of OpenSSH without those of hardware keys: no SHA-1.
_CA_SIGNATURES = frozenset(
    ["ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "rsa-sha2-256", "rsa-sha2-512"]
)
_KRL_MAGIC = b"SSHKRL\n\0"
_KEYGEN_TIMEOUT = 10.0  # seconds


class HostCertificate:
    """A certificate that a host presented. Raises ValueError for anything else.

    authority   the public key that signed it, in SSH's wire format
    """

    def __init__(self, blob: bytes) -> None:
        try:
            self._found = read_certificate(_public_line(blob))
            self.authority = wire_format(self._found.signature_key())
        except UnsupportedAlgorithm as error:
            raise ValueError(str(error) or "its algorithm is not supported") from error
        self._signed_with = _signature_type(blob)

    def refusal(self, host: str) -> str:
        """Why the certificate is not accepted for a host; "" if it is. `host`: its name in known_hosts, without a port."""
        found, now = self._found, time.time()
        if found.type is not SSHCertificateType.HOST:
            return "it is a user certificate"
        try:
            found.verify_cert_signature()
        except (InvalidSignature, ValueError, UnsupportedAlgorithm):
            return "its signature is not valid"
        if self._signed_with not in _CA_SIGNATURES:
            return f"its signature of type {self._signed_with} is not secure"
        if now < found.valid_after:
            return f"it is valid only from {_date(found.valid_after)} on"
        if now >= found.valid_before:
            return f"it expired on {_date(found.valid_before)}"
        names = [name.decode("utf-8", "replace") for name in found.valid_principals]
        if names and host not in names:
            return f"it is for {', '.join(names[:5])}"
        if found.critical_options:
            return "it has critical options, which a host certificate must not have"
        return ""


def read_certificate(line: bytes) -> SSHCertificate:
    """The certificate in the line of a `…-cert.pub` file. Raises ValueError, UnsupportedAlgorithm."""
    found = load_ssh_public_identity(line)
    if not isinstance(found, SSHCertificate):
        raise ValueError("it is not a certificate")
    return found


def wire_format(key: SSHCertPublicKeyTypes) -> bytes:
    """A public key in SSH's wire format."""
    return base64.b64decode(key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).split()[1])


def _public_line(blob: bytes) -> bytes:
    """A key or certificate as a line of a public key file."""
    return _first_string(blob) + b" " + base64.b64encode(blob)


def _first_string(blob: bytes) -> bytes:
    """The string that SSH's wire format begins with: the type of a key, certificate or signature."""
    return blob[4 : 4 + int.from_bytes(blob[:4], "big")]


def _signature_type(blob: bytes) -> str:
    """The algorithm of the signature at the end of a certificate."""
    position = 0

    def string() -> bytes:
        nonlocal position
        length = int.from_bytes(blob[position : position + 4], "big")
        position += 4 + length
        return blob[position - length : position]

    kind = string().removesuffix(CERTIFICATE_SUFFIX.encode())
    for _ in range(2 if kind == b"ssh-ed25519" else 3):  # nonce; public key: one string, or two for RSA and ECDSA
        string()
    position += 12  # serial, type
    for _ in range(2):  # key id, names
        string()
    position += 16  # validity
    for _ in range(4):  # critical options, extensions, reserved, authority
        string()
    return _first_string(string()).decode("ascii", "replace")


def _date(seconds: int) -> str:
    try:
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
    except (OverflowError, ValueError, OSError):
        return f"second {seconds}"


def is_revoked(file: Path, blobs: tuple[bytes, ...], label: str) -> bool:
    """Whether RevokedHostKeys lists one of these public keys or certificates, or the authority of a certificate.

    `file` is a text with one public key per line, or a KRL. Raises HostKeyError for a file that cannot be read: then no
    key is accepted, as in OpenSSH.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise _unusable(label, file, error.strerror or str(error)) from error
    if content.startswith(_KRL_MAGIC):
        return any(_in_krl(file, blob, label) for blob in blobs)
    return any(key in blobs for key in _keys_in(content))


def _keys_in(content: bytes) -> list[bytes]:
    keys = []
    for line in content.splitlines():
        for field in () if line.lstrip().startswith(b"#") else line.split():
            try:
                blob = base64.b64decode(field, validate=True)
            except ValueError:
                continue
            if len(blob) > 4:
                keys.append(blob)
                break
    return keys


def _in_krl(file: Path, blob: bytes, label: str) -> bool:
    program = shutil.which("ssh-keygen")
    if program is None:
        raise _unusable(label, file, "it is a KRL, and ssh-keygen is not installed")
    with tempfile.NamedTemporaryFile(suffix=".pub") as key:
        key.write(_public_line(blob) + b"\n")
        key.flush()
        command = [program, "-Q", "-f", str(file), key.name]
        answer = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_KEYGEN_TIMEOUT)
    if answer.returncode == 0:
        return False
    if b"REVOKED" in answer.stdout:
        return True
    raise _unusable(label, file, answer.stderr.decode("utf-8", "replace").strip() or "ssh-keygen failed")


def _unusable(label: str, file: Path, reason: str) -> HostKeyError:
    return HostKeyError(
        f"{label}: the list of revoked host keys {file} cannot be read ({reason})",
        hint="RevokedHostKeys in ~/.ssh/config names it; without the list no host key is accepted",
    )
