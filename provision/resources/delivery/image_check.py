"""An image can be logged in for, pushed, pulled and deleted, from this host.  Sources: docker-login(1), the distribution API.

Layer by layer, from the name to the image; the first that is broken is named with its remedy. The
Docker CLI does the work with a throw-away DOCKER_CONFIG on a memory file system, as it keeps logins in the clear.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from provision.host.files import ASK_STATE, read_state
from provision.host.scripts import script
from provision.resources.base import Change, Note, Observation, Probe, Resource
from provision.secret import Secret, reveal
from provision.shell import sh
from provision.url import Url

_STATE = "verified"
# Whether the name is resolved and the port opens: in 3 ms instead of curl's 12. What answers there is asked on the
# GitLab host in the same run, and what is trusted here is laid by other resources.
_LOOK = "timeout 5 bash -c ': 2>/dev/null <>/dev/tcp/$0/$1' %s %s"


@dataclass(frozen=True)
class ImageProof(Resource):
    """The proof, taken when it is asked for, when something changed, or when none of these settings is on record.

    ca       the CA file on the host, if one was declared
    context  whatever else the proof rests on: a change of it makes a new proof due
    """

    url: Url
    user: str
    password: Secret
    image: str
    ca: str
    always: bool = False
    context: str = ""

    @property
    def label(self) -> str:
        return f"ImageProof {self.url}"

    def probe(self) -> Probe:
        look = sh(_LOOK, self.url.host, self.url.port)
        return Probe({"look": look, "state": ASK_STATE})

    def plan(self, seen: Observation) -> Iterator[Change | Note]:
        opens = seen["look"].code == 0
        if opens and not self.always and read_state(seen["state"].text).get(_STATE) == self._fingerprint():
            return
        url, registry = self.url, self.url.authority
        command = script("check_registry", url.host, url.port, str(url), registry, self.user, self.image, self.ca)
        yield Change(
            f"prove {registry}/{self.image}: name, connection, /v2/, login, push, pull, delete",
            command.reading(reveal(self.password) + "\n"),
            "run",
            remember={_STATE: self._fingerprint()},
            deadline=300,
            leaves=False,
        )

    def _fingerprint(self) -> str:
        return hashlib.sha256(
            "\0".join([str(self.url), self.user, self.image, self.ca, self.context]).encode()
        ).hexdigest()[:16]
