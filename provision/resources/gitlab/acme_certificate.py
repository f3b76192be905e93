"""A certificate that certbot gets and renews.  Sources: certbot(1), RFC 8555.

certbot answers the authority's challenge on port 80 by itself (`--standalone`): that works before GitLab does, and whatever
its nginx is configured for. Where GitLab's nginx holds the port it makes room for those seconds (the hooks). Renewal is
certbot's own timer's business; only where that is clearly late it is done here.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator
from dataclasses import dataclass

from provision.errors import Refused
from provision.host.pending import Handler
from provision.host.scripts import file_text, script
from provision.resources.base import Change, Note, Observation, Probe, Resource
from provision.resources.gitlab.certificates import CertificatePair
from provision.resources.gitlab.served_certificate import ask_served, is_served, take_over
from provision.resources.system.file import read_file
from provision.shell import sh

LETS_ENCRYPT = "https://acme-v02.api.letsencrypt.org/directory"
_ETC = "/etc/letsencrypt"
HOOKS = {f"{_ETC}/renewal-hooks/{hook}/gitlab": file_text(f"acme_hook_{hook}") for hook in ("pre", "post", "deploy")}


@dataclass(frozen=True)
class AcmeCertificate(Resource):
    """certbot has a certificate for `host` from the authority at `directory`, it is fit for use, and GitLab serves it.

    pair  the certificate's place on the host: /etc/letsencrypt/live/HOST/
    port  where the registry serves it
    """

    host: str
    email: str
    directory: str
    pair: CertificatePair
    port: int

    @property
    def handlers(self) -> tuple[Handler, ...]:
        return (take_over(self.pair.fullchain, self.host, self.port),)

    @property
    def label(self) -> str:
        return f"AcmeCertificate {self.host}"

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
            # How long it still holds is watched here: the pair's own note would come before anything is amiss.
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
        if fullchain is None:
            return "there is none"
        if not renewal.strip():
            raise Refused(
                f"{self.pair.fullchain} is there, but certbot knows nothing of it",
                hint=f"move {_ETC}/live/{self.host} away, or name its files: registry.certificate.fullchain and key",
            )
        found = re.search(r"^server = (\S+)", renewal, re.MULTILINE)
        server = found[1] if found else LETS_ENCRYPT
        if server != self.directory:
            return f"the one that is there is from {server}"
        return _late(fullchain)


def _late(fullchain: bytes) -> str:
    """Says so when less than a fifth of its life is left: certbot renews at a third. "" for one that cannot be read."""
    from cryptography.x509 import load_pem_x509_certificate

    try:
        leaf = load_pem_x509_certificate(fullchain)
    except ValueError:
        return ""
    left = leaf.not_valid_after_utc - datetime.datetime.now(datetime.UTC)
    late = left < (leaf.not_valid_after_utc - leaf.not_valid_before_utc) / 5
    return f"it was not renewed in time, {max(left.days, 0)} days are left" if late else ""
