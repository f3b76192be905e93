"""The desired state of a run: the resources that each task yields for each host, evaluated once.

Every task function is called exactly once for each host and run. The engine works from the result; nothing calls a
task function again.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from provision.errors import UsageError
from provision.inventory import Host
from provision.resources.base import Resource
from provision.tasks.base import Task


@dataclass(frozen=True)
class HostPlay:
    """A play, limited to the selected hosts.

    tasks  by host, in inventory order: the tasks that concern the host; hosts without tasks are left out
    chain  the same object for all steps of one serial play: when a host fails, the later steps are skipped
    """

    tasks: Mapping[str, tuple[Task, ...]]
    chain: object = None


@dataclass(frozen=True, eq=False)
class Owned:
    """A resource and its owner, the task that yielded it. Its records on the host are kept under the owner's name."""

    owner: str
    resource: Resource

    @property
    def label(self) -> str:
        """The resource's name; the name of its class if its own code fails."""
        try:
            return self.resource.label
        except (Exception, SystemExit):
            return type(self.resource).__name__


@dataclass
class HostDesiredState:
    """The resources that the tasks of a run yield for one host, and the keys that they claim."""

    tasks: dict[Task, tuple[Owned, ...]] = field(default_factory=dict)
    claims: dict[str, dict[str, Hashable]] = field(default_factory=dict)  # by key: owner -> value

    def add(self, host: Host, task: Task) -> tuple[Owned, ...]:
        """Calls the task function unless it was called before. Raises UsageError for bad settings, conflicting claims."""
        if task in self.tasks:
            return ()
        owned = tuple(Owned(task.name, one) for one in _merged(task.resources(host)))
        self.tasks[task] = owned
        for one in owned:
            for key, value in one.resource.claims().items():
                self._claim(host.name, key, task.name, value)
        return owned

    def claimed(self, owner: str) -> frozenset[str]:
        """The keys claimed by tasks other than `owner`."""
        return frozenset(key for key, owners in self.claims.items() if owners.keys() - {owner})

    def _claim(self, host: str, key: str, owner: str, value: Hashable) -> None:
        owners = self.claims.setdefault(key, {})
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
        owners[owner] = value


def _merged(resources: Iterable[Resource]) -> list[Resource]:
    """Merges resources with the same class and record key: otherwise they would overwrite each other's record."""
    merged: dict[object, Resource] = {}
    for one in resources:
        key = (type(one), one.record_key) if one.record_key else object()
        merged[key] = merged[key].merged(one) if key in merged else one
    return list(merged.values())


class DesiredState:
    """The desired state of all hosts of a run."""

    def __init__(self, hosts: Iterable[Host], plays: Sequence[HostPlay], names: Sequence[str] = ()) -> None:
        """Evaluates every task on every host that it concerns. `names`: what the user named on the command line.

        No host is contacted. Raises UsageError for bad input and missing secrets.
        """
        self._hosts = {host.name: HostDesiredState() for host in hosts}
        by_name = {host.name: host for host in hosts}
        for play in plays:
            for name, tasks in play.tasks.items():
                for task in tasks:
                    for one in self._hosts[name].add(by_name[name], task):
                        if task.name in names:
                            one.resource.validate()

    def __getitem__(self, host: str) -> HostDesiredState:
        return self._hosts[host]
