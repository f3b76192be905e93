"""X.509 certificates: whether a chain matches its key and a host name.  Sources: RFC 5280, RFC 6125."""

from __future__ import annotations

import datetime
import ipaddress
import itertools
import re
from typing import TYPE_CHECKING, Final

from provision.errors import Refused
from provision.secret import Secret

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

EXPIRES_SOON: Final = datetime.timedelta(days=21)
NO_PASSPHRASE: Final = "nginx cannot ask for a passphrase: openssl pkey -in OLD -out NEW removes it"
_PEM: Final = re.compile(rb"-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----", re.DOTALL)


def certificates_in(text: bytes) -> list[bytes]:
    """The PEM certificates in a text, without spaces and line ends: equal certificates are equal bytes."""
    return [b"".join(body.split()) for body in _PEM.findall(text)]


def check_pair(fullchain: bytes, key: Secret, host: str) -> datetime.timedelta:
    """The time until a chain expires, given its private key in PEM. Raises Refused for a pair that `host` cannot use."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

    try:
        private = load_pem_private_key(key.reveal().encode(), None)
    except TypeError as error:
        raise Refused("the key has a passphrase", hint=NO_PASSPHRASE) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise Refused(
            "the key is not a private key in PEM", hint="it begins with -----BEGIN PRIVATE KEY-----"
        ) from error
    public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return check_chain(fullchain, public, host, datetime.datetime.now(datetime.UTC))


def check_chain(fullchain: bytes, public_key: bytes, host: str, now: datetime.datetime) -> datetime.timedelta:
    """The time until the first certificate of a chain expires. Raises Refused with the first fault.

    public_key  the public half of the pair's key, in PEM
    """
    from cryptography.x509 import load_pem_x509_certificates

    try:
        chain = load_pem_x509_certificates(fullchain)
    except ValueError as error:
        raise Refused(
            f"holds no PEM certificate: {error}", hint="give the chain as PEM, the host's own certificate first"
        ) from error
    leaf = chain[0]
    if _public(leaf).split() != public_key.split():
        others = [position for position, one in enumerate(chain, 1) if _public(one).split() == public_key.split()]
        if others:
            raise Refused(
                f"the chain is out of order: the key belongs to certificate {others[0]} of {len(chain)}",
                hint="put the host's own certificate first, then the one that signed it, and so on",
            )
        raise Refused(
            "the key does not belong to the certificate", hint="give the key that this certificate was issued for"
        )
    for lower, upper in itertools.pairwise(chain):
        if not _is_signed(lower, upper):
            raise Refused(
                f"the chain is out of order: {lower.subject.rfc4514_string()} is signed by {lower.issuer.rfc4514_string()}, "
                f"and {upper.subject.rfc4514_string()} follows",
                hint="put the host's own certificate first, then the one that signed it, and so on",
            )
    if not _names_host(leaf, host):
        raise Refused(
            f"is not for {host}: it names {', '.join(_names(leaf)) or 'no host'}", hint=f"get one that names {host}"
        )
    if leaf.not_valid_before_utc > now:
        raise Refused(f"is not valid before {leaf.not_valid_before_utc:%F %T} UTC", hint="check the clocks, or wait")
    for one in chain:
        if one.not_valid_after_utc <= now:
            raise Refused(
                f"expired on {one.not_valid_after_utc:%F} ({one.subject.rfc4514_string()})",
                hint="renew it, then rerun the command",
            )
    return min(one.not_valid_after_utc for one in chain) - now


def signer_missing(fullchain: bytes, ca: bytes) -> str:
    """A warning if no certificate in `ca` signed the chain or is part of it; "" otherwise, and without `ca`."""
    from cryptography.x509 import load_pem_x509_certificates

    if not ca:
        return ""
    chain, authorities = load_pem_x509_certificates(fullchain), load_pem_x509_certificates(ca)
    if any(one == authority or _is_signed(one, authority) for one in chain for authority in authorities):
        return ""
    issuer = chain[-1].issuer.rfc4514_string()
    return f"it is signed by {issuer}, which is not in registry.certificate.ca: clients may not trust it"


def overdue_days(fullchain: bytes) -> int | None:
    """The days until the certificate expires, if less than a fifth of its validity is left; otherwise None."""
    from cryptography.x509 import load_pem_x509_certificate

    try:
        leaf = load_pem_x509_certificate(fullchain)
    except ValueError:
        return None
    left = leaf.not_valid_after_utc - datetime.datetime.now(datetime.UTC)
    overdue = left < (leaf.not_valid_after_utc - leaf.not_valid_before_utc) / 5
    return max(left.days, 0) if overdue else None


def _is_signed(certificate: Certificate, authority: Certificate) -> bool:
    from cryptography.exceptions import InvalidSignature

    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _public(certificate: Certificate) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return certificate.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def _names(certificate: Certificate) -> list[str]:
    from cryptography.x509 import DNSName, ExtensionNotFound, IPAddress, SubjectAlternativeName

    try:
        names = certificate.extensions.get_extension_for_class(SubjectAlternativeName).value
    except ExtensionNotFound:
        return []
    return [*names.get_values_for_type(DNSName), *(str(one) for one in names.get_values_for_type(IPAddress))]


def _names_host(certificate: Certificate, host: str) -> bool:
    names = _names(certificate)
    try:
        return str(ipaddress.ip_address(host)) in names
    except ValueError:
        parent = host.lower().partition(".")[2]
        return any(one.lower() in (host.lower(), f"*.{parent}") for one in names)
