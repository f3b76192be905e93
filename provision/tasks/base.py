"""What a task and a playbook are.

A task is a function from a host's settings to the resources that the host should have. It runs nothing itself.
A playbook is a list of plays: which tasks, on which group, in which order.

    class NodeExporter(Table):
        \"\"\"[node_exporter]: Prometheus's exporter of host metrics.\"\"\"

        port: int = 9100
        \"\"\"Where it listens.\"\"\"

    @task(on="all", settings=NodeExporter)
    def node_exporter(host: Host, wanted: NodeExporter) -> Iterator[Resource]:
        \"\"\"Install the Prometheus node exporter and keep it running.\"\"\"
        yield Packages(("prometheus-node-exporter",))
        yield Service("prometheus-node-exporter")
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar, overload

from provision.inventory import Host, Table
from provision.inventory.tables.base import is_optional, options_of
from provision.resources.base import Resource

T = TypeVar("T", bound=Table)
Resources = Iterable[Resource]


@dataclass(frozen=True)
class Task:
    """A named function from a host to its resources. `task` makes one.

    on        the group or host that it runs on when it is named on the command line ("all": every host)
    settings  the table that the function is given; its absence means that there is nothing to do, if it is optional
    uses      other tables that the function reads from `host.settings`
    where     of the hosts of `on`, those that it has something to do on. Default: all of them
    serial    named on the command line, it runs on one host after the other and stops at the first failure
    """

    name: str
    on: str
    function: Callable[..., Resources]
    settings: type[Table] | None = None
    uses: tuple[type[Table], ...] = ()
    where: Callable[[Host], bool] | None = None
    serial: bool = False

    @property
    def doc(self) -> str:
        """The function's docstring."""
        return inspect.cleandoc(self.function.__doc__ or "")

    @property
    def headline(self) -> str:
        """The docstring's first line."""
        return self.doc.partition("\n")[0]

    @property
    def tables(self) -> tuple[type[Table], ...]:
        """The tables that it reads."""
        return (self.settings, *self.uses) if self.settings else self.uses

    def concerns(self, host: Host) -> bool:
        """Whether there is anything for it to do on this host."""
        if self.settings and is_optional(self.settings) and host.settings.get(self.settings) is None:
            return False
        return self.where is None or self.where(host)

    def resources(self, host: Host) -> tuple[Resource, ...]:
        """What the host should have, in the order in which it is applied. () for a host that it does not concern."""
        if not self.concerns(host):
            return ()
        arguments = (host.settings[self.settings],) if self.settings else ()
        return tuple(self.function(host, *arguments))


@overload
def task(
    on: str = "all",
    *,
    uses: tuple[type[Table], ...] = (),
    where: Callable[[Host], bool] | None = None,
    serial: bool = False,
) -> Callable[[Callable[[Host], Resources]], Task]: ...


@overload
def task(
    on: str = "all",
    *,
    settings: type[T],
    uses: tuple[type[Table], ...] = (),
    where: Callable[[Host], bool] | None = None,
    serial: bool = False,
) -> Callable[[Callable[[Host, T], Resources]], Task]: ...


def task(
    on: str = "all",
    *,
    settings: type[Table] | None = None,
    uses: tuple[type[Table], ...] = (),
    where: Callable[[Host], bool] | None = None,
    serial: bool = False,
) -> Callable[[Callable[..., Any]], Task]:
    """Makes a task of a function; the task has the function's name. See `Task` for the arguments.

    The function is called once for each host and run, as `function(host)`, or as `function(host, table)` with
    `settings`. Raises TypeError for `settings` that may stand several times: those belong into `uses`.
    """
    if settings is not None and options_of(settings).occurs != "once":
        raise TypeError(
            f"settings={settings.__name__}: {options_of(settings).brackets} may stand several times; name it in uses=, "
            "and read it with host.settings.all(…) or host.settings.named(…)"
        )
    return lambda function: Task(function.__name__, on, function, settings, uses, where, serial)


@dataclass(frozen=True)
class Play:
    """Tasks, in order, on the hosts of a group. The next play starts when all hosts have finished this one.

    serial  one host after the other, in the inventory's order; after a failure the remaining hosts are skipped
    """

    on: str
    tasks: tuple[Task, ...]
    serial: bool = False


def play(on: str, *tasks: Task, serial: bool = False) -> Play:
    """`play("runners", docker, runner)`."""
    return Play(on, tasks, serial)
