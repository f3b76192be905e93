"""The desired state of a run: the resources that each task yields for each host, evaluated once.

Every task function is called exactly once for each host and run. The engine works from the result; nothing calls a
task function again.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from provision.errors import UsageError, together
from provision.inventory import Host
from provision.inventory.secrets import missing_count, missing_secrets
from provision.resources.base import Resource
from provision.tasks.base import Task


class HostPlay(NamedTuple):
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
        resources = task.resources(host)
        with task.errors_of():
            owned = tuple(Owned(task.name, one) for one in _merged(resources, f"{host.name}: task {task.name}"))
            claims = [item for one in owned for item in one.resource.claims().items()]
        self.tasks[task] = owned
        for key, value in claims:
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
        self._hosts = {host.name: HostDesiredState() for host in hosts}
        by_name = {host.name: host for host in hosts}
        found: list[UsageError] = []
        with missing_secrets() as missing:
            for play in plays:
                for name, tasks in play.tasks.items():
                    for task in tasks:
                        found += self._mistakes(by_name[name], task, task.name in names)
        if wrong := [*mistakes, *missing, *found]:
            raise together(wrong)

    def _mistakes(self, host: Host, task: Task, named: bool) -> list[UsageError]:
        """Evaluates a task on a host, and returns what is wrong."""
        missing = missing_count()
        try:
            for one in self._hosts[host.name].add(host, task):
                if named:
                    with task.errors_of():
                        one.resource.validate()
        except UsageError as error:
            # A missing secret is empty here, and an empty one may cause a second error: that one is not reported.
            return [] if missing_count() > missing else [error]
        except Exception:
            if missing_count() == missing:
                raise
        return []

    def __getitem__(self, host: str) -> HostDesiredState:
        return self._hosts[host]
