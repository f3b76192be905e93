"""An image can be logged in for, pushed, pulled and deleted, from this host.  Sources: docker-login(1), the distribution API.

Layer by layer, from the name to the image; the first that is broken is named with its remedy. The
Docker CLI does the work with a throw-away DOCKER_CONFIG on a memory file system, as it keeps logins in the clear.
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

# Whether the name is resolved and the port opens: in 3 ms instead of curl's 12. What answers there is asked on the
# GitLab host in the same run, and what is trusted here is laid by other resources.
_LOOK = "timeout 5 bash -c ': 2>/dev/null <>/dev/tcp/$0/$1' %s %s"


@dataclass(frozen=True)
class ImageProof(Resource):
    """Verifies it when that is due, or when no verification with these settings is recorded.

    ca       the CA file on the host, if one was declared
    context  whatever else the verification depends on: when it changes, a new verification is made
    """

    url: Url
    user: str
    password: Secret
    image: str
    ca: str
    context: str = ""

    @property
    def label(self) -> str:
        return f"ImageProof {self.url}"

    @property
    def record_key(self) -> str:
        return "verified"

    def probe(self) -> Probe:
        return Probe.of(sh(_LOOK, self.url.host, self.url.port))

    def plan(self, seen: Observation) -> Iterator[Change | Note]:
        if seen.code == 0 and not seen.due and seen.record == self._fingerprint():
            return
        url, registry = self.url, self.url.authority
        command = script("check_registry", url.host, url.port, str(url), registry, self.user, self.image, self.ca)
        yield Change(
            f"prove {registry}/{self.image}: name, connection, /v2/, login, push, pull, delete",
            command.reading(reveal(self.password) + "\n"),
            "run",
            record=self._fingerprint(),
            deadline=300,
            verification=True,
        )

    def _fingerprint(self) -> str:
        return hashlib.sha256(
            "\0".join([str(self.url), self.user, self.image, self.ca, self.context]).encode()
        ).hexdigest()[:16]
