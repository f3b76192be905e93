"""An image can be pushed to the registry and pulled from it.  Sources: docker-login(1), the distribution API.

The check goes step by step, from the name's address to the deletion, and stops at the first that fails.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from provision.host.scripts import script
from provision.resources.base import Change, Note, Observation, Probe, Resource
from provision.secret import Secret, reveal
from provision.shell import sh
from provision.url import Url

# Whether the name has an address and the port opens, in 3 ms where curl takes 12. Other resources of the run ask what the
# registry answers, on the GitLab host, and see to its CA on this one.
_CONNECT = "timeout 5 bash -c ': 2>/dev/null <>/dev/tcp/$0/$1' %s %s"


@dataclass(frozen=True)
class ImageCheck(Resource):
    """Pushes an image to the registry, pulls it and deletes it, from this host.

    It does so when a verification is due, when the port does not open, or when no check with these settings is recorded.

    image    the repository to push to
    ca       the path of the CA file on the host, which may not exist
    context  what else the check depends on: when it changes, the image is checked again
    """

    url: Url
    user: str
    password: Secret
    image: str
    ca: str
    context: str = ""

    @property
    def record_key(self) -> str:
        return "verified"

    def probe(self) -> Probe:
        return Probe.of(sh(_CONNECT, self.url.host, self.url.port))

    def plan(self, seen: Observation) -> Iterator[Change | Note]:
        if seen.code == 0 and not seen.due and seen.record == self._fingerprint():
            return
        url, registry = self.url, self.url.authority
        command = script("check_registry", url.host, url.port, str(url), registry, self.user, self.image, self.ca)
        yield Change(
            f"verify push and pull of {registry}/{self.image}",
            command.reading(reveal(self.password) + "\n"),
            "run",
            record=self._fingerprint(),
            deadline=300,
            verification=True,
        )

    def _fingerprint(self) -> str:
        parts = [str(self.url), self.user, self.image, self.ca, self.context]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
