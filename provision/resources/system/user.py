"""A user belongs to a group.  Sources: usermod(8), getent(1)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from provision.errors import Refused
from provision.resources.base import Change, Note, Observation, Probe, Resource
from provision.shell import sh


@dataclass(frozen=True)
class GroupMember(Resource):
    """The user is a member; holds from the user's next login on."""

    user: str
    group: str

    @property
    def label(self) -> str:
        return f"GroupMember {self.user} in {self.group}"

    def probe(self) -> Probe:
        return Probe.of(sh("id -nG -- %s", self.user))

    def plan(self, seen: Observation) -> Iterator[Change | Note]:
        if seen.code != 0:
            raise Refused(
                f"user {self.user!r} does not exist on the host",
                hint="create the user there, or take it out of docker.users",
            )
        if self.group not in seen.text.split():
            yield Change(f"add {self.user} to group {self.group}", sh("usermod -aG %s -- %s", self.group, self.user))
