"""A certificate and its key, put in place together.

Both are judged before anything is contacted (`judge`), so a pair that is unfit never gets to a host.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
from collections.abc import Iterator

from provision.errors import Refused
from provision.resources.base import Change, Handler, Note, Observation, Probe, Resource
from provision.resources.certificate_pair import NO_PASSPHRASE, SOON, examine, unvouched
from provision.resources.diffs import unified
from provision.resources.file import FileSeen, ask_file, read_file
from provision.resources.host_files import replace
from provision.resources.served_certificate import ask_served, is_served, take_over
from provision.secret import Secret
from provision.shell import Command, sh
from provision.values import dataclass

# A link to the old certificate needs no room on the disk: where the key cannot be written, the certificate goes back.
_KEEP_OLD = """
fullchain=$(readlink -m -- %s)
before=$fullchain.before
rm -f -- "$before"
[ ! -e "$fullchain" ] || ln -- "$fullchain" "$before" || exit 1
printf %%s %s | base64 -d | ("""
# Not `&&`: it would take the force from `set -e` in what stands between.
_THEN_THE_KEY = """)
code=$?
if [ "$code" = 0 ]; then
("""
_OR_NEITHER = """)
code=$?
fi
if [ "$code" = 0 ]; then rm -f -- "$before"
elif [ -e "$before" ]; then mv -f -- "$before" "$fullchain"
else rm -f -- "$fullchain"; fi
exit "$code"
"""


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
        first = replace(self.fullchain, self.certificate, mode="0644", owner="root:root")
        second = replace(self.key, self._private, mode="0600", owner="root:root")
        head = sh(_KEEP_OLD, self.fullchain, base64.b64encode(self.certificate).decode())
        script = "".join([head.script, first.script, _THEN_THE_KEY, second.script, _OR_NEITHER])
        return Command(script, second.stdin)

    def _diff(self, chain: FileSeen) -> str:
        before, after = (one.decode("utf-8", "backslashreplace") for one in (chain.content or b"", self.certificate))
        digest = hashlib.sha256(self._private).hexdigest()[:8]
        key = f"--- {self.key} (now)\n+++ {self.key} (wanted)\n(a secret, sha256 {digest}…: not shown)"
        certificate = unified(self.fullchain, before, after) if before != after else ""
        return f"{certificate}\n{key}".lstrip()
