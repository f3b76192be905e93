"""One task: rounds, verifications, races, and what does not converge."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from provision.errors import ChangedMeanwhile
from provision.host.pending import Handler
from provision.host.scripts import CHANGED_MEANWHILE
from provision.resources.base import Change, Note, Observation
from provision.shell import Result, sh


class TestRounds:
    """A change that requires something of its own task is planned again after it."""

    def test_rounds(self, engine: Any, toys: Any) -> None:
        """c requires b, which requires a: three rounds, each with an observation."""
        host = toys.Host()
        task = toys.task("t", toys.Toy("c", after="b"), toys.Toy("b", after="a"), toys.Toy("a"))
        report = engine({"web1": host}, [task])
        assert host.was_set == ["a", "b", "c"]
        assert report.statuses == ["web1 t changed"]
        assert len(host.batches) == 4

    def test_what_no_change_sets_up_is_not_ready(self, engine: Any, toys: Any) -> None:
        """The hint names the task that sets it up."""
        host = toys.Host()
        report = engine({"web1": host}, [toys.task("t", toys.Toy("b", after="gitlab"))])
        (error,) = report.errors
        assert (error.error, error.resource) == ("NotReady", "Toy b")
        assert error.text == "cannot set b to on: it requires gitlab"
        assert error.hint == "run `provision gitlab` first; if it has run, see its error above"
        assert host.was_set == []

    def test_a_verification_is_not_repeated_while_something_waits(self, engine: Any, toys: Any) -> None:
        """One that is always planned is no progress, and does not repeat the rounds."""
        host = toys.Host()
        report = engine({"web1": host}, [toys.task("t", toys.Check("p", always=True), toys.Toy("b", after="gitlab"))])
        assert report.errors[0].error == "NotReady"
        assert host.was_set == ["checked-p"]

    def test_a_final_change_runs_after_what_waits(self, engine: Any, toys: Any) -> None:
        """It does not run before the rest is done: the error names what is missing."""
        host = toys.Host()
        report = engine({"web1": host}, [toys.task("t", toys.Check("p", final=True), toys.Toy("b", after="gitlab"))])
        assert report.errors[0].error == "NotReady"
        assert host.was_set == []
        done = toys.Host()
        report = engine(
            {"web1": done}, [toys.task("t", toys.Check("p", final=True), toys.Toy("b", after="a"), toys.Toy("a"))]
        )
        assert (report.errors, done.was_set) == ([], ["a", "b", "checked-p"])

    def test_a_change_without_effect_is_not_repeated_while_something_waits(self, engine: Any, toys: Any) -> None:
        """The error is about it, not about the change that waits."""
        host = toys.Host()
        host.answers = {"toy-set": "", **host.answers}
        report = engine({"web1": host}, [toys.task("t", toys.Toy("a"), toys.Toy("b", after="a"))])
        (error,) = report.errors
        assert error.error == "NotConverged"
        assert error.text == "not converged; still pending: Toy a: set a to on"


class TestNotConverged:
    """A change that was applied and is still planned."""

    def test_changes_without_an_effect(self, engine: Any, toys: Any) -> None:
        """The error names all of them; the host's further tasks are skipped."""
        host = toys.Host({"b": "on"})
        host.answers = {"toy-set": "", **host.answers}
        report = engine({"web1": host}, [toys.task("t", toys.Toy("a"), toys.Toy("b"), toys.Toy("c")), toys.task("u")])
        assert report.statuses == ["web1 t failed", "web1 u skipped"]
        (error,) = report.errors
        assert error.text == "not converged; still pending: Toy a: set a to on; Toy c: set c to on"
        assert "undoes the change" in error.hint

    def test_a_change_that_undoes_another(self, engine: Any, toys: Any) -> None:
        """Two resources of one task that want different values never converge."""
        report = engine({"web1": toys.Host()}, [toys.task("t", toys.Toy("a", "x"), toys.Toy("a", "y"))])
        assert report.errors[0].text == "not converged; still pending: Toy a: set a to x"


