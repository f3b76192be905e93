"""Check mode plans the tasks after a failed one, and names those that truly depend on it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from provision.engine.desired_state import HostPlay
from provision.errors import ApiFailed, ConnectionLost, Refused
from provision.resources.base import ApiQuery, Change, Note, Observation, Probe, Resource
from provision.shell import sh
from tests.unit.engine.conftest import Toy, ToyHost, toy_task


@dataclass(frozen=True)
class Refuses(Resource):
    """It refuses, whatever is observed."""

    name: str
    error: Exception

    def probe(self) -> Probe:
        return Probe.of(sh("toy-get %s", self.name))

    def plan(self, seen: Observation) -> Iterator[Change | Note]:
        del seen
        raise self.error
        yield


@dataclass(frozen=True)
class Requires(Resource):
    """A change that requires another task."""

    task: str

    def probe(self) -> Probe:
        return Probe.of(sh("toy-get %s", f"after-{self.task}"))

    def plan(self, seen: Observation) -> Iterator[Change | Note]:
        del seen
        yield Change(f"do what {self.task} allows", sh("toy-set x y"), requires=self.task)


BROKEN = toy_task("broken", Refuses("x", Refused("it would do harm")), Toy("beside"))


def test_the_rest_is_planned(engine: Any) -> None:
    """The other resources of the failed task, and the tasks after it; nothing is changed."""
    host = ToyHost()
    report = engine({"a": host}, [BROKEN, toy_task("later", Toy("k"))], check=True)
    assert report.changes == ["a: ?set beside to on", "a: ?set k to on"]
    assert [one.text for one in report.errors] == ["it would do harm"]
    assert report.statuses == ["a broken failed", "a later changed"]
    assert (report.summary.failed, report.summary.hosts["a"].failed, report.summary.hosts["a"].skipped) == (1, 1, 0)
    assert host.was_set == []


def test_every_refusal_of_a_task_is_reported(engine: Any) -> None:
    """Not only the first one."""
    task = toy_task("broken", Refuses("x", Refused("one")), Refuses("y", Refused("two")))
    report = engine({"a": ToyHost()}, [task], check=True)
    assert [one.text for one in report.errors] == ["one", "two"]
    assert report.summary.hosts["a"].failed == 1


def test_what_depends_on_it_is_not_planned(engine: Any) -> None:
    """Also what depends on that; a requirement that did not fail is predicted as before."""
    third = toy_task("third", Requires("second"))
    tasks = [BROKEN, toy_task("second", Requires("broken")), third, toy_task("fourth", Requires("elsewhere"))]
    report = engine({"a": ToyHost()}, tasks, check=True)
    assert report.messages == [
        "not planned, depends on broken, which failed: do what broken allows",
        "not planned, depends on second, which failed: do what second allows",
    ]
    assert report.statuses == ["a broken failed", "a second skipped", "a third skipped", "a fourth changed"]


def test_a_task_of_another_host(engine: Any) -> None:
    """A requirement that does not run on this host is looked up on the others; one that does is this host's own."""
    fails_on_a = HostPlay({"a": (BROKEN,), "b": (toy_task("broken", Toy("fine")),)})
    report = engine(
        {"a": ToyHost(), "b": ToyHost(), "c": ToyHost()},
        fails_on_a,
        (["b", "c"], [toy_task("second", Requires("broken"))]),
        check=True,
    )
    assert [len(report.messages_of(one)) for one in "abc"] == [0, 0, 1]
    assert "b: ?do what broken allows" in report.changes


def test_a_serial_play_goes_on(engine: Any) -> None:
    """The other hosts are planned, too."""
    chain = object()
    later = toy_task("broken", Toy("k"))
    plays = [HostPlay({"a": (BROKEN,)}, chain), HostPlay({"b": (later,)}, chain)]
    report = engine({"a": ToyHost(), "b": ToyHost()}, *plays, check=True)
    assert set(report.statuses) == {"a broken failed", "b broken changed"}


def test_a_lost_connection_ends_the_host(engine: Any) -> None:
    """Nothing more can be observed."""
    lost = toy_task("broken", Refuses("x", ConnectionLost("gone")))
    report = engine({"a": ToyHost()}, [lost, toy_task("later", Toy("k"))], check=True)
    assert report.statuses == ["a broken unreachable", "a later skipped"]
    assert report.changes == []


def test_an_api_that_does_not_answer(engine: Any) -> None:
    """It fails the tasks that ask it; all others are planned, whatever their order."""

    @dataclass(frozen=True)
    class Asks(Resource):
        name: str

        def probe(self) -> Probe:
            return Probe.of(ApiQuery(self.name, self.ask))

        def ask(self, seen: Observation) -> None:
            del seen
            raise ApiFailed("GitLab does not answer")

        def plan(self, seen: Observation) -> Iterator[Change | Note]:
            del seen
            yield Note("never")

    tasks = [toy_task("early", Toy("e")), toy_task("api", Asks("x")), toy_task("later", Toy("k"))]
    report = engine({"a": ToyHost()}, tasks, check=True)
    assert report.statuses == ["a early changed", "a api failed", "a later changed"]


def test_a_run_that_applies_stops_at_the_first_failure(engine: Any) -> None:
    """What follows may need it."""
    host = ToyHost()
    report = engine({"a": host}, [BROKEN, toy_task("later", Toy("k"))])
    assert report.statuses == ["a broken failed", "a later skipped"]
    assert host.was_set == []
