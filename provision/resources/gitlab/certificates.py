"""A certificate and its key on the host are fit for use.  Sources: openssl-pkey(1), RFC 5280, RFC 6125.

The key never leaves the host: openssl there says its public half, and that is compared with the certificate's.

A certificate and its key, put in place together.

Both are judged before anything is contacted (`judge`), so a pair that is unfit never gets to a host.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import ipaddress
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from provision.editing.diff import masked_diff
from provision.errors import Refused
from provision.host.files import BACKUP
from provision.host.pending import Handler
from provision.host.scripts import script
from provision.resources.base import Change, Note, Observation, Probe, Resource
from provision.resources.gitlab.served_certificate import ask_served, is_served, take_over
from provision.resources.system.file import FileSeen, ask_file, read_file
from provision.secret import Secret
from provision.shell import Command, sh

if TYPE_CHECKING:
    from cryptography.x509 import Certificate


SOON = datetime.timedelta(days=21)
NO_PASSPHRASE = "nginx cannot ask for a passphrase: openssl pkey -in OLD -out NEW takes it away"
_ASK_KEY = "if [ -e %s ]; then stat -L -c '%%04a %%U:%%G' -- %s && openssl pkey -in %s -pubout -passin pass: ; else echo absent; fi"


@dataclass(frozen=True)
class CertificatePair(Resource):
    """Certificate and key exist, match, name the host, are in order and not expired; the key is 0600.

    coming  the files are left by a later step (GitLab's own ACME client): when they are not there yet, that is no fault
    ca      what consumers are given to trust, if anything; a note tells when it does not vouch for the certificate
    """

    fullchain: str
    key: str
    host: str
    coming: bool = False
    ca: bytes = b""
    notify: tuple[Handler, ...] = ()

    @property
    def label(self) -> str:
        return f"CertificatePair {self.fullchain}"

    def probe(self) -> Probe:
        return Probe({"fullchain": ask_file(self.fullchain), "key": sh(_ASK_KEY, self.key, self.key, self.key)})

    def plan(self, seen: Observation) -> Iterator[Change | Note]:
        found = read_file(self.fullchain, seen, "fullchain")
        head, _, public = seen["key"].text.partition("\n")
        for path, absent in ((self.fullchain, found.content is None), (self.key, head == "absent")):
            if absent and not self.coming:
                raise Refused(
                    f"{path} is not on the host",
                    hint="put it there, or name local files: registry.certificate.local_fullchain and local_key",
                )
        if found.content is None or head == "absent":
            return
        if seen["key"].code != 0:
            raise Refused(
                f"{self.key} is no private key without a passphrase: {_last_line(seen['key'].errors)}",
                hint=NO_PASSPHRASE,
            )
        problem = examine(found.content, public.encode(), self.host, datetime.datetime.now(datetime.UTC))
        if isinstance(problem, Refused):
            raise Refused(f"{self.fullchain}: {problem.text}", hint=problem.hint)
        if problem < SOON:
            yield Note(f"{self.fullchain} expires in {problem.days} days")
        if unvouched(found.content, self.ca):
            yield Note(f"{self.fullchain}: {unvouched(found.content, self.ca)}")
        mode = head.partition(" ")[0]
        if mode and int(mode, 8) & 0o077:
            yield Change(f"set {self.key} to 0600 (was {mode})", sh('chmod 0600 -- "$(readlink -f -- %s)"', self.key))


def examine(fullchain: bytes, public_key: bytes, host: str, now: datetime.datetime) -> Refused | datetime.timedelta:
    """The first thing that is wrong with a chain and its key, or the time until it expires."""
    from cryptography.x509 import load_pem_x509_certificates

    try:
        chain = load_pem_x509_certificates(fullchain)
    except ValueError as error:
        return Refused(
            f"holds no PEM certificate: {error}", hint="give the chain as PEM, the host's own certificate first"
        )
    leaf = chain[0]
    if _public(leaf).split() != public_key.split():
        others = [position for position, one in enumerate(chain, 1) if _public(one).split() == public_key.split()]
        if others:
            return Refused(
                f"the chain is out of order: the key belongs to certificate {others[0]} of {len(chain)}",
                hint="put the host's own certificate first, then the one that signed it, and so on",
            )
        return Refused(
            "certificate and key do not belong together", hint="give the key that this certificate was issued for"
        )
    for lower, upper in itertools.pairwise(chain):
        if not _signed(lower, upper):
            return Refused(
                f"the chain is out of order: {lower.subject.rfc4514_string()} is signed by {lower.issuer.rfc4514_string()}, "
                f"and {upper.subject.rfc4514_string()} follows",
                hint="put the host's own certificate first, then the one that signed it, and so on",
            )
    if not _covers(leaf, host):
        return Refused(
            f"is not for {host}: it names {', '.join(_names(leaf)) or 'no host'}", hint=f"get one that names {host}"
        )
    if leaf.not_valid_before_utc > now:
        return Refused(f"is not valid before {leaf.not_valid_before_utc:%F %T} UTC", hint="check the clocks, or wait")
    for one in chain:
        if one.not_valid_after_utc <= now:
            return Refused(
                f"expired on {one.not_valid_after_utc:%F} ({one.subject.rfc4514_string()})",
                hint="renew it, then run again",
            )
    return min(one.not_valid_after_utc for one in chain) - now


def unvouched(fullchain: bytes, ca: bytes) -> str:
    """Says so when none of the certificates in `ca` signed or is one of the chain's; "" when one did, or without `ca`."""
    from cryptography.x509 import load_pem_x509_certificates

    if not ca:
        return ""
    chain, authorities = load_pem_x509_certificates(fullchain), load_pem_x509_certificates(ca)
    if any(one == authority or _signed(one, authority) for one in chain for authority in authorities):
        return ""
    return f"it is signed by {chain[-1].issuer.rfc4514_string()}, which is not in registry.certificate.ca: clients may not trust it"


def _signed(certificate: Certificate, authority: Certificate) -> bool:
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


def _covers(certificate: Certificate, host: str) -> bool:
    names = _names(certificate)
    try:
        return str(ipaddress.ip_address(host)) in names
    except ValueError:
        parent = host.lower().partition(".")[2]
        return any(one.lower() in (host.lower(), f"*.{parent}") for one in names)


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "openssl said nothing"


def judge(fullchain: bytes, key: Secret, host: str) -> datetime.timedelta:
    """The time until a pair on this machine expires. Raises Refused for one that is unfit for `host`, with the reason."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

    try:
        private = load_pem_private_key(key.reveal().encode(), None)
    except TypeError as error:
        raise Refused("the key has a passphrase", hint=NO_PASSPHRASE) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise Refused("the key is no private key in PEM", hint="it begins with -----BEGIN PRIVATE KEY-----") from error
    public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    verdict = examine(fullchain, public, host, datetime.datetime.now(datetime.UTC))
    if isinstance(verdict, Refused):
        raise verdict
    return verdict


@dataclass(frozen=True)
class UploadedPair(Resource):
    """These two are at `fullchain` (0644) and `key` (0600), and are what is served at host:port.

    left  until the certificate expires, as `judge` says
    ca    what consumers are given to trust, if anything; a note tells when it does not vouch for the certificate
    """

    fullchain: str
    key: str
    certificate: bytes
    private: Secret
    left: datetime.timedelta
    host: str
    port: int
    ca: bytes = b""

    @property
    def handlers(self) -> tuple[Handler, ...]:
        return (take_over(self.fullchain, self.host, self.port),)

    @property
    def label(self) -> str:
        return f"UploadedPair {self.fullchain}"

    def probe(self) -> Probe:
        return Probe(
            {
                "fullchain": ask_file(self.fullchain),
                "key": ask_file(self.key),
                **ask_served(self.fullchain, self.host, self.port),
            }
        )

    def plan(self, seen: Observation) -> Iterator[Change | Note]:
        if self.left < SOON:
            yield Note(f"the certificate for {self.fullchain} expires in {self.left.days} days")
        if unvouched(self.certificate, self.ca):
            yield Note(f"the certificate for {self.fullchain}: {unvouched(self.certificate, self.ca)}")
        chain, key = read_file(self.fullchain, seen, "fullchain"), read_file(self.key, seen, "key")
        if (chain.content, key.content) != (self.certificate, self._private):
            new = chain.content is None or key.content is None
            yield Change(
                f"put {self.fullchain} and {self.key} in place",
                self._both(),
                "create" if new else "update",
                self._diff(chain),
                self.handlers if is_served(seen) else (),
            )
            return
        for path, found, mode in ((self.fullchain, chain, "0644"), (self.key, key, "0600")):
            if (found.mode, found.owner) != (mode, "root:root"):
                yield Change(
                    f"set {path} to {mode} root:root (was {found.mode} {found.owner})",
                    sh("chown -- root:root %s && chmod -- %s %s", path, mode, path),
                )

    @property
    def _private(self) -> bytes:
        return self.private.reveal().encode()

    def _both(self) -> Command:
        certificate = base64.b64encode(self.certificate).decode()
        return script("replace_certificate", self.fullchain, self.key, BACKUP, certificate).reading(self._private)

    def _diff(self, chain: FileSeen) -> str:
        before, after = (one.decode("utf-8", "backslashreplace") for one in (chain.content or b"", self.certificate))
        digest = hashlib.sha256(self._private).hexdigest()[:8]
        key = f"--- {self.key} (now)\n+++ {self.key} (wanted)\n(a secret, sha256 {digest}…: not shown)"
        certificate = masked_diff(self.fullchain, before, after) if before != after else ""
        return f"{certificate}\n{key}".lstrip()
