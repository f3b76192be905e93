"""Handlers that a resource has because of others: a unit restarts when its program changed, and not after its own start."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from provision.engine.apply import Applier
from provision.engine.desired_state import DesiredState, HostPlay, Owned
from provision.engine.plan import Planned
from provision.errors import UsageError
from provision.host.pending import Handler
from provision.host.state import HostState
from provision.resources import Change, Firewall, Note, Observation, Probe, Resource, Rule
from provision.shell import sh
from provision.tasks.base import Task
from provision.testing import FakeSession, LocalSession
from tests.unit.engine.conftest import Steps, host_of

RESTART = Handler("restart", "restart it", sh("toy-set restarted yes"))


@dataclass(frozen=True)
class Program(Resource):
    """A file of a toy host, with a version."""

    path: str
    version: str

    def probe(self) -> Probe:
        return Probe.of(sh("toy-get %s", self.path))

    def plan(self, seen: Observation) -> Iterator[Change | Note]:
        if seen.text != self.version:
            yield Change(f"install {self.version}", sh("toy-set %s %s", self.path, self.version))


@dataclass(frozen=True)
class Daemon(Resource):
    """Runs a program: started when it does not run, restarted when the program changed."""

    program: str

    @property
    def handlers(self) -> tuple[Handler, ...]:
        return (RESTART,)

    @property
    def watches(self) -> Mapping[str, Handler]:
        return {self.program: RESTART}

    def probe(self) -> Probe:
        return Probe.of(sh("toy-get running"))

    def plan(self, seen: Observation) -> Iterator[Change | Note]:
        if not seen.text:
            yield Change("start it", sh("toy-set running yes"), replaces=(RESTART,))


class TestWatches:
    """Two resources of one task."""

    @pytest.mark.parametrize("check", [False, True])
    def test_a_new_program_restarts_what_runs_it(self, engine: Any, toys: Any, check: bool) -> None:
        """Though the resource that installs it notifies nothing itself."""
        host = toys.Host({"running": "yes"})
        output = engine({"web1": host}, [toys.task("1", Program("/bin/x", "2"), Daemon("/bin/x"))], check=check)
        mark = "?" if check else ""
        assert output.changes == [f"web1: {mark}install 2", f"web1: {mark}restart it"]

    @pytest.mark.parametrize("check", [False, True])
    def test_what_was_just_started_is_not_restarted(self, engine: Any, toys: Any, check: bool) -> None:
        """The start has the new program already."""
        output = engine({"web1": toys.Host()}, [toys.task("1", Program("/bin/x", "2"), Daemon("/bin/x"))], check=check)
        assert [one.replace("?", "") for one in output.changes] == ["web1: install 2", "web1: start it"]

    def test_a_program_that_changes_after_the_start(self, engine: Any, toys: Any) -> None:
        """The order counts: it was started with the old one."""
        host = toys.Host()
        engine({"web1": host}, [toys.task("1", Daemon("/bin/x"), Program("/bin/x", "2"))])
        assert host.was_set == ["running", "/bin/x", "restarted"]

    def test_other_files_and_other_tasks(self, engine: Any, toys: Any) -> None:
        """Neither restarts it."""
        host = toys.Host({"running": "yes"})
        tasks = [toys.task("1", Program("/bin/y", "2"), Daemon("/bin/x")), toys.task("2", Program("/bin/x", "2"))]
        engine({"web1": host}, tasks)
        assert host.was_set == ["/bin/y", "/bin/x"]

    def test_a_restart_that_a_killed_run_left_pending(self, tmp_path: Path) -> None:
        """A start clears it on the host as well."""
        home = tmp_path / "home"
        home.mkdir()
        (home / "pending").write_text("restart\trestart it\nother\tdo it\n")
        host = LocalSession({"/var/lib/provision": home})
        change = Change("start it", sh("true"), replaces=(RESTART,))
        Applier(host, HostState(), FakeSession).apply([Planned(Owned("task", Daemon("/bin/x")), change)], Steps())
        assert (home / "pending").read_text() == "other\tdo it\n"


@dataclass(frozen=True)
class Recorded(Resource):
    """Something with a record."""

    name: str
    record_key: str = "things"

    def probe(self) -> Probe:
        return Probe()

    def plan(self, seen: Observation) -> Iterator[Change | Note]:
        del seen
        yield from ()


def test_a_record_of_what_a_command_printed(tmp_path: Path) -> None:
    """It is on the host once the command has ended, and not before."""
    host = LocalSession({"/var/lib/provision": tmp_path / "home"})
    applier = Applier(host, HostState(), FakeSession)
    change = Change("make it", sh("test ! -e /var/lib/provision/state.json && echo made 7"), record_from=str.split)
    applier.apply([Planned(Owned("task", Recorded("x")), change)], Steps())
    state = HostState.parse((tmp_path / "home/state.json").read_text())
    assert state.record("task", "things") == ["made", "7"]
    assert applier.state.record("task", "things") == ["made", "7"]


def desired_of(task: Task) -> list[Owned]:
    """The resources that a task yields for a host."""
    return list(DesiredState([host_of("web1")], [HostPlay({"web1": (task,)})])["web1"].tasks[task])


class TestMerged:
    """Several resources of one task under one record key."""

    def test_firewall_rules_of_one_task_are_one_resource(self, toys: Any) -> None:
        """Otherwise each would remove the other's rules."""
        task = toys.task("1", Firewall.allow(80), Recorded("x"), Firewall.allow(443, comment="web"))
        wall, other = (one.resource for one in desired_of(task))
        assert wall == Firewall([Rule(80), Rule(443)])
        assert other == Recorded("x")

    def test_others_are_refused(self, toys: Any) -> None:
        """With the name of the second, before any host is contacted."""
        with pytest.raises(UsageError, match="Recorded y: the task yields two resources that record the same thing"):
            desired_of(toys.task("1", Recorded("x"), Recorded("y")))
