"""X.509 certificates: whether a chain matches its key and a host name.  Sources: RFC 5280, RFC 6125."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from provision.errors import Refused
from provision.secret import Secret

if TYPE_CHECKING:
    from cryptography.x509 import Certificate, Name

EXPIRES_SOON: Final = datetime.timedelta(days=21)
_BEGIN: Final = re.compile(rb"BEGIN (?:X509 |TRUSTED )?CERTIFICATE-")
_CHAIN: Final = "give the chain as PEM, the host's own certificate first"
_LINES: Final = "each -----BEGIN … and -----END … is a line of its own, without spaces before it; `cat` joins files without a line break at their end"
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


def read_chain(pem: bytes, hint: str = _CHAIN) -> list[Certificate]:
    """The certificates in a PEM text, all of them readable for OpenSSL and so for nginx, curl and Docker. Raises Refused.

    OpenSSL finds a certificate only where its first and last line are lines of their own, and stops without an error
    at text that it does not know. So a chain whose parts were joined without a line break is cut off.

    hint  the next step for a text without certificates
    """
    from cryptography.x509 import load_der_x509_certificate, load_pem_x509_certificates

    if pem[:1] == b"0":  # an ASN.1 sequence
        with contextlib.suppress(ValueError):
            load_der_x509_certificate(pem)
            text = "holds no PEM certificate, but one in DER"
            raise Refused(text, hint="convert it: openssl x509 -inform der -in OLD -out NEW.pem")
    pem = pem.removeprefix(b"\xef\xbb\xbf")  # OpenSSL 3 skips it too
    try:
        chain = load_pem_x509_certificates(pem)
    except ValueError as error:
        reason = str(error).partition(". See ")[0]
        raise Refused(f"holds no PEM certificate: {reason}", hint=hint) from error
    readable = _read_by_openssl(pem)
    twice = len(chain) - len(set(chain))
    if readable + twice != (count := len(_BEGIN.findall(pem))):
        raise Refused(f"OpenSSL reads {readable + twice} of its {count} certificates, and so does nginx", hint=_LINES)
    return chain


def _read_by_openssl(pem: bytes) -> int:
    """How many different certificates OpenSSL finds in a PEM text. Raises Refused where it finds none."""
    import ssl  # few inventories have a certificate

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cadata=pem.decode("ascii", "replace").replace("\ufffd", "?"))
    except ssl.SSLError as error:
        # Python has no reason where OpenSSL found no certificate: it read past the first one.
        reason = f" ({error.reason.lower().replace('_', ' ')})" if error.reason else ""
        raise Refused(f"OpenSSL cannot read it{reason}, and so nginx cannot", hint=_LINES) from error
    return context.cert_store_stats()["x509"]


@lru_cache(maxsize=16)  # each host of the inventory has the same CA
def check_certificates(pem: bytes) -> None:
    """Raises Refused for a file that programs cannot read certificates from, such as those of a CA."""
    # A file that OpenSSL reads completely is valid. For any other one, `read_chain` finds the reason: it imports
    # cryptography's X.509, which takes 20 ms.
    with contextlib.suppress(Refused, ValueError):  # ValueError: the text is empty
        if _read_by_openssl(pem) == len(_BEGIN.findall(pem)) == pem.count(b"-----BEGIN CERTIFICATE-----"):
            return
    read_chain(pem, "give the certificates as PEM")


def check_chain(fullchain: bytes, public_key: bytes, host: str, now: datetime.datetime) -> datetime.timedelta:
    """The time until the first certificate of a chain expires. Raises Refused with the first fault.

    A certificate may occur twice, and the signer's in several versions, each signed by another authority: clients take
    the one that they can use.

    public_key  the public half of the pair's key, in PEM
    """
    from cryptography.exceptions import UnsupportedAlgorithm

    chain = read_chain(fullchain)
    try:
        # Parts of a certificate are read when they are needed.
        return _check_chain(chain, public_key, host, now)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise Refused(
            f"has a certificate that cannot be read: {error}",
            hint="check it with openssl x509 -text, and get another one",
        ) from error


def _check_chain(chain: list[Certificate], public_key: bytes, host: str, now: datetime.datetime) -> datetime.timedelta:
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
    for place, upper in enumerate(chain[1:], 1):
        if upper not in chain[:place] and not any(_is_signed(lower, upper) for lower in chain[:place]):
            lower = chain[place - 1]
            raise Refused(
                f"the chain is out of order: {lower.subject.rfc4514_string()} is signed by {lower.issuer.rfc4514_string()}, "
                f"and {upper.subject.rfc4514_string()} follows",
                hint="put the host's own certificate first, then the one that signed it, and so on",
            )
    if not _names_host(leaf, host):
        raise Refused(f"is not for {host}: {_named(leaf)}", hint=f"get one that names {host}")
    if leaf.not_valid_before_utc > now:
        raise Refused(f"is not valid before {leaf.not_valid_before_utc:%F %T} UTC", hint="check the clocks, or wait")
    ends = []
    for versions in _versions(chain):
        usable = [one for one in versions if _serves(one)]
        if not usable:
            subject = versions[0].subject.rfc4514_string()
            raise Refused(
                f"is not for servers: the extended key usage of {subject} is {', '.join(_usages(versions[0]) or ())}, "
                "and clients refuse it (Docker: incompatible key usage)",
                hint="get one with the extended key usage serverAuth",
            )
        last = max(usable, key=lambda one: one.not_valid_after_utc)
        if last.not_valid_after_utc <= now:
            raise Refused(
                f"expired on {last.not_valid_after_utc:%F} ({last.subject.rfc4514_string()})",
                hint="renew it, then rerun the command",
            )
        ends.append(last.not_valid_after_utc)
    return min(ends) - now


def _versions(chain: list[Certificate]) -> list[list[Certificate]]:
    """The certificates by subject and key: those of one authority, signed by several others, are together."""
    found: dict[tuple[Name, bytes], list[Certificate]] = {}
    for one in chain:
        found.setdefault((one.subject, _public(one)), []).append(one)
    return list(found.values())


def _usages(certificate: Certificate) -> list[str] | None:
    """The names of the extended key usages; None for a certificate that may be used for everything."""
    from cryptography.x509 import ExtendedKeyUsage, ExtensionNotFound

    try:
        usages = certificate.extensions.get_extension_for_class(ExtendedKeyUsage).value
    except ExtensionNotFound:
        return None
    return [one._name if one._name != "Unknown OID" else one.dotted_string for one in usages]


def _serves(certificate: Certificate) -> bool:
    """Whether a TLS server may use a certificate, or one that it signed.  Source: RFC 5280, section 4.2.1.12."""
    usages = _usages(certificate)
    return usages is None or not {"serverAuth", "anyExtendedKeyUsage"}.isdisjoint(usages)


def _named(leaf: Certificate) -> str:
    """What a certificate names, for a message."""
    from cryptography.x509.oid import NameOID

    if names := _names(leaf):
        return f"it names {', '.join(names)}"
    common = [str(one.value) for one in leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    if not common:
        return "it names no host"
    return f"only its common name (CN) names {common[0]}, and clients look at the subjectAltName alone"


def signer_missing(fullchain: bytes, ca: bytes) -> str:
    """A warning if no certificate in `ca` signed the chain or is part of it; "" otherwise, and without `ca`."""
    if not ca:
        return ""
    chain, authorities = read_chain(fullchain), read_chain(ca)
    if any(one == authority or _is_signed(one, authority) for one in chain for authority in authorities):
        return ""
    issuer = chain[-1].issuer.rfc4514_string()
    return f"it is signed by {issuer}, which is not in registry.certificate.ca: clients may not trust it"


def overdue_days(fullchain: bytes) -> int | None:
    """The days until the certificate expires, if less than a fifth of its validity is left; otherwise None."""
    from cryptography.x509 import load_pem_x509_certificate

    try:
        leaf = load_pem_x509_certificate(fullchain)
        begins, ends = leaf.not_valid_before_utc, leaf.not_valid_after_utc
    except ValueError:
        return None
    left = ends - datetime.datetime.now(datetime.UTC)
    overdue = left < (ends - begins) / 5
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
