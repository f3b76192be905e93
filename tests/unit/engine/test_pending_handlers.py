"""Handlers: when they run, and when they stay pending. The file `pending` with a real sh."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from provision.host.pending import Handler
from provision.shell import sh
from provision.testing import LocalSession

RELOAD = Handler("reload", "reload it", sh("toy-set reloaded yes"))


class TestHandlers:
    """When a handler runs."""

    def test_it_runs_once_at_the_end_of_the_last_task_that_may_notify_it(self, engine: Any, toys: Any) -> None:
        """Two changes in two tasks notify it; a third task does not."""
        host = toys.Host()
        tasks = [
            toys.task("1", toys.Toy("a", notify=(RELOAD,))),
            toys.task("2", toys.Toy("b", notify=(RELOAD,)), toys.Toy("c", notify=(RELOAD,))),
            toys.task("3", toys.Toy("d")),
        ]
        report = engine({"web1": host}, tasks)
        assert host.was_set == ["a", "b", "c", "reloaded", "d"]
        assert report.changes[3] == "web1: reload it"
        assert report.statuses == ["web1 1 changed", "web1 2 changed", "web1 3 changed"]
        assert report.summary.changed == 5

    def test_it_does_not_run_when_nothing_notifies_it(self, engine: Any, toys: Any) -> None:
        """Everything is converged."""
        host = toys.Host({"a": "on"})
        engine({"web1": host}, [toys.task("1", toys.Toy("a", notify=(RELOAD,)))])
        assert host.was_set == []

    def test_check_mode_predicts_it(self, engine: Any, toys: Any) -> None:
        """Once, in its place."""
        host = toys.Host()
        tasks = [toys.task("1", toys.Toy("a", notify=(RELOAD,))), toys.task("2", toys.Toy("b", notify=(RELOAD,)))]
        report = engine({"web1": host}, tasks, check=True)
        assert report.changes == ["web1: ?set a to on", "web1: ?set b to on", "web1: ?reload it"]
        assert host.ran == []

    def test_a_failed_one_fails_the_last_task(self, engine: Any, toys: Any) -> None:
        """Under its own name."""
        host = toys.Host(on_set=lambda key: int(key == "reloaded"))
        report = engine({"web1": host}, [toys.task("1", toys.Toy("a", notify=(RELOAD,)))])
        (error,) = report.errors
        assert (error.resource, error.text) == ("reload", "reload it: toy broke")
        assert report.statuses == ["web1 1 failed"]

    def test_it_runs_in_each_play(self, engine: Any, toys: Any) -> None:
        """A play is a barrier: no handler is left for the next."""
        host = toys.Host()
        engine(
            {"web1": host},
            [toys.task("1", toys.Toy("a", notify=(RELOAD,)))],
            [toys.task("2", toys.Toy("b", notify=(RELOAD,)))],
        )
        assert host.was_set == ["a", "reloaded", "b", "reloaded"]


class TestPendingFile:
    """Over a real `pending` file."""

    @pytest.fixture
    def home(self, tmp_path: Path) -> Path:
        """Replaces /var/lib/provision."""
        return tmp_path / "home"

    @pytest.fixture
    def host(self, home: Path, tmp_path: Path) -> LocalSession:
        """This machine, with `toy-get` and `toy-set` on files."""
        programs, values = tmp_path / "bin", tmp_path / "values"
        programs.mkdir()
        values.mkdir()
        for name, text in {
            "toy-get": f'cat "{values}/$1" 2>/dev/null; :',
            "toy-set": f'printf %s "$2" > "{values}/$1"',
        }.items():
            (programs / name).write_text(f"#!/bin/sh\n{text}\n")
            (programs / name).chmod(0o755)
        return LocalSession({"/var/lib/provision": home}, {"PATH": f"{programs}:/usr/bin:/bin"})

    def test_it_runs_and_is_no_longer_pending(self, engine: Any, toys: Any, host: LocalSession, home: Path) -> None:
        """No file of ours is left."""
        report = engine({"web1": host}, [toys.task("1", toys.Toy("a", notify=(RELOAD,)))])
        assert report.changes == ["web1: set a to on", "web1: reload it"]
        assert list(home.iterdir()) == []
        again = engine({"web1": host}, [toys.task("1", toys.Toy("a", notify=(RELOAD,)))])
        assert again.changes == []

    def test_a_pending_handler_of_an_earlier_run_runs_although_nothing_differs(
        self, engine: Any, toys: Any, host: LocalSession, home: Path
    ) -> None:
        """It was killed between its edit and the reload."""
        home.mkdir()
        (home / "pending").write_text("reload\treload it\n")
        (home.parent / "values" / "a").write_text("on")
        report = engine({"web1": host}, [toys.task("1", toys.Toy("a", notify=(RELOAD,)))])
        assert report.changes == ["web1: reload it"]
        assert report.statuses == ["web1 1 changed"]
        assert not (home / "pending").exists()

    def test_check_mode_predicts_such_a_handler(self, engine: Any, toys: Any, host: LocalSession, home: Path) -> None:
        """And leaves it pending."""
        home.mkdir()
        (home / "pending").write_text("reload\treload it\n")
        (home.parent / "values" / "a").write_text("on")
        report = engine({"web1": host}, [toys.task("1", toys.Toy("a", notify=(RELOAD,)))], check=True)
        assert report.changes == ["web1: ?reload it"]
        assert (home / "pending").read_text() == "reload\treload it\n"
        assert host.ran == []

    def test_a_handler_that_no_task_of_this_run_may_notify_stays_pending(
        self, engine: Any, toys: Any, host: LocalSession, home: Path
    ) -> None:
        """It belongs to other tasks."""
        home.mkdir()
        (home / "pending").write_text("reconfigure\treconfigure GitLab\n")
        engine({"web1": host}, [toys.task("1", toys.Toy("a", notify=(RELOAD,)))])
        assert (home / "pending").read_text() == "reconfigure\treconfigure GitLab\n"

    def test_a_failed_handler_stays_pending_and_the_next_run_runs_it(
        self, engine: Any, toys: Any, host: LocalSession, home: Path
    ) -> None:
        """The second run finds no difference, and reloads."""
        failing = Handler("reload", "reload it", sh("exit 7"))
        report = engine({"web1": host}, [toys.task("1", toys.Toy("a", notify=(failing,)))])
        assert report.errors[0].text == "reload it: exit code 7, no output"
        assert (home / "pending").read_text() == "reload\treload it\n"
        report = engine({"web1": host}, [toys.task("1", toys.Toy("a", notify=(RELOAD,)))])
        assert report.changes == ["web1: reload it"]
