"""Users, groups and projects of GitLab, and the members of groups and projects, through the API.

What is missing is created, nothing is ever deleted. Settings that the inventory names converge; others stay. GitLab is asked
when the wanted state differs from the recorded one, or when a verification is due. Users and groups are looked up again by
their names when a change is made, because an earlier change of the same task may have created them.

Sources: GitLab's REST API, /users, /groups, /projects, /namespaces, /:id/members; lib/api/users.rb and members.rb.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote

from provision.editing.diff import settings_diff
from provision.errors import ApiFailed, ChangedMeanwhile, Refused
from provision.gitlab.api import NO_PROJECT_HINT, Api
from provision.host.state import fingerprint
from provision.resources.base import (
    NOTHING,
    ApiAction,
    ApiQuery,
    Change,
    Note,
    Observation,
    Probe,
    Resource,
    unverified,
)
from provision.secret import Secret

LEVELS: Final = {"guest": 10, "planner": 15, "reporter": 20, "developer": 30, "maintainer": 40, "owner": 50}
"""GitLab's access levels by the names of roles.  Source: lib/gitlab/access.rb."""
_ROLES: Final = {level: role for role, level in LEVELS.items()}
Found = Mapping[str, Any]


@dataclass(frozen=True)
class _Account(Resource):
    """Something in GitLab that is found by its name.

    settings  wanted settings, by the API's names
    """

    name: str
    api: Api
    settings: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    @abstractmethod
    def kind(self) -> str:
        """What it is, in messages and records: "user"."""

    @property
    def may_create(self) -> bool:
        """Whether it is created if it is missing."""
        return True

    @property
    def label(self) -> str:
        return f"{type(self).__name__} {self.name}"

    @property
    def record_key(self) -> str:
        return f"gitlab {self.kind}/{self.name}"

    def probe(self) -> Probe:
        return Probe({"gitlab": ApiQuery((self.kind, self.api.url, self.name), self._ask)})

    def plan(self, seen: Observation) -> Iterator[Change | Note]:
        found: Found | ApiFailed | None = seen.data("gitlab")
        if found is None:
            return
        compare = f"compare {self.kind} {self.name} with GitLab"
        if isinstance(found, ApiFailed) and found.requires:
            # A GitLab without a token was just installed: nothing exists there.
            yield self._create(found.requires) if self.may_create else unverified(compare, found.text, found.requires)
            return
        if isinstance(found, ApiFailed) and not found.status:
            yield unverified(compare, found.text)
            return
        if isinstance(found, ApiFailed):
            raise ApiFailed(f"{self.kind} {self.name}: {found.text}", hint=found.hint, status=found.status)
        changes = [*self._changes(found)]
        yield from changes
        record = self._fingerprint(seen)
        if seen.record != record:
            yield Change(compare, NOTHING, "run", record=record, verification=True, final=True, id="compare")

    def _ask(self, seen: Observation) -> Found | ApiFailed | None:
        """What GitLab has: {} if it does not exist, None if nothing is to be compared."""
        if not seen.due and seen.record == self._fingerprint(seen):
            return None
        try:
            return self._find()
        except ApiFailed as error:
            return error

    def _fingerprint(self, seen: Observation) -> str:
        return fingerprint(seen.fingerprint_key, [str(self.api.url), dict(self.settings), *self._more()])

    def _more(self) -> list[Any]:
        """What else is wanted, as plain data."""
        return []

    def _changes(self, found: Found) -> Iterator[Change]:
        if not found:
            yield self._create()
        else:
            yield from self._converge(found)

    def _create(self, requires: str = "") -> Change:
        summary = f"create {self.kind} {self.name}"
        return Change(summary, ApiAction(self._make, f"POST {self._place}"), "create", requires=requires, id="create")

    def _converge(self, found: Found) -> Iterator[Change]:
        wrong = {name: value for name, value in self.settings.items() if found.get(name) != value}
        if not wrong:
            return
        yield Change(
            f"set {', '.join(wrong)} of {self.kind} {self.name}",
            ApiAction(lambda: self._set(found, wrong), f"PUT {self._place}/:id"),
            diff=settings_diff(f"{self.kind} {self.name}", found, wrong),
            id="set",
        )

    @property
    @abstractmethod
    def _place(self) -> str:
        """Its list in the API: "/users"."""

    @abstractmethod
    def _find(self) -> Found:
        """What GitLab has; {} for nothing. Raises ApiFailed."""

    @abstractmethod
    def _make(self) -> None:
        """Creates it. Raises ApiFailed."""

    def _set(self, found: Found, wrong: Mapping[str, Any]) -> None:
        self.api.put(f"{self._place}/{found['id']}", dict(wrong))


@dataclass(frozen=True)
class GitlabUser(_Account):
    """A user exists in GitLab and has these settings: name, email, is_admin, external.

    password  at its creation; None: a random one, so that an administrator or an e-mail must set another
    """

    password: Secret | None = None

    @property
    def kind(self) -> str:
        return "user"

    @property
    def _place(self) -> str:
        return "/users"

    def _find(self) -> Found:
        return _user(self.api, self.name) or {}

    def _make(self) -> None:
        given = self.password
        password = {"force_random_password": True} if given is None else {"password": given.reveal()}
        data = {"name": self.name, **_sent(self.settings), "username": self.name, "skip_confirmation": True, **password}
        _unless_raced(lambda: self.api.post("/users", data))

    def _set(self, found: Found, wrong: Mapping[str, Any]) -> None:
        self.api.put(f"/users/{found['id']}", {**_sent(wrong), "skip_reconfirmation": True})


