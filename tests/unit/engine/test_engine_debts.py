"""Owed work: when it is done, and what becomes of it. Debts with a real sh."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from provision.host.pending import Handler
from provision.shell import sh
from provision.testing import LocalSession

RELOAD = Handler("reload", "reload it", sh("toy-set reloaded yes"))


class TestHandlers:
    """Owed work."""

    def test_it_is_done_once_at_the_end_of_the_last_task_that_may_owe_it(self, engine: Any, toys: Any) -> None:
        """Two changes in two tasks owe it; a third task declares nothing."""
        host = toys.Host()
        tasks = [
            toys.task("1", toys.Toy("a", notify=(RELOAD,))),
            toys.task("2", toys.Toy("b", notify=(RELOAD,)), toys.Toy("c", notify=(RELOAD,))),
            toys.task("3", toys.Toy("d")),
        ]
        told = engine({"web1": host}, tasks)
        assert host.was_set == ["a", "b", "c", "reloaded", "d"]
        assert told.changes[3] == "web1: reload it"
        assert told.statuses == ["web1 1 changed", "web1 2 changed", "web1 3 changed"]
        assert told.summary.changed == 5

    def test_it_is_not_done_when_nothing_owes_it(self, engine: Any, toys: Any) -> None:
        """All is in place."""
        host = toys.Host({"a": "on"})
        engine({"web1": host}, [toys.task("1", toys.Toy("a", notify=(RELOAD,)))])
        assert host.was_set == []

    def test_check_mode_says_that_it_would_be_done(self, engine: Any, toys: Any) -> None:
        """Once, at its place."""
        host = toys.Host()
        tasks = [toys.task("1", toys.Toy("a", notify=(RELOAD,))), toys.task("2", toys.Toy("b", notify=(RELOAD,)))]
        told = engine({"web1": host}, tasks, check=True)
        assert told.changes == ["web1: ?set a to on", "web1: ?set b to on", "web1: ?reload it"]
        assert host.ran == []

    def test_a_failed_one_fails_the_last_task(self, engine: Any, toys: Any) -> None:
        """Under its own name."""
        host = toys.Host(on_set=lambda key: int(key == "reloaded"))
        told = engine({"web1": host}, [toys.task("1", toys.Toy("a", notify=(RELOAD,)))])
        (error,) = told.errors
        assert (error.resource, error.text) == ("reload", "reload it: toy broke")
        assert told.statuses == ["web1 1 failed"]

    def test_each_play_pays_its_own(self, engine: Any, toys: Any) -> None:
        """A play is a barrier: nothing of it is left owed for the next."""
        host = toys.Host()
        engine(
            {"web1": host},
            [toys.task("1", toys.Toy("a", notify=(RELOAD,)))],
            [toys.task("2", toys.Toy("b", notify=(RELOAD,)))],
        )
        assert host.was_set == ["a", "reloaded", "b", "reloaded"]


class TestDebts:
    """Over a real `pending` file."""

    @pytest.fixture
    def home(self, tmp_path: Path) -> Path:
        """What stands for /var/lib/provision."""
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

    def test_a_debt_is_paid_and_struck_off(self, engine: Any, toys: Any, host: LocalSession, home: Path) -> None:
        """Nothing of ours but what we remember stays."""
        told = engine({"web1": host}, [toys.task("1", toys.Toy("a", notify=(RELOAD,)))])
        assert told.changes == ["web1: set a to on", "web1: reload it"]
        assert list(home.iterdir()) == []
        again = engine({"web1": host}, [toys.task("1", toys.Toy("a", notify=(RELOAD,)))])
        assert again.changes == []

    def test_a_debt_of_an_earlier_run_is_paid_though_nothing_differs(
        self, engine: Any, toys: Any, host: LocalSession, home: Path
    ) -> None:
        """It was killed between its edit and the reload."""
        home.mkdir()
        (home / "pending").write_text("reload\treload it\n")
        (home.parent / "values" / "a").write_text("on")
        told = engine({"web1": host}, [toys.task("1", toys.Toy("a", notify=(RELOAD,)))])
        assert told.changes == ["web1: reload it"]
        assert told.statuses == ["web1 1 changed"]
        assert not (home / "pending").exists()

    def test_check_mode_shows_such_a_debt(self, engine: Any, toys: Any, host: LocalSession, home: Path) -> None:
        """And leaves it."""
        home.mkdir()
        (home / "pending").write_text("reload\treload it\n")
        (home.parent / "values" / "a").write_text("on")
        told = engine({"web1": host}, [toys.task("1", toys.Toy("a", notify=(RELOAD,)))], check=True)
        assert told.changes == ["web1: ?reload it"]
        assert (home / "pending").read_text() == "reload\treload it\n"
        assert host.ran == []

    def test_a_debt_that_no_task_of_this_run_knows_is_left(
        self, engine: Any, toys: Any, host: LocalSession, home: Path
    ) -> None:
        """Somebody else's work."""
        home.mkdir()
        (home / "pending").write_text("reconfigure\treconfigure GitLab\n")
        engine({"web1": host}, [toys.task("1", toys.Toy("a", notify=(RELOAD,)))])
        assert (home / "pending").read_text() == "reconfigure\treconfigure GitLab\n"

    def test_failed_work_stays_owed_and_the_next_run_pays(
        self, engine: Any, toys: Any, host: LocalSession, home: Path
    ) -> None:
        """The second run finds no difference, and reloads."""
        failing = Handler("reload", "reload it", sh("exit 7"))
        told = engine({"web1": host}, [toys.task("1", toys.Toy("a", notify=(failing,)))])
        assert told.errors[0].text == "reload it: exit code 7, no output"
        assert (home / "pending").read_text() == "reload\treload it\n"
        told = engine({"web1": host}, [toys.task("1", toys.Toy("a", notify=(RELOAD,)))])
        assert told.changes == ["web1: reload it"]
