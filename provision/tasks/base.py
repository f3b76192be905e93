"""What a task and a playbook are.

A task is a function of a host's settings that yields the wanted state. A playbook is a list of plays:
which tasks, on which group, in which order.

    @task(on="runners")
    def motd(host: Host) -> Iterator[Resource]:
        \"\"\"Logins are greeted.\"\"\"
        yield File("/etc/motd", f"This is {host.name}.\\n")
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from provision.inventory import Settings
from provision.resources.base import Resource


@dataclass(frozen=True)
class Host:
    """A host as tasks see it.

    peers    addresses of the hosts of each group, in inventory order
    members  their names, likewise; "all": every host of the inventory
    """

    name: str
    address: str
    groups: tuple[str, ...]
    settings: Settings
    peers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    members: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


Function = Callable[[Host], Iterator[Resource]]


@dataclass(frozen=True)
class Task:
    """A named function; `on` is the group it runs on when it is named alone ("all": every host).

    where   of those, the hosts that the inventory gives it something to do on; the others are not contacted for it
    serial  named alone, it works on one host after the other, and stops at the first that fails
    """

    name: str
    on: str
    function: Function
    where: Callable[[Host], bool] | None = None
    serial: bool = False

    @property
    def doc(self) -> str:
        """The state it leaves: the docstring, whole."""
        return inspect.cleandoc(self.function.__doc__ or "")

    @property
    def headline(self) -> str:
        """The docstring's first line."""
        return self.doc.partition("\n")[0]

    def resources(self, host: Host) -> tuple[Resource, ...]:
        """What the host should hold, in the order in which it is brought about."""
        return tuple(self.function(host))

    def concerns(self, host: Host) -> bool:
        """Whether there is anything for it to do on this host."""
        return self.where is None or self.where(host)


def task(
    on: str = "all", *, where: Callable[[Host], bool] | None = None, serial: bool = False
) -> Callable[[Function], Task]:
    """Makes a task of a function, named as it is."""
    return lambda function: Task(function.__name__, on, function, where, serial)


@dataclass(frozen=True)
class Play:
    """Tasks, in order, on a group's hosts. Plays are barriers: the next starts when all hosts are through.

    serial  one host after the other, in inventory order; after a host that fails the rest are left alone
    """

    on: str
    tasks: tuple[Task, ...]
    serial: bool = False


def play(on: str, *tasks: Task, serial: bool = False) -> Play:
    """`play("runners", docker, runner)`."""
    return Play(on, tasks, serial)
