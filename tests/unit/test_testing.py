"""The helpers for tests: users' own tests rely on them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from provision.errors import ConnectionLost, DeadlineExceeded, ProbeFailed
from provision.host.releases import read_packages
from provision.host.state import HostState
from provision.resources import File, GroupMember, JsonSettings, Result
from provision.shell import Command, sh
from provision.testing import (
    NO_FILE,
    FakeSession,
    LocalSession,
    file_is,
    notes,
    observe,
    observe_on,
    packages_are,
    planned,
    state_is,
)

BOB = GroupMember("bob", "staff")


class TestObserving:
    """Answers as values."""

    @pytest.mark.parametrize("answer", ["bob staff\n", b"bob staff\n", Result(b"bob staff\n"), lambda _: "bob staff\n"])
    def test_one_answer(self, answer: object) -> None:
        """Text, bytes, a result or a function."""
        seen = observe(BOB, answer)  # type: ignore[arg-type]
        assert (seen.text, seen.code) == ("bob staff\n", 0)
        assert planned(BOB, seen) == []
        assert notes(BOB, seen) == []

    def test_a_number_is_an_exit_code(self) -> None:
        """Without output."""
        assert observe(BOB, 3).only == Result(code=3)

    def test_an_error_is_raised(self) -> None:
        """As a session would."""
        with pytest.raises(ProbeFailed):
            observe(BOB, ProbeFailed("no"))

    def test_answers_by_name(self) -> None:
        """A question without an answer is empty; an unknown name is an error."""
        settings = JsonSettings("/etc/x.json", {"a": 1})
        seen = observe(settings, {"file": NO_FILE})
        assert [one.action for one in planned(settings, seen)] == ["create"]
        with pytest.raises(
            ValueError, match=r"JsonSettings /etc/x\.json are \['file'\], but answers are given for \['fil'\]"
        ):
            observe(settings, {"fil": NO_FILE})

    def test_answers_of_hosts(self) -> None:
        """In the form that the real questions have."""
        motd = File("/etc/motd", "x\n")
        assert planned(motd, observe(motd, file_is("x\n"))) == []
        packages = read_packages(packages_are({"a": "1", "b": "2"}, held=["b"]))
        assert {name: (one.version, one.held) for name, one in packages.items()} == {
            "a": ("1", False),
            "b": ("2", True),
        }
        assert HostState.parse(state_is({"a": {"b": [1]}}).text).record("a", "b") == [1]


class TestFakeSession:
    """Scripted answers."""

    def test_the_first_match_counts(self) -> None:
        """By text or pattern; every other command has code 0, or the answer `otherwise`."""
        session = FakeSession({"id -nG -- bob": "staff", re.compile(r"^id "): Result(code=1)})
        assert [one.code for one in session.ask([sh("id -nG -- bob"), sh("id alice"), sh("true")], deadline=1)] == [
            0,
            1,
            0,
        ]
        assert FakeSession(otherwise=4).run(sh("x"), deadline=1).code == 4

    def test_a_list_of_answers(self) -> None:
        """One after the other; the last one again and again."""
        session = FakeSession({"id": ["a", "b"]})
        assert [session.run(sh("id"), deadline=1).text for _ in range(3)] == ["a", "b", "b"]

    def test_commands_are_kept(self) -> None:
        """Batches, commands, traffic, and whether it was closed."""
        session = FakeSession({"noisy": Result(b"out", b"err")})
        session.ask([sh("a"), sh("b")], deadline=1)
        heard: list[bytes] = []
        session.run(sh("noisy").reading("in"), deadline=1, on_output=heard.append)
        session.close()
        assert (session.batches, session.ran) == ([[sh("a"), sh("b")]], [Command("noisy", b"in")])
        assert heard == [b"out", b"err"]
        assert (session.traffic.round_trips, session.traffic.bytes_received) == (2, 6)
        assert session.closed

    def test_an_aborted_session(self) -> None:
        """Every command raises ConnectionLost."""
        session = FakeSession()
        session.abort()
        with pytest.raises(ConnectionLost):
            session.run(sh("x"), deadline=1)

    def test_a_resource_observed_through_it(self) -> None:
        """The resource's questions and the records, in one batch."""
        session = FakeSession({"id -nG": "bob staff"})
        assert planned(BOB, observe_on(session, BOB)) == []
        assert len(session.batches) == 1


class TestLocalSession:
    """Commands run with a real sh."""

    def test_folders_replace_the_hosts(self, tmp_path: Path) -> None:
        """Whole paths, anywhere in a script; a longer name with the same beginning is not replaced."""
        session = LocalSession({"/etc/x": tmp_path / "a b"})
        assert session.here("cat '/etc/x/f' /etc/xy /my/etc/x ${d:-/etc/x}") == (
            f"cat '{tmp_path}/a b/f' /etc/xy /my/etc/x ${{d:-{tmp_path}/a b}}"
        )

    def test_it_runs(self) -> None:
        """Input, outputs, code, environment; each command alone."""
        session = LocalSession({}, {"WHO": "bob"})
        heard: list[bytes] = []
        result = session.run(sh("cat; echo $WHO >&2; exit 3").reading("in"), deadline=5, on_output=heard.append)
        assert result == Result(b"in", b"bob\n", 3)
        assert heard == [b"in", b"bob\n"]
        assert [one.code for one in session.ask([sh("exit 1"), sh("trap 'exit 4' EXIT")], deadline=5)] == [1, 4]

    def test_a_deadline(self) -> None:
        """The command and its children are ended."""
        with pytest.raises(DeadlineExceeded, match=r"stopped after 0\.2 s: sleep 30"):
            LocalSession({}).run(sh("sleep 30 | cat"), deadline=0.2)
