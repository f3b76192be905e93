"""The desired state of a run: the resources that each task yields for each host, evaluated once.

Every task function is called exactly once for each host and run. The engine works from the result; nothing calls a
task function again.
"""

from __future__ import annotations

import time
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PosixPath, PurePosixPath
from typing import Final, NamedTuple

from provision.errors import UsageError, together
from provision.inventory import Host
from provision.inventory.secrets import missing_count, missing_secrets
from provision.resources.base import Probe, Resource
from provision.secret import Secret
from provision.tasks.base import Task

_PROBE_SECONDS: Final = 60.0


class HostPlay(NamedTuple):
    """A play, limited to the selected hosts.

    tasks  by host, in inventory order: the tasks that concern the host; hosts without tasks are left out
    chain  the same value for all steps of one serial play: when a host fails, the later steps are skipped
    after  the plays that it waits for, by their index in the run's list; None: all plays before it
    """

    tasks: Mapping[str, tuple[Task, ...]]
    chain: Hashable = None
    after: tuple[int, ...] | None = None


@dataclass(eq=False)
class Owned:
    """A resource and its owner, the task that yielded it. Its records on the host are kept under the owner's name.

    Hosts for which a task yields the same resource share one object.
    """

    owner: str
    resource: Resource
    _probe: Probe | None = field(default=None, init=False, repr=False)
    _probed: float = field(default=0.0, init=False, repr=False)  # when the probe was made, in monotonic seconds

    @property
    def label(self) -> str:
        """The resource's name; the name of its class if its own code fails."""
        try:
            return self.resource.label
        except (Exception, SystemExit):
            return type(self.resource).__name__

    @property
    def probe(self) -> Probe:
        """The resource's questions. All hosts share them for a minute, because signed requests expire (S3: 15 minutes)."""
        now = time.monotonic()
        if self._probe is None or now - self._probed > _PROBE_SECONDS:
            self._probe, self._probed = self.resource.probe(), now
        return self._probe

    @property
    def may_refuse_early(self) -> bool:
        """Whether the resource has a `refuse_early` of its own."""
        return type(self.resource).refuse_early is not Resource.refuse_early


@dataclass(frozen=True, eq=False)
class HostDesiredState:
    """The resources that the tasks of a run yield for a host, and the keys that they claim.

    The object does not change, so that hosts with the same desired state can share it.

    claims  by key: owner -> value
    """

    tasks: Mapping[Task, tuple[Owned, ...]] = field(default_factory=dict)
    claims: Mapping[str, Mapping[str, Hashable]] = field(default_factory=dict)

    def claimed(self, owner: str) -> frozenset[str]:
        """The keys claimed by tasks other than `owner`."""
        return frozenset(key for key, owners in self.claims.items() if owners.keys() - {owner})

    def with_task(self, host: str, task: Task, owned: tuple[Owned, ...]) -> HostDesiredState:
        """This state with the resources of one more task. Raises UsageError, which names `host`, for conflicting claims."""
        with task.errors_of():
            added = [item for one in owned for item in one.resource.claims().items()]
        claims: dict[str, Mapping[str, Hashable]] = {}
        for key, value in added:
            owners = claims.get(key) or self.claims.get(key, {})
            claims[key] = _claimed(owners, host, key, task.name, value)
        return HostDesiredState({**self.tasks, task: owned}, {**self.claims, **claims} if claims else self.claims)


def _claimed(
    owners: Mapping[str, Hashable], host: str, key: str, owner: str, value: Hashable
) -> Mapping[str, Hashable]:
    """The owners of a key, with one more. Raises UsageError when they want different values."""
    if owner in owners and owners[owner] != value:
        raise UsageError(
            f"{host}: the task {owner} wants two different values for {key}", hint="yield one of the resources only"
        )
    for other, wanted in owners.items():
        if other != owner and wanted != value:
            raise UsageError(
                f"{host}: the tasks {other} and {owner} want different values for {key}",
                hint="change the settings of one of them, or run only one of them on this host",
            )
    return {**owners, owner: value}


