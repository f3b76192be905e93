"""Toy hosts: a few values that can be read and set, over sessions that keep the commands that they were given."""

from __future__ import annotations

import re
import shlex
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from provision.engine.apply import Work
from provision.engine.run import HostPlay, Run
from provision.host.pending import Handler
from provision.inventory import Host, Settings
from provision.resources.base import Change, Note, Observation, Probe, Resource
from provision.shell import Command, Result, sh
from provision.ssh.session import Session
from provision.tasks.base import Task
from provision.testing import FakeSession
from tests.support.report import RunReport


@dataclass(frozen=True)
class Toy(Resource):
    """A value under a key of a toy host.

    after   what must have been set on the host before this one can be
    remark  a note that it makes
    """

    key: str
    value: str = "on"
    notify: tuple[Handler, ...] = ()
    after: str = ""
    remark: str = ""

    @property
    def handlers(self) -> tuple[Handler, ...]:
        return self.notify

    @property
    def label(self) -> str:
        return f"Toy {self.key}"

    def probe(self) -> Probe:
        questions = {"value": sh("toy-get %s", self.key)}
        return Probe({**questions, "after": sh("toy-get %s", self.after)} if self.after else questions)

    def plan(self, seen: Observation) -> Iterator[Change | Note]:
        if self.remark:
            yield Note(self.remark)
        if seen["value"].text != self.value:
            waits = self.after if self.after and not seen["after"].text else ""
            yield Change(
                f"set {self.key} to {self.value}",
                sh("toy-set %s %s", self.key, self.value),
                diff=f"+{self.value}",
                notify=self.notify,
                requires=waits,
            )


@dataclass(frozen=True)
class Check(Resource):
    """A verification: it leaves nothing."""

    name: str
    always: bool = False
    final: bool = False

    @property
    def label(self) -> str:
        return f"Check {self.name}"

    def probe(self) -> Probe:
        return Probe.of(sh("toy-get %s", f"checked-{self.name}"))

    def plan(self, seen: Observation) -> Iterator[Change | Note]:
        if self.always or seen.text != "shown":
            show = sh("toy-set %s shown", f"checked-{self.name}")
            yield Change(f"verify {self.name}", show, "run", verification=True, final=self.final)


class ToyHost(FakeSession):
    """Values under keys; `on_set` is called with each key that is set, and may raise or return another exit code."""

    def __init__(self, values: Mapping[str, str] | None = None, on_set: Callable[[str], Any] | None = None) -> None:
        self.values = dict(values or {})
        self._on_set = on_set
        super().__init__({re.compile(r"toy-get \S+$"): self._get, re.compile(r"toy-set (\S+) (\S+)"): self._set})

    def _get(self, command: Command) -> str:
        return self.values.get(shlex.split(command.script)[1], "")

    def _set(self, command: Command) -> Result:
        found = re.search(r"toy-set (\S+) (\S+)", command.script)
        assert found is not None
        code = self._on_set(found[1]) if self._on_set else 0
        if code:
            return Result(b"", b"toy broke\n", code)
        self.values[found[1]] = found[2]
        return Result(f"{found[1]} set\n".encode())

    @property
    def was_set(self) -> list[str]:
        """The keys that were set, in order."""
        found = [re.search(r"toy-set (\S+)", one.script) for one in self.ran]
        return [one[1] for one in found if one]


class Pieces(FakeSession):
    """A session whose command prints these pieces and then ends with this exit code."""

    def __init__(self, *pieces: bytes, code: int = 0) -> None:
        super().__init__()
        self.pieces = pieces
        self.code = code

    def run(self, command: Command, *, deadline: float, on_output: Callable[[bytes], None] | None = None) -> Result:
        del command, deadline
        assert on_output is not None
        for piece in self.pieces:
            on_output(piece)
        return Result(code=self.code)


class Steps:
    """A Progress that keeps the outputs in `heard`, and everything else in `events`."""

    def __init__(self, heard: list[str] | None = None) -> None:
        self.heard = heard if heard is not None else []
        self.events: list[str] = []

    def begin(self, one: Work) -> None:
        self.events.append(f"begin {summary(one)}")

    def output(self, text: str) -> None:
        self.heard.append(text)

    def end(self, one: Work) -> None:
        self.events.append(f"end {summary(one)}")

    def observe(self) -> None:
        self.events.append("observe")

    def stopped(self) -> None:
        self.events.append("stopped")


def summary(one: Work) -> str:
    """What a change or a handler does."""
    return one.summary if isinstance(one, Handler) else one.change.summary


def toy_task(name: str, *resources: Resource, on: str = "all") -> Task:
    """A task of these resources."""

    def function(host: Host) -> Iterator[Resource]:
        """Toys are as they should be."""
        del host
        yield from resources

    return Task(name, on, function)


Sessions = Mapping[str, Session | Exception]


def host_of(name: str, groups: tuple[str, ...] = ()) -> Host:
    """A host without settings: toys have none."""
    return Host(name, name, groups, None, Settings({}))


class Engine:
    """Assembles runs."""

    def __call__(
        self,
        sessions: Sessions,
        *plays: Sequence[Task] | tuple[Sequence[str], Sequence[Task]] | HostPlay,
        check: bool = False,
        forks: int = 32,
        run: Callable[[Run], None] | None = None,
    ) -> RunReport:
        """Executes plays. A play is a list of tasks for all hosts, or (names of hosts, tasks)."""
        report = RunReport()
        engine = self.run(sessions, *plays, report=report, check=check, forks=forks)
        if run is not None:
            run(engine)
        report.summary = engine.execute()
        return report

    @staticmethod
    def run(
        sessions: Sessions,
        *plays: Sequence[Task] | tuple[Sequence[str], Sequence[Task]] | HostPlay,
        report: RunReport,
        check: bool = False,
        forks: int = 32,
    ) -> Run:
        """The run, before it is executed."""

        def connect(host: Host) -> Session:
            session = sessions[host.name]
            if isinstance(session, Exception):
                raise session
            return session

        names = tuple(sessions)
        host_plays = [
            one
            if isinstance(one, HostPlay)
            else HostPlay({name: tuple(one[1]) for name in one[0]})
            if isinstance(one, tuple)
            else HostPlay({name: tuple(one) for name in names})
            for one in plays
        ]
        return Run(("toys",), [host_of(name) for name in names], host_plays, connect, [report], check, forks)


@pytest.fixture
def engine() -> Engine:
    """`engine({"web1": ToyHost()}, [task, …])` → the report."""
    return Engine()


@pytest.fixture
def no_thread_for_b(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system has no thread for the host b."""
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "host b":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)


@pytest.fixture
def toys() -> type:
    """What tests make hosts, resources and tasks of."""

    class Toys:
        Toy = Toy
        Check = Check
        Host = ToyHost
        task = staticmethod(toy_task)

    return Toys
