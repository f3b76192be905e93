"""How often a host is observed, and what it is asked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from provision.host.pending import ASK_PENDING, Handler
from provision.host.state import ASK_STATE
from provision.resources.base import Change, Note, Observation, Probe, Resource
from provision.shell import Command, sh


def scripts(look: list[Command]) -> list[str]:
    """The scripts of a batch."""
    return [one.script for one in look]


def test_a_run_that_changes_nothing_observes_once(engine: Any, toys: Any) -> None:
    """Whatever the number of plays and tasks: one batch, one round trip."""
    host = toys.Host({"a": "on", "b": "on", "c": "on"})
    tasks = [toys.task(name, toys.Toy(name)) for name in "abc"]
    report = engine({"web1": host}, tasks[:2], tasks[2:], tasks)
    assert len(host.batches) == 1
    assert host.ran == []
    assert report.summary.hosts["web1"].round_trips == 1
    assert report.statuses == ["web1 a ok", "web1 b ok", "web1 c ok", "web1 a ok", "web1 b ok", "web1 c ok"]


def test_equal_questions_are_asked_once(engine: Any, toys: Any) -> None:
    """Two resources that ask the same, and our own two questions."""
    host = toys.Host({"a": "on"})
    engine({"web1": host}, [toys.task("x", toys.Toy("a"), toys.Toy("a")), toys.task("y", toys.Toy("a"))])
    assert scripts(host.batches[0]) == [ASK_PENDING.script, ASK_STATE.script, "toy-get a"] or sorted(
        scripts(host.batches[0])
    ) == sorted([ASK_PENDING.script, ASK_STATE.script, "toy-get a"])


def test_after_a_change_its_task_and_later_ones_are_observed_in_one_batch(engine: Any, toys: Any) -> None:
    """Earlier tasks are not asked again."""
    host = toys.Host({"a": "on"})
    engine({"web1": host}, [toys.task(name, toys.Toy(name)) for name in "abc"][:2])
    assert len(host.batches) == 2
    assert scripts(host.batches[1]) == [ASK_PENDING.script, "toy-get b"]
    host = toys.Host({"a": "on", "c": "on"})
    engine({"web1": host}, [toys.task(name, toys.Toy(name)) for name in "abc"])
    assert scripts(host.batches[1]) == [ASK_PENDING.script, "toy-get b", "toy-get c"]
    assert len(host.batches) == 2


def test_changes_handlers_and_the_next_observation_take_one_round_trip(engine: Any, toys: Any) -> None:
    """One round trip observes the host. One more applies the changes of a task, whatever their number, and observes again."""
    reload = Handler("reload", "reload it", sh("toy-set reloaded yes"))
    host = toys.Host()
    report = engine(
        {"web1": host}, [toys.task("many", *(toys.Toy(f"k{number}", notify=(reload,)) for number in range(10)))]
    )
    assert (len(host.batches), len(host.ran)) == (2, 11)
    assert host.was_set[-1] == "reloaded"
    assert report.summary.hosts["web1"].changed == 11
    assert report.summary.hosts["web1"].round_trips == 2


def test_each_round_of_a_task_takes_one_round_trip(engine: Any, toys: Any) -> None:
    """A change that requires earlier ones is planned from the observation that was sent with these."""
    host = toys.Host()
    report = engine(
        {"web1": host}, [toys.task("a", toys.Toy("a1"), toys.Toy("a2"), toys.Toy("b1", after="a1"), toys.Check("c"))]
    )
    assert host.was_set == ["a1", "a2", "checked-c", "b1"]
    assert report.summary.hosts["web1"].round_trips == 3
    assert report.statuses == ["web1 a changed"]


@dataclass(frozen=True)
class Signed(Resource):
    """A question that contains the time, such as a signed request to S3."""

    now: list[int] = field(compare=False)

    def probe(self) -> Probe:
        return Probe.of(sh("echo %s", self.now[0]))

    def plan(self, seen: Observation) -> Iterator[Change | Note]:
        del seen
        yield from ()


def test_a_question_that_has_changed_meanwhile_is_asked_again(
    engine: Any, toys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer to the old question does not count as an answer to the new one."""
    monkeypatch.setattr("provision.engine.desired_state._PROBE_SECONDS", -1.0)
    now = [0]

    def pass_time(_: str) -> int:
        now[0] += 1
        return 0

    host = toys.Host(on_set=pass_time)
    report = engine({"web1": host}, [toys.task("a", toys.Toy("a"), Signed(now))])
    assert report.statuses == ["web1 a changed"]
    assert report.summary.hosts["web1"].round_trips == 3
    assert [[one for one in scripts(asked) if "echo" in one] for asked in host.batches] == [["echo 0"]] * 2 + [
        ["echo 1"]
    ]


