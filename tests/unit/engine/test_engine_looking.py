"""How often a host is looked at, and what it is asked."""

from __future__ import annotations

from typing import Any

from provision.host.pending import ASK_PENDING
from provision.host.state import ASK_STATE
from provision.shell import Command, sh


def scripts(look: list[Command]) -> list[str]:
    """A batch, as text."""
    return [one.script for one in look]


def test_a_run_that_changes_nothing_looks_once(engine: Any, toys: Any) -> None:
    """Whatever the number of plays and tasks: one batch, one round trip."""
    host = toys.Host({"a": "on", "b": "on", "c": "on"})
    tasks = [toys.task(name, toys.Toy(name)) for name in "abc"]
    told = engine({"web1": host}, tasks[:2], tasks[2:], tasks)
    assert len(host.batches) == 1
    assert host.ran == []
    assert told.summary.hosts["web1"].round_trips == 1
    assert told.statuses == ["web1 a ok", "web1 b ok", "web1 c ok", "web1 a ok", "web1 b ok", "web1 c ok"]


def test_equal_questions_are_asked_once(engine: Any, toys: Any) -> None:
    """Two resources that look at one thing, and our own two questions."""
    host = toys.Host({"a": "on"})
    engine({"web1": host}, [toys.task("x", toys.Toy("a"), toys.Toy("a")), toys.task("y", toys.Toy("a"))])
    assert scripts(host.batches[0]) == [ASK_PENDING.script, ASK_STATE.script, "toy-get a"] or sorted(
        scripts(host.batches[0])
    ) == sorted([ASK_PENDING.script, ASK_STATE.script, "toy-get a"])


def test_after_a_change_its_task_and_those_to_come_are_looked_at_in_one_batch(engine: Any, toys: Any) -> None:
    """What lies behind is not asked again."""
    host = toys.Host({"a": "on"})
    engine({"web1": host}, [toys.task(name, toys.Toy(name)) for name in "abc"][:2])
    assert len(host.batches) == 2
    assert scripts(host.batches[1]) == [ASK_PENDING.script, "toy-get b"]
    host = toys.Host({"a": "on", "c": "on"})
    engine({"web1": host}, [toys.task(name, toys.Toy(name)) for name in "abc"])
    assert scripts(host.batches[1]) == [ASK_PENDING.script, "toy-get b", "toy-get c"]
    assert len(host.batches) == 2


def test_changes_of_one_task_are_applied_between_two_looks(engine: Any, toys: Any) -> None:
    """Ten changes cost ten runs and one more look."""
    host = toys.Host()
    told = engine({"web1": host}, [toys.task("many", *(toys.Toy(f"k{number}") for number in range(10)))])
    assert (len(host.batches), len(host.ran)) == (2, 10)
    assert told.summary.hosts["web1"].changed == 10


def test_a_later_play_looks_again_only_after_a_change_anywhere(engine: Any, toys: Any) -> None:
    """What another host changed may be seen from here."""
    changing, quiet = toys.Host(), toys.Host({"b": "on"})
    plays = ((["one"], [toys.task("a", toys.Toy("a"))]), (["two"], [toys.task("b", toys.Toy("b"))]))
    engine({"one": changing, "two": quiet}, *plays)
    assert len(quiet.batches) == 2
    changing, quiet = toys.Host({"a": "on"}), toys.Host({"b": "on"})
    engine({"one": changing, "two": quiet}, *plays)
    assert len(quiet.batches) == 1


def test_a_change_in_the_same_play_is_nobody_elses_business(engine: Any, toys: Any) -> None:
    """Hosts of one play do not depend on each other, whoever is quicker."""
    changing, quiet = toys.Host(), toys.Host({"a": "on"})
    for _ in range(5):
        engine({"one": changing, "two": quiet}, [toys.task("a", toys.Toy("a"))], forks=1)
        assert len(quiet.batches) == 1
        changing.values.clear()
        quiet.batches.clear()


def test_its_own_change_in_an_earlier_play_is_a_change(engine: Any, toys: Any) -> None:
    """The second play sees the first one's work."""
    host = toys.Host()
    told = engine({"web1": host}, [toys.task("a", toys.Toy("a"))], [toys.task("b", toys.Toy("b", after="a"))])
    assert told.changes == ["web1: set a to on", "web1: set b to on"]
    assert told.summary.failed == 0


def test_check_mode_looks_once_and_runs_nothing(engine: Any, toys: Any) -> None:
    """However much is to be done, in however many plays."""
    host = toys.Host()
    told = engine(
        {"web1": host}, [toys.task("a", toys.Toy("a"))], [toys.task("b", toys.Toy("b"), toys.Check("p"))], check=True
    )
    assert (len(host.batches), host.ran) == (1, [])
    assert told.changes == ["web1: ?set a to on", "web1: ?set b to on"]
    assert told.texts == ["would verify p"]
    assert told.summary.check
    assert told.summary.changed == 2


def test_what_is_not_there_yet_is_predicted(engine: Any, toys: Any) -> None:
    """In check mode a change that waits says for what."""
    told = engine({"web1": toys.Host()}, [toys.task("t", toys.Toy("a"), toys.Toy("b", after="a"))], check=True)
    assert told.changes == ["web1: ?set a to on", "web1: ?after a: set b to on"]
    assert [one.predicted for one in told.events if hasattr(one, "predicted")] == [False, True]


def test_an_api_is_asked_from_here_once(engine: Any, toys: Any) -> None:
    """Equal keys are one question; what it needs of the host is asked in the same batch."""
    from collections.abc import Iterator

    from provision.resources.base import ApiQuery, Change, Note, Observation, Probe, Resource

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
    told = engine({"web1": host}, [toys.task("t", toys.Toy("a"), Remote(), Remote())])
    assert asked == ["on"]
    assert told.texts == ["answer", "answer"]
    assert len(host.batches) == 1
