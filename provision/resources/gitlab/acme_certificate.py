"""A certificate that certbot obtains and renews.  Sources: certbot(1), RFC 8555.

certbot answers the authority's challenge on port 80 itself (`--standalone`): that works before GitLab does, and whatever
its nginx is configured for. If GitLab's nginx uses the port, hooks stop it for that time. certbot's own timer renews the
certificate; it is renewed here only when that is clearly overdue.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from provision.errors import Refused
from provision.formats.x509 import overdue_days
from provision.host.pending import Handler
from provision.host.scripts import file_text, script
from provision.resources.base import Change, Note, Observation, Probe, Resource
from provision.resources.gitlab.certificates import CertificatePair, ask_served, is_served, reload_certificate
from provision.resources.system.file import read_file
from provision.shell import sh

LETS_ENCRYPT: Final = "https://acme-v02.api.letsencrypt.org/directory"
_ETC: Final = "/etc/letsencrypt"
HOOKS: Final = {
    f"{_ETC}/renewal-hooks/{hook}/gitlab": file_text(f"acme_hook_{hook}") for hook in ("pre", "post", "deploy")
}


@dataclass(frozen=True)
class AcmeCertificate(Resource):
    """certbot has a valid certificate for `host` from the authority at `directory`, and GitLab serves it.

    directory  the authority's ACME directory URL
    pair       the certificate's files on the host: /etc/letsencrypt/live/HOST/
    port       where the registry serves it
    """

    host: str
    email: str
    directory: str
    pair: CertificatePair
    port: int

    @property
    def handlers(self) -> tuple[Handler, ...]:
        return (reload_certificate(self.pair.fullchain, self.host, self.port),)

    def probe(self) -> Probe:
        renewal = f"{_ETC}/renewal/{self.host}.conf"
        return Probe(
            {
                **self.pair.probe(),
                "renewal": sh("cat -- %s 2>/dev/null || test ! -e %s", renewal, renewal),
                **ask_served(self.pair.fullchain, self.host, self.port),
            }
        )

    def plan(self, seen: Observation) -> Iterator[Change | Note]:
        fullchain = read_file(self.pair.fullchain, seen, "fullchain").content
        reason = self._reason(fullchain, seen["renewal"].text)
        if not reason:
            # certbot renews before the pair would report the expiry: only the pair's changes are used.
            yield from (one for one in self.pair.plan(seen) if isinstance(one, Change))
            return
        again = "yes" if fullchain is not None else ""
        yield Change(
            f"get a certificate for {self.host} from {self.directory}: {reason}",
            script("obtain_certificate", f"{_ETC}/renewal-hooks", self.host, self.email, self.directory, again),
            "update" if again else "create",
            notify=self.handlers if is_served(seen) else (),
            deadline=300,
        )

    def _reason(self, fullchain: bytes | None, renewal: str) -> str:
        """The reason to run certbot; "" if there is none."""
        if fullchain is None:
            return "there is none"
        if not renewal.strip():
            raise Refused(
                f"{self.pair.fullchain} exists, but certbot has no renewal configuration for it",
                hint=f"move {_ETC}/live/{self.host} away, or name its files: registry.certificate.fullchain and key",
            )
        found = re.search(r"^server = (\S+)", renewal, re.MULTILINE)
        server = found[1] if found else LETS_ENCRYPT
        if server != self.directory:
            return f"the existing one is from {server}"
        days = overdue_days(fullchain)
        return "" if days is None else f"it was not renewed in time, {days} days are left"