@dataclass(frozen=True)
class _WithMembers(_Account):
    """A group or a project with members.

    members  by user name: the role
    """

    members: Mapping[str, str] = field(default_factory=dict, hash=False)

    def _more(self) -> list[Any]:
        return [dict(self.members)]

    @property
    def _address(self) -> str:
        return f"{self._place}/{quote(self.name, safe='')}"

    def _find(self) -> Found:
        found = self.api.find(self._address)
        if found is None:
            return {}
        members = self.api.get_list(f"{self._address}/members", {"per_page": 100}) if self.members else []
        return {**found, "members": {str(one["username"]).lower(): one for one in members}}

    def _changes(self, found: Found) -> Iterator[Change]:
        yield from super()._changes(found)
        present = found.get("members", {})
        for name, role in self.members.items():
            now = present.get(name.lower())
            if now is None:
                yield self._member(name, role, f"add {name} as {role} to {self.kind} {self.name}", "create")
            elif now["access_level"] != LEVELS[role]:
                before = _ROLES.get(now["access_level"], now["access_level"])
                yield self._member(name, role, f"make {name} {role} of {self.kind} {self.name}, not {before}", "update")

    def _member(self, name: str, role: str, summary: str, action: Any) -> Change:
        def make() -> None:
            user = _user(self.api, name)
            if user is None:
                raise ApiFailed(
                    f"{self.kind} {self.name}: GitLab has no user {name}",
                    hint=f"add [gitlab.users.{name}] to the inventory, or correct the name in members",
                )
            place = f"{self._address}/members"
            if action == "create":
                _unless_raced(lambda: self.api.post(place, {"user_id": user["id"], "access_level": LEVELS[role]}))
            else:
                self.api.put(f"{place}/{user['id']}", {"access_level": LEVELS[role]})

        request = ApiAction(make, f"{'POST' if action == 'create' else 'PUT'} {self._place}/:id/members")
        return Change(summary, request, action, id=f"member {name}")


@dataclass(frozen=True)
class GitlabGroup(_WithMembers):
    """A group exists in GitLab, with these settings and members. `name` is its full path."""

    @property
    def kind(self) -> str:
        return "group"

    @property
    def _place(self) -> str:
        return "/groups"

    def _make(self) -> None:
        above, _, name = self.name.rpartition("/")
        data = {"name": name, "path": name, **self.settings}
        if above:
            data["parent_id"] = _parent(self.api, above, f"group {self.name}")
        _unless_raced(lambda: self.api.post("/groups", data))


@dataclass(frozen=True)
class GitlabProject(_WithMembers):
    """A project exists in GitLab, with these settings and members. `name` is its full path.

    create  whether it is created if it is missing; otherwise that is an error
    """

    create: bool = False

    @property
    def may_create(self) -> bool:
        return self.create

    @property
    def kind(self) -> str:
        return "project"

    @property
    def _place(self) -> str:
        return "/projects"

    def plan(self, seen: Observation) -> Iterator[Change | Note]:
        if seen.data("gitlab") == {} and not self.create:
            raise Refused(f"project {self.name} does not exist, or GitLab's token may not see it", hint=NO_PROJECT_HINT)
        yield from super().plan(seen)

    def _converge(self, found: Found) -> Iterator[Change]:
        # An empty repository has no branch that could become the default: the first one that is pushed does.
        if found.get("empty_repo"):
            found = {**found, "default_branch": self.settings.get("default_branch")}
        yield from super()._converge(found)

    def _make(self) -> None:
        above, _, name = self.name.rpartition("/")
        data = {"name": name, "path": name, **self.settings}
        data["namespace_id"] = _parent(self.api, above, f"project {self.name}")
        _unless_raced(lambda: self.api.post("/projects", data))


def _sent(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a user by the names that requests have: answers have is_admin, requests admin."""
    return {"admin" if name == "is_admin" else name: value for name, value in settings.items()}


def _user(api: Api, name: str) -> Found | None:
    """A user by the exact name, in any case."""
    found = [one for one in api.get_list("/users", {"username": name}) if str(one["username"]).lower() == name.lower()]
    return found[0] if found else None


def _parent(api: Api, path: str, what: str) -> int:
    """The number of the namespace of a user or group. Raises ApiFailed."""
    found = api.find(f"/namespaces/{quote(path, safe='')}")
    if found is None:
        raise ApiFailed(
            f"{what}: GitLab has no user or group {path}",
            hint=f'add [gitlab.users.{path}] or [gitlab.groups."{path}"] to the inventory',
        )
    return int(found["id"])


def _unless_raced(request: Callable[[], object]) -> None:
    """Sends a request that creates something. Raises ChangedMeanwhile if somebody else has created it since.

    Only for a conflict about the thing itself: another user may have the e-mail address.
    """
    try:
        request()
    except ApiFailed as error:
        if error.status == 409 and ("Username has already" in error.text or "Member already exists" in error.text):
            raise ChangedMeanwhile(f"it was created by another program in the meantime: {error.text}") from error
        raise
