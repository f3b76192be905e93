"""Users and their groups.  Sources: useradd(8), usermod(8), getent(1), id(1)."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from provision.errors import ProbeFailed, Refused
from provision.resources.base import Change, Note, Observation, Probe, Resource
from provision.shell import Command, sh

_FIRST_ORDINARY_UID = 1000  # Debian's UID_MIN; system users have lower numbers
_NO_LOGIN = "/usr/sbin/nologin"
_NO_HOME = "/nonexistent"
_PROBE = 'getent passwd -- %s && id -nG -- %s; getent group -- %s >/dev/null && echo "group exists"; :'


@dataclass(frozen=True)
class User(Resource):
    """A local user exists, with this home and shell, and belongs to these groups besides its own.

    system   a user for a service: a number below 1000, no password, and by default no home and no login shell
    home     its home directory, which is created with an ordinary user. For a system user yield a `Directory`
    shell    its login shell
    groups   further groups, which must exist; groups that others added it to stay

    What is None is chosen by useradd for a new user, and stays unchanged for an existing one.
    """

    name: str
    system: bool = False
    home: str | None = None
    shell: str | None = None
    groups: Sequence[str] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "groups", tuple(self.groups))

    def claims(self) -> Mapping[str, Hashable]:
        given = {"system": self.system or None, "home": self.home, "shell": self.shell}
        return {f"{name} of user {self.name}": value for name, value in given.items() if value is not None}

    def probe(self) -> Probe:
        return Probe.of(sh(_PROBE, self.name, self.name, self.name))

    def plan(self, seen: Observation) -> Iterator[Change | Note]:
        lines = seen.text.splitlines()
        has_group = "group exists" in lines
        if not lines or ":" not in lines[0]:
            yield Change(f"create user {self.name}", self._create(has_group), "create")
            return
        fields = lines[0].split(":")
        if len(fields) != 7 or not (fields[2].isascii() and fields[2].isdigit() and len(fields[2]) < 12):
            raise ProbeFailed(f"getent passwd printed: {lines[0][:200]!r}", hint=f"try getent passwd {self.name}")
        _, _, uid, _, _, home, shell = fields
        if self.system and int(uid) >= _FIRST_ORDINARY_UID:
            yield Note(f"user {self.name} exists as an ordinary user (uid {uid}), not as a system user: uid unchanged")
        if self.home is not None and home != self.home:
            yield Change(
                f"set the home of user {self.name} to {self.home} (was {home})",
                sh("usermod --home %s -- %s", self.home, self.name),
            )
        if self.shell is not None and shell != self.shell:
            yield Change(
                f"set the shell of user {self.name} to {self.shell} (was {shell})",
                sh("usermod --shell %s -- %s", self.shell, self.name),
            )
        current = lines[1].split() if len(lines) > 1 else []
        missing = [group for group in self.groups if group not in current]
        if missing:
            yield Change(
                f"add user {self.name} to {', '.join(missing)}",
                sh("usermod --append --groups %s -- %s", ",".join(missing), self.name),
            )

    def _create(self, has_group: bool) -> Command:
        home, shell = self.home, self.shell
        if self.system:
            home, shell = home or _NO_HOME, shell or _NO_LOGIN
        options = ["--system", "--no-create-home"] if self.system else ["--create-home"]
        # useradd refuses to create a group that exists: then it becomes the user's own.
        options += ["--gid", self.name] if has_group else ["--user-group"]
        options += ["--home-dir", home] if home else []
        options += ["--shell", shell] if shell else []
        options += ["--groups", ",".join(self.groups)] if self.groups else []
        return sh("useradd %s -- %s", options, self.name)


@dataclass(frozen=True)
class GroupMember(Resource):
    """An existing user belongs to a group, which takes effect at the user's next login.

    Raises Refused for a user that does not exist: `User` creates one.
    """

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
                hint=f"create the user on the host, or remove {self.user!r} from the setting that names it",
            )
        if self.group not in seen.text.split():
            yield Change(f"add {self.user} to group {self.group}", sh("usermod -aG %s -- %s", self.group, self.user))