def test_a_later_play_observes_again_only_after_a_change_anywhere(engine: Any, toys: Any) -> None:
    """A change of another host may concern this one."""
    changing, quiet = toys.Host(), toys.Host({"b": "on"})
    plays = ((["one"], [toys.task("a", toys.Toy("a"))]), (["two"], [toys.task("b", toys.Toy("b"))]))
    engine({"one": changing, "two": quiet}, *plays)
    assert len(quiet.batches) == 2
    changing, quiet = toys.Host({"a": "on"}), toys.Host({"b": "on"})
    engine({"one": changing, "two": quiet}, *plays)
    assert len(quiet.batches) == 1


def test_a_change_in_the_same_play_does_not_concern_other_hosts(engine: Any, toys: Any) -> None:
    """Hosts of one play do not depend on each other."""
    changing, quiet = toys.Host(), toys.Host({"a": "on"})
    for _ in range(5):
        engine({"one": changing, "two": quiet}, [toys.task("a", toys.Toy("a"))], forks=1)
        assert len(quiet.batches) == 1
        changing.values.clear()
        quiet.batches.clear()


def test_its_own_change_in_an_earlier_play_is_a_change(engine: Any, toys: Any) -> None:
    """The second play sees the first one's work."""
    host = toys.Host()
    report = engine({"web1": host}, [toys.task("a", toys.Toy("a"))], [toys.task("b", toys.Toy("b", after="a"))])
    assert report.changes == ["web1: set a to on", "web1: set b to on"]
    assert report.summary.failed == 0


def test_check_mode_observes_once_and_runs_nothing(engine: Any, toys: Any) -> None:
    """Whatever the number of changes and plays."""
    host = toys.Host()
    report = engine(
        {"web1": host}, [toys.task("a", toys.Toy("a"))], [toys.task("b", toys.Toy("b"), toys.Check("p"))], check=True
    )
    assert (len(host.batches), host.ran) == (1, [])
    assert report.changes == ["web1: ?set a to on", "web1: ?set b to on"]
    assert report.messages == ["would verify p"]
    assert report.summary.check
    assert report.summary.changed == 2


def test_a_change_that_requires_another_is_predicted(engine: Any, toys: Any) -> None:
    """In check mode it names what it requires."""
    report = engine({"web1": toys.Host()}, [toys.task("t", toys.Toy("a"), toys.Toy("b", after="a"))], check=True)
    assert report.changes == ["web1: ?set a to on", "web1: ?set b to on"]
    assert [one.requires for one in report.events if hasattr(one, "predicted") and one.predicted] == ["a"]


def test_an_api_query_is_made_once(engine: Any, toys: Any) -> None:
    """Equal keys are one question; what it needs of the host is asked in the same batch."""

    from provision.resources.base import ApiQuery, Note, Probe, Resource

    asked: list[str] = []

    def call(seen: Observation) -> str:
        asked.append(seen.text)
        return "answer"

    class Remote(Resource):
        label = "Remote"

        def probe(self) -> Probe:
            return Probe({"api": ApiQuery("key", call, sh("toy-get a"))})

        def plan(self, seen: Observation) -> Iterator[Change | Note]:
            yield Note(seen.data("api"))

    host = toys.Host({"a": "on"})
    report = engine({"web1": host}, [toys.task("t", toys.Toy("a"), Remote(), Remote())])
    assert asked == ["on"]
    assert report.messages == ["answer", "answer"]
    assert len(host.batches) == 1
