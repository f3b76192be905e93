"""What a task and a playbook are.

A task is a function from a host's settings to the resources that the host should have. It runs nothing itself.
A playbook is a list of plays: which tasks, on which group, in which order.

    class NodeExporter(Table):
        \"\"\"[node_exporter]: Prometheus's exporter of host metrics.\"\"\"

        port: int = 9100
        \"\"\"The port that it listens on.\"\"\"

    @task(on="all", settings=NodeExporter)
    def node_exporter(host: Host, wanted: NodeExporter) -> Iterator[Resource]:
        \"\"\"Install the Prometheus node exporter and keep it running.\"\"\"
        yield Packages(("prometheus-node-exporter",))
        yield Service("prometheus-node-exporter")
"""

from __future__ import annotations

import inspect
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar, overload

from provision.errors import PlaybookError, ProvisionError
from provision.inventory import Host, Table
from provision.inventory.tables.base import is_optional, options_of
from provision.resources.base import Resource

T = TypeVar("T", bound=Table)
Resources = Iterable[Resource]


@dataclass(frozen=True)
class Task:
    """A named function from a host to its resources. `task` makes one.

    on        the group or host that it runs on when it is named on the command line ("all": every host)
    settings  the table that is passed to the function; if it is optional and absent, the task has nothing to do
    uses      other tables that the function reads from `host.settings`
    where     selects the hosts of `on` on which it has something to do. Default: all of them
    serial    if named on the command line, it runs on one host after the other and stops at the first failure
    removes   it removes something for good: its name is never suggested for a misspelt one
    leftovers it also runs where `where` is false, on hosts that other tasks of the run contact: to remove what it set
              up earlier
    """

    name: str
    on: str
    function: Callable[..., Resources]
    settings: type[Table] | None = None
    uses: tuple[type[Table], ...] = ()
    where: Callable[[Host], bool] | None = None
    serial: bool = False
    removes: bool = False
    leftovers: bool = False

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
        if self.where is None:
            return True
        with self.errors_of(self.where):
            return self.where(host)

    def resources(self, host: Host) -> tuple[Resource, ...]:
        """The resources of the host, in the order in which they are applied. () if the task does not concern the host."""
        if not (self.leftovers or self.concerns(host)):
            return ()
        arguments = (host.settings[self.settings],) if self.settings else ()
        with self.errors_of(self.function):
            yielded = self.function(host, *arguments)
            if yielded is None:
                raise TypeError("the function returns nothing: write `yield` before each resource")
            found = tuple(yielded)
            for one in found:
                if not isinstance(one, Resource):
                    raise TypeError(f"expected resources, got {one!r}")
        return tuple(one.with_settings(host.settings) for one in found)

    @contextmanager
    def errors_of(self, function: Callable[..., Any] | None = None) -> Iterator[None]:
        """Reports an error in a function of the user's own as PlaybookError, with file, line and task."""
        function = function or self.function
        try:
            with redirect_stdout(sys.stderr):  # stdout may carry events as JSON
                yield
        except (ProvisionError, KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:  # SystemExit too: a playbook must not end the program
            if function.__module__.startswith("provision."):
                raise
            path = function.__code__.co_filename
            line = line_of(error, path) or function.__code__.co_firstlineno
            text = f"{path}:{line}: task {self.name}: {type(error).__name__}: {error}".removesuffix(": ")
            details = "".join(traceback.format_exception(error))
            raise PlaybookError(text, hint="fix the playbook file", details=details) from error


def line_of(error: BaseException, path: str) -> int:
    """The last line of the file's own code that led to the error, or 0."""
    traceback, line = error.__traceback__, 0
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename == path:
            line = traceback.tb_lineno
        traceback = traceback.tb_next
    return line


@overload
def task(
    on: str = "all",
    *,
    uses: tuple[type[Table], ...] = (),
    where: Callable[[Host], bool] | None = None,
    serial: bool = False,
    removes: bool = False,
    leftovers: bool = False,
) -> Callable[[Callable[[Host], Resources]], Task]: ...


@overload
def task(
    on: str = "all",
    *,
    settings: type[T],
    uses: tuple[type[Table], ...] = (),
    where: Callable[[Host], bool] | None = None,
    serial: bool = False,
    removes: bool = False,
    leftovers: bool = False,
) -> Callable[[Callable[[Host, T], Resources]], Task]: ...


def task(
    on: str = "all",
    *,
    settings: type[Table] | None = None,
    uses: tuple[type[Table], ...] = (),
    where: Callable[[Host], bool] | None = None,
    serial: bool = False,
    removes: bool = False,
    leftovers: bool = False,
) -> Callable[[Callable[..., Any]], Task]:
    """Turns a function into a task of the same name. See `Task` for the arguments.

    The function is called once for each host and run, as `function(host)`, or as `function(host, table)` with
    `settings`. Raises TypeError for arguments of other types, and if `settings` may occur several times: such a table
    belongs into `uses`.
    """
    if not isinstance(on, str):
        raise TypeError('write @task(on="all"), with brackets and the name of a group')
    if not isinstance(uses, tuple):
        raise TypeError("uses= expects a tuple of tables, such as uses=(Docker,)")
    for table in (*((settings,) if settings is not None else ()), *uses):
        if not (isinstance(table, type) and issubclass(table, Table)):
            raise TypeError(f"{table!r} is not a table: write class Name(Table)")
    if settings is not None and options_of(settings).occurs != "once":
        raise TypeError(
            f"settings={settings.__name__}: {options_of(settings).brackets} may occur several times; name it in uses=, "
            "and read it with host.settings.all(…) or host.settings.named(…)"
        )
    return lambda function: Task(function.__name__, on, function, settings, uses, where, serial, removes, leftovers)


class Play(NamedTuple):
    """Tasks, in order, on the hosts of a group.

    serial  one host after the other, in the inventory's order; after a failure the remaining hosts are skipped
    after   the plays that must have ended on all their hosts before this one starts; None: all plays before it in the list
    """

    on: str
    tasks: tuple[Task, ...]
    serial: bool = False
    after: tuple[Play, ...] | None = None


def play(on: str, *tasks: Task, serial: bool = False, after: Iterable[Play] | None = None) -> Play:
    """Makes a play: `play("runners", docker, runner)`.

    The play starts when all plays before it in the list have ended on all their hosts. With `after=(server,)` it waits for
    the play `server` only, and with `after=()` for no play. In each case a host works on its own plays in the order of the
    list. Raises TypeError if `after` contains anything but plays.
    """
    if after is None:
        return Play(on, tasks, serial)
    awaited = (after,) if isinstance(after, Play) else tuple(after)
    if wrong := [one for one in awaited if not isinstance(one, Play)]:
        raise TypeError(f"after={wrong[0]!r} is not a play: give the play a name, and write after=(NAME,)")
    return Play(on, tasks, serial, awaited)
