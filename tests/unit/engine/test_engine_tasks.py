"""One task: rounds, proofs, races, and what does not converge."""

from __future__ import annotations

from typing import Any

from provision.errors import ChangedMeanwhile
from provision.host.files import CHANGED_MEANWHILE
from provision.shell import Result


class TestRounds:
    """What waits for something of its own task is planned again after it."""

    def test_rounds(self, engine: Any, toys: Any) -> None:
        """c waits for b, which waits for a: three rounds, each looked at."""
        host = toys.Host()
        task = toys.task("t", toys.Toy("c", after="b"), toys.Toy("b", after="a"), toys.Toy("a"))
        told = engine({"web1": host}, [task])
        assert host.was_set == ["a", "b", "c"]
        assert told.statuses == ["web1 t changed"]
        assert len(host.batches) == 4

    def test_what_nobody_leaves_is_not_ready(self, engine: Any, toys: Any) -> None:
        """The task that would leave it is named."""
        host = toys.Host()
        told = engine({"web1": host}, [toys.task("t", toys.Toy("b", after="gitlab"))])
        (error,) = told.errors
        assert (error.error, error.resource) == ("NotReady", "Toy b")
        assert error.text == "cannot set b to on: it requires gitlab"
        assert error.hint == "run `provision gitlab` first; if it ran, see above why it failed"
        assert host.was_set == []

    def test_a_proof_is_not_repeated_while_something_waits(self, engine: Any, toys: Any) -> None:
        """One that is always due neither counts as progress nor goes round for ever."""
        host = toys.Host()
        told = engine({"web1": host}, [toys.task("t", toys.Check("p", always=True), toys.Toy("b", after="gitlab"))])
        assert told.errors[0].error == "NotReady"
        assert host.was_set == ["checked-p"]

    def test_a_judgement_comes_behind_what_waits(self, engine: Any, toys: Any) -> None:
        """What judges the whole says nothing before all is there: why the rest cannot be done is the cause to tell."""
        host = toys.Host()
        told = engine({"web1": host}, [toys.task("t", toys.Check("p", final=True), toys.Toy("b", after="gitlab"))])
        assert told.errors[0].error == "NotReady"
        assert host.was_set == []
        done = toys.Host()
        told = engine(
            {"web1": done}, [toys.task("t", toys.Check("p", final=True), toys.Toy("b", after="a"), toys.Toy("a"))]
        )
        assert (told.errors, done.was_set) == ([], ["a", "b", "checked-p"])

    def test_a_change_without_effect_is_not_repeated_while_something_waits(self, engine: Any, toys: Any) -> None:
        """It has not converged, and that is said of it, not of what waits."""
        host = toys.Host()
        host.answers = {"toy-set": "", **host.answers}
        told = engine({"web1": host}, [toys.task("t", toys.Toy("a"), toys.Toy("b", after="a"))])
        (error,) = told.errors
        assert error.error == "NotConverged"
        assert error.text == "not converged; still pending: Toy a: set a to on"


class TestNotConverged:
    """Applied means seen."""

    def test_still_to_do(self, engine: Any, toys: Any) -> None:
        """All that is left is named; the host goes no further."""
        host = toys.Host({"b": "on"})
        host.answers = {"toy-set": "", **host.answers}
        told = engine({"web1": host}, [toys.task("t", toys.Toy("a"), toys.Toy("b"), toys.Toy("c")), toys.task("u")])
        assert told.statuses == ["web1 t failed", "web1 u skipped"]
        (error,) = told.errors
        assert error.text == "not converged; still pending: Toy a: set a to on; Toy c: set c to on"
        assert "undoes the change" in error.hint

    def test_a_change_that_undoes_another(self, engine: Any, toys: Any) -> None:
        """Two resources that want one key to be different never converge."""
        told = engine({"web1": toys.Host()}, [toys.task("t", toys.Toy("a", "x"), toys.Toy("a", "y"))])
        assert told.errors[0].text == "not converged; still pending: Toy a: set a to x"


class TestProofs:
    """What is shown and leaves nothing."""

    def test_a_proof_is_no_change(self, engine: Any, toys: Any) -> None:
        """Run, told, not counted, and not looked at again."""
        host = toys.Host()
        told = engine({"web1": host}, [toys.task("t", toys.Check("p"))])
        assert host.was_set == ["checked-p"]
        assert told.texts == ["done: verify p"]
        assert (told.changes, told.statuses, told.summary.changed) == ([], ["web1 t ok"], 0)
        assert len(host.batches) == 1

    def test_a_proof_beside_a_change(self, engine: Any, toys: Any) -> None:
        """One that would be due again is not taken for unfinished work."""
        told = engine({"web1": toys.Host()}, [toys.task("t", toys.Check("p", always=True), toys.Toy("a"))])
        assert told.statuses == ["web1 t changed"]
        assert told.summary.changed == 1

    def test_a_failed_proof_fails_its_task(self, engine: Any, toys: Any) -> None:
        """With its words."""
        told = engine({"web1": toys.Host(on_set=lambda _: 1)}, [toys.task("t", toys.Check("p"))])
        assert told.errors[0].text == "verify p: toy broke"


class TestRaces:
    """Somebody else changes the same thing at the same time."""

    def test_it_is_planned_anew(self, engine: Any, toys: Any) -> None:
        """A change that finds another state than was looked at is no failure: it is looked at again."""
        codes = [CHANGED_MEANWHILE, 0]
        host = toys.Host(on_set=lambda _: codes.pop(0))
        told = engine({"web1": host}, [toys.task("t", toys.Toy("a"))])
        assert told.statuses == ["web1 t changed"]
        assert told.changes == ["web1: set a to on"]
        assert told.texts == ["set a to on: toy broke: observing again"]

    def test_not_for_ever(self, engine: Any, toys: Any) -> None:
        """A few times; then it is told."""
        host = toys.Host(on_set=lambda _: CHANGED_MEANWHILE)
        told = engine({"web1": host}, [toys.task("t", toys.Toy("a"))])
        assert told.errors[0].error == ChangedMeanwhile.__name__
        assert len(host.was_set) == 4


def test_output_of_a_step_is_told_as_it_comes(engine: Any, toys: Any) -> None:
    """Masked, for the live view."""
    from provision.engine.events import Output
    from provision.secret import Secret

    Secret("password-of-the-toy")
    host = toys.Host()
    host.answers = {"toy-set": Result(b"using password-of-the-toy\n"), **host.answers}
    told = engine({"web1": host}, [toys.task("1", toys.Toy("a"))])
    assert [one.text for one in told.events if isinstance(one, Output)] == ["using ***\n"]
