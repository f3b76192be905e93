"""systemd units: services that run, and units of our own.  Sources: systemctl(1), systemd.unit(5), systemd.timer(5)."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from provision.editing.diff import masked_diff
from provision.errors import ProbeFailed, UsageError
from provision.host.files import BACKUP
from provision.host.pending import Handler, handlers_of
from provision.host.scripts import script
from provision.resources.base import BatchQuery, Change, Note, Observation, Probe, Resource
from provision.resources.system.file import ask_file, digest, read_file
from provision.shell import Command, Result, sh
from provision.templating import render

UNIT_FOLDER: Final = "/etc/systemd/system"
_PROPERTIES: Final = "LoadState,ActiveState,UnitFileState,NeedDaemonReload"
_ENABLED: Final = ("enabled", "static", "enabled-runtime", "generated")
_RUNNING: Final = ("active", "reloading")
_START_SECONDS: Final = 120.0
_SUFFIXES: Final = (".service", ".timer", ".socket", ".path", ".mount", ".target", ".slice")
_PATH: Final = re.compile(r"(?<![\w./@%-])/[\w./@+-]+")
_NAME: Final = re.compile(r"[A-Za-z0-9:_.\\@-]+")


@dataclass(frozen=True)
class AskUnit(BatchQuery):
    """Asks for the state of one unit; several units of a host are asked for by one `systemctl show`."""

    unit: str = ""

    @classmethod
    def join(cls, questions: Sequence[AskUnit]) -> Command:
        """One command that prints a block for each unit, in order."""
        return _show([one.unit for one in questions])

    @classmethod
    def split(cls, questions: Sequence[AskUnit], result: Result) -> list[Result] | None:
        """The blocks, which empty lines separate; None when their number is not that of the units."""
        blocks = result.stdout.split(b"\n\n")
        return [Result(block) for block in blocks] if result.code == 0 and len(blocks) == len(questions) else None


def ask_unit(name: str) -> Command:
    """Asks for the state of a unit: `UnitState.read` reads the answer."""
    return AskUnit(_show([name]).script, unit=name)


def _show(units: list[str]) -> Command:
    return sh(f"systemctl show %s --property={_PROPERTIES}", units)


class UnitState(NamedTuple):
    """What systemd reports about a unit; the words are those of `systemctl show`."""

    active: str
    enabled: str
    outdated: bool

    @classmethod
    def read(cls, name: str, result: Result) -> UnitState:
        """Reads the answer to `ask_unit`. Raises ProbeFailed when systemd does not answer."""
        values = dict(line.partition("=")[::2] for line in result.text.splitlines() if "=" in line)
        if "ActiveState" not in values:
            raise ProbeFailed(
                f"systemctl does not answer for {name}: {result.errors.strip()}",
                hint="the host must run systemd: check `systemctl status` there",
            )
        return cls(values["ActiveState"], values.get("UnitFileState", ""), values.get("NeedDaemonReload") == "yes")

    @property
    def is_running(self) -> bool:
        """Whether the unit is active."""
        return self.active in _RUNNING

    @property
    def is_enabled(self) -> bool:
        """Whether the unit starts at boot, by itself or because another unit wants it."""
        return self.enabled in _ENABLED


def _enable(name: str) -> Change:
    return Change(f"enable {name} at boot", sh("systemctl enable -- %s", name))


def _start(name: str, *, replaces: tuple[Handler, ...] = ()) -> Change:
    # A unit that failed too often refuses to start until its counter is reset.
    start = sh("systemctl reset-failed -- %s 2>/dev/null; systemctl start -- %s", name, name)
    return Change(f"start {name}", start, replaces=replaces, deadline=_START_SECONDS)


@dataclass(frozen=True)
class Service(Resource):
    """An installed unit runs and starts at boot. systemctl itself refuses a unit that an administrator masked.

    running, enabled   whether to start it, and whether to enable it at boot; False leaves that unchanged
    """

    name: str
    running: bool = True
    enabled: bool = True

    def probe(self) -> Probe:
        return Probe.of(ask_unit(self.name))

    def plan(self, seen: Observation) -> Iterator[Change | Note]:
        state = UnitState.read(self.name, seen.only)
        if self.enabled and not state.is_enabled:
            yield _enable(self.name)
        if self.running and not state.is_running:
            yield _start(self.name)


@dataclass(frozen=True, init=False)
class Unit(Resource):
    """A systemd unit of our own: its file in /etc/systemd/system, enabled and running.

    name       a unit's name; without a suffix it is a service: `node_exporter`, `backup.timer`
    template   the unit file, from `templates/`, rendered with `values`; or
    content    the unit file's text
    running    start it, and restart it when its file changes, or when another resource of the task changes a file that
               the unit names (its program, its configuration); False for a service that a timer starts
    enabled    start it at boot; False for a unit without an [Install] section
    notify     handlers that run because the unit file changed, besides the restart

    For a change of another task, or of a file that the unit does not name, give that resource `notify=unit.restart`.
    Raises UsageError for a name that is no unit's, for a missing text, and for a template that cannot be rendered.
    """

    name: str
    content: str
    enabled: bool
    running: bool
    notify: tuple[Handler, ...]

    def __init__(
        self,
        name: str,
        template: str = "",
        *,
        content: str = "",
        enabled: bool = True,
        running: bool = True,
        notify: Handler | Sequence[Handler] = (),
        **values: Any,
    ) -> None:
        if bool(template) == bool(content) or (content and values):
            raise UsageError(
                f"Unit {name}: give the unit file either as template= with its values, or as content=",
                hint='Unit("x", template="x.service.j2", port=80), with the template in templates/ beside the inventory',
            )
        text = render(template, **values) if template else content
        given: Mapping[str, Any] = {
            "name": unit_name(name),
            "content": text if text.endswith("\n") else f"{text}\n",
            "enabled": enabled,
            "running": running,
            "notify": handlers_of(notify),
        }
        for field, value in given.items():
            object.__setattr__(self, field, value)

    @property
    def path(self) -> str:
        """The unit file's path on the host."""
        return f"{UNIT_FOLDER}/{self.name}"

    @property
    def restart(self) -> Handler:
        """The handler that restarts this unit."""
        return Handler.restart(self.name)

    @property
    def handlers(self) -> tuple[Handler, ...]:
        return (*((self.restart,) if self.running else ()), *self.notify)

    @property
    def watches(self) -> Mapping[str, Handler]:
        return dict.fromkeys(_PATH.findall(self.content), self.restart) if self.running else {}

    def claims(self) -> Mapping[str, Hashable]:
        return {self.path: (digest(self.content), self.enabled, self.running)}

    def probe(self) -> Probe:
        return Probe({"file": ask_file(self.path), "unit": ask_unit(self.name)})

    def plan(self, seen: Observation) -> Iterator[Change | Note]:
        found = read_file(self.path, seen, "file")
        state = UnitState.read(self.name, seen["unit"])
        before = (found.content or b"").decode("utf-8", "backslashreplace")
        # A unit that does not run yet is started with its new file: no restart is needed.
        notify = self.handlers if state.is_running else self.notify
        if found.content is None or before != self.content:
            verb = "create" if found.content is None else "update"
            yield Change(
                f"{verb} {self.path}",
                script("write_unit", self.path, BACKUP).reading(self.content),
                "create" if found.content is None else "update",
                masked_diff(self.path, before, self.content),
                notify,
            )
        elif state.outdated:
            yield Change(f"reload {self.path}, which changed on disk", sh("systemctl daemon-reload"), notify=notify)
        if self.enabled and not state.is_enabled:
            yield _enable(self.name)
        if self.running and not state.is_running:
            yield _start(self.name, replaces=(self.restart,))


@dataclass(frozen=True)
class AbsentUnit(Resource):
    """A unit of ours is stopped, disabled, and its file in /etc/systemd/system is deleted."""

    name: str

    @property
    def label(self) -> str:
        return f"Unit {unit_name(self.name)}"

    def claims(self) -> Mapping[str, Hashable]:
        return {self._path: "absent"}

    def probe(self) -> Probe:
        path = self._path
        return Probe.of(sh("test ! -e %s && test ! -L %s", path, path))

    def plan(self, seen: Observation) -> Iterator[Change | Note]:
        if seen.code != 0:
            name, path = unit_name(self.name), self._path
            yield Change(
                f"remove the unit {name}", script("remove_unit", name, path), "delete", deadline=_START_SECONDS
            )

    @property
    def _path(self) -> str:
        return f"{UNIT_FOLDER}/{unit_name(self.name)}"


def unit_name(name: str) -> str:
    """The full name of a unit: `.service` is added where no suffix is given. Raises UsageError for other names."""
    if not _NAME.fullmatch(name):
        raise UsageError(f"{name!r} is not a unit's name", hint="use letters, digits and any of : - _ . \\ @")
    return name if name.endswith(_SUFFIXES) else f"{name}.service"