class TestVerifications:
    """They run and leave nothing."""

    def test_a_verification_is_no_change(self, engine: Any, toys: Any) -> None:
        """It runs and is reported; it is not counted, and nothing is observed again."""
        host = toys.Host()
        report = engine({"web1": host}, [toys.task("t", toys.Check("p"))])
        assert host.was_set == ["checked-p"]
        assert report.messages == ["done: verify p"]
        assert (report.changes, report.statuses, report.summary.changed) == ([], ["web1 t ok"], 0)
        assert len(host.batches) == 1

    def test_a_verification_beside_a_change(self, engine: Any, toys: Any) -> None:
        """One that is planned again does not count as not converged."""
        report = engine({"web1": toys.Host()}, [toys.task("t", toys.Check("p", always=True), toys.Toy("a"))])
        assert report.statuses == ["web1 t changed"]
        assert report.summary.changed == 1

    def test_a_failed_verification_fails_its_task(self, engine: Any, toys: Any) -> None:
        """With its output."""
        report = engine({"web1": toys.Host(on_set=lambda _: 1)}, [toys.task("t", toys.Check("p"))])
        assert report.errors[0].text == "verify p: toy broke"


def test_an_exception_of_a_resource_names_it(engine: Any, toys: Any) -> None:
    """Not the one whose change is the first in the same round trip."""

    class Reading(toys.Toy):  # type: ignore[misc]
        def plan(self, seen: Observation) -> Iterator[Change | Note]:
            for one in super().plan(seen):
                yield replace(one, record_from=lambda output: output.split(":")[1])

    host = toys.Host()
    report = engine({"web1": host}, [toys.task("t", toys.Toy("a"), Reading("b"))])
    (error,) = report.errors
    assert host.was_set == ["a", "b"]
    assert (error.resource, error.error) == ("Toy b", "Unexpected")


class TestRaces:
    """Another process changes the same thing at the same time."""

    def test_the_change_is_planned_again(self, engine: Any, toys: Any) -> None:
        """A change that finds another state than was observed does not fail: the state is observed again."""
        codes = [CHANGED_MEANWHILE, 0]
        host = toys.Host(on_set=lambda _: codes.pop(0))
        report = engine({"web1": host}, [toys.task("t", toys.Toy("a"))])
        assert report.statuses == ["web1 t changed"]
        assert report.changes == ["web1: set a to on"]
        assert report.messages == ["set a to on: toy broke: observing again"]

    def test_a_handler_runs_only_if_something_was_changed(self, engine: Any, toys: Any) -> None:
        """Another program made the same change: nothing is left to change."""

        def meanwhile(_: str) -> int:
            host.values["a"] = "on"
            return CHANGED_MEANWHILE

        host = toys.Host(on_set=meanwhile)
        restart = Handler("restart", "restart it", sh("toy-set restart done"))
        report = engine({"web1": host}, [toys.task("t", toys.Toy("a", notify=(restart,)))])
        assert "restart" not in host.values
        assert report.statuses == ["web1 t ok"]

    def test_it_fails_in_the_end(self, engine: Any, toys: Any) -> None:
        """After a few attempts."""
        host = toys.Host(on_set=lambda _: CHANGED_MEANWHILE)
        report = engine({"web1": host}, [toys.task("t", toys.Toy("a"))])
        assert report.errors[0].error == ChangedMeanwhile.__name__
        assert len(host.was_set) == 4


def test_output_of_a_step_is_reported_as_it_arrives(engine: Any, toys: Any) -> None:
    """Masked, for the live view."""
    from provision.engine.events import Output
    from provision.secret import Secret

    Secret("password-of-the-toy")
    host = toys.Host()
    host.answers = {"toy-set": Result(b"using password-of-the-toy\n"), **host.answers}
    report = engine({"web1": host}, [toys.task("1", toys.Toy("a"))])
    assert [one.text for one in report.events if isinstance(one, Output)] == ["using ***\n"]
