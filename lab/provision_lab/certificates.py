"""The lab's certificate authority and the certificates that it signs, made with `cryptography`."""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.hashes import SHA256

_DAY = datetime.timedelta(days=1)


@dataclass(frozen=True)
class Pair:
    """A certificate (its chain, leaf first) and its private key, both PEM."""

    fullchain: str
    key: str


class Authority:
    """A private certificate authority, as companies have."""

    def __init__(self, name: str = "provision lab CA") -> None:
        self._key = _new_key()
        subject = _name(name)
        self._certificate = _builder(subject, subject, self._key, days=365, ca=True).sign(self._key, _sha256())

    @classmethod
    def load(cls, folder: Path) -> Authority:
        """The authority whose certificate and key are ca.pem and ca.key in a folder."""
        from cryptography import x509
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        authority = cls.__new__(cls)
        authority._certificate = x509.load_pem_x509_certificate(folder.joinpath("ca.pem").read_bytes())
        key = load_pem_private_key(folder.joinpath("ca.key").read_bytes(), None)
        authority._key = cast("EllipticCurvePrivateKey", key)
        return authority

    @property
    def certificate(self) -> str:
        """The CA's own certificate, PEM, for its consumers to trust."""
        return _pem(self._certificate)

    @property
    def key(self) -> str:
        """The CA's private key, PEM."""
        return _pem_key(self._key)

    def issue(self, names: list[str], addresses: list[str], *, days: int = 90, start: int = 0) -> Pair:
        """A server's certificate for these DNS names and IP addresses, valid `days` days from `start` days from now."""
        from cryptography import x509
        from cryptography.x509.oid import ExtendedKeyUsageOID

        key = _new_key()
        alternatives: list[x509.GeneralName] = [x509.DNSName(name) for name in names]
        alternatives += [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]
        builder = _builder(_name((names or addresses)[0]), self._certificate.subject, key, days=days, start=start)
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        leaf = builder.add_extension(issuer, critical=False).sign(self._key, _sha256())
        return Pair(_pem(leaf) + self.certificate, _pem_key(key))


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: EllipticCurvePrivateKey,
    *,
    days: int,
    start: int = 0,
    ca: bool = False,
) -> x509.CertificateBuilder:
    from cryptography import x509

    begins = datetime.datetime.now(datetime.UTC) + start * _DAY - datetime.timedelta(hours=1)
    usage = x509.KeyUsage(not ca, False, False, False, False, ca, ca, False, False)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(begins + days * _DAY)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _new_key() -> EllipticCurvePrivateKey:
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.generate_private_key(ec.SECP256R1())


def _sha256() -> SHA256:
    from cryptography.hazmat.primitives import hashes

    return hashes.SHA256()


def _name(common_name: str) -> x509.Name:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _pem(certificate: x509.Certificate) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding

    return certificate.public_bytes(Encoding.PEM).decode()


def _pem_key(key: EllipticCurvePrivateKey) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