class _Shared:
    """The parts of the desired states that were made so far. Hosts share equal parts.

    So a thousand equal hosts need as much memory as one host, and their questions and claims are computed once.
    """

    def __init__(self) -> None:
        self._owned: dict[tuple[str, Resource], Owned] = {}
        self._states: dict[tuple[HostDesiredState, Task, tuple[Owned, ...]], HostDesiredState] = {}
        self._valid: set[Owned] = set()

    def owned(self, owner: str, resource: Resource) -> Owned:
        """The resource of a task. If an earlier host has the same one, this is the earlier object."""
        try:
            known = self._owned.setdefault((owner, resource), new := Owned(owner, resource))
        except TypeError:  # a resource of the user's own that has no hash: it is not shared
            return Owned(owner, resource)
        return known if known is new or is_same(known.resource, resource) else new

    def state(self, before: HostDesiredState, host: Host, task: Task, owned: tuple[Owned, ...]) -> HostDesiredState:
        """The desired state with one more task. Raises UsageError for conflicting claims."""
        key = before, task, owned
        if key not in self._states:
            self._states[key] = before.with_task(host.name, task, owned)
        return self._states[key]

    def validate(self, task: Task, owned: tuple[Owned, ...]) -> None:
        """Makes the slow checks of these resources, once for each resource. Raises UsageError."""
        for one in owned:
            if one not in self._valid:
                with task.errors_of():
                    one.resource.validate()
                self._valid.add(one)


def is_same(one: object, other: object) -> bool:
    """Whether two values are equal in every part, types included.

    `==` is not enough: `1 == True`, and a class may leave a field out of its comparison. Two parts whose type is unknown, or
    can change, are the same only if they are one object.
    """
    kind = type(one)
    if one is other or kind is not type(other):
        return one is other
    if kind in _PLAIN:
        return one == other
    if isinstance(one, tuple) and isinstance(other, tuple):
        return len(one) == len(other) and _are_same(one, other)
    if isinstance(one, dict) and isinstance(other, dict):
        return len(one) == len(other) and _are_same(one, other) and _are_same(one.values(), other.values())
    options = getattr(kind, "__dataclass_params__", None)
    return options is not None and options.frozen and hasattr(one, "__dict__") and is_same(vars(one), vars(other))


_PLAIN: Final = frozenset({str, bytes, int, bool, float, Secret, PurePosixPath, PosixPath})


def _are_same(some: Iterable[object], others: Iterable[object]) -> bool:
    return all(map(is_same, some, others))


def _merged(resources: Iterable[Resource], whose: str) -> list[Resource]:
    """Merges resources with the same class and record key: otherwise they would overwrite each other's record."""
    merged: dict[object, Resource] = {}
    for one in resources:
        key = (type(one), one.record_key) if one.record_key else object()
        try:
            merged[key] = merged[key].merged(one) if key in merged else one
        except UsageError as error:
            raise UsageError(f"{whose}: {error.text}", hint=error.hint) from error
    return list(merged.values())


class DesiredState:
    """The desired state of all hosts of a run."""

    def __init__(
        self,
        hosts: Iterable[Host],
        plays: Sequence[HostPlay],
        names: Sequence[str] = (),
        mistakes: Sequence[UsageError] = (),
    ) -> None:
        """Evaluates every task on every host that it concerns. `names`: what the user named on the command line.

        No host is contacted. Raises one UsageError for all bad input, missing secrets, and `mistakes`.
        """
        nothing, shared = HostDesiredState(), _Shared()
        self._hosts = {host.name: nothing for host in hosts}
        by_name = {host.name: host for host in hosts}
        found: list[UsageError] = []
        with missing_secrets() as missing:
            for play in plays:
                for name, tasks in play.tasks.items():
                    for task in tasks:
                        found += self._mistakes(by_name[name], task, shared, task.name in names)
        if wrong := [*mistakes, *missing, *found]:
            raise together(wrong)

    def _mistakes(self, host: Host, task: Task, shared: _Shared, named: bool) -> list[UsageError]:
        """Evaluates a task on a host, unless that was done, and returns what is wrong."""
        before = self._hosts[host.name]
        if task in before.tasks:
            return []
        missing = missing_count()
        try:
            resources = task.resources(host)
            with task.errors_of():
                merged = _merged(resources, f"{host.name}: task {task.name}")
                owned = tuple([shared.owned(task.name, one) for one in merged])
            self._hosts[host.name] = shared.state(before, host, task, owned)
            if named:
                shared.validate(task, owned)
        except UsageError as error:
            # A missing secret is empty here, and an empty one may cause a second error: that one is not reported.
            return [] if missing_count() > missing else [error]
        except Exception:
            if missing_count() == missing:
                raise
        return []

    def __getitem__(self, host: str) -> HostDesiredState:
        return self._hosts[host]
