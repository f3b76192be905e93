"""The fakes themselves: users' tests rest on them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from provision.errors import ConnectionLost, DeadlineExceeded, ProbeFailed
from provision.host.facts import read_packages
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
        """In any form."""
        seen = observe(BOB, answer)  # type: ignore[arg-type]
        assert (seen.text, seen.code) == ("bob staff\n", 0)
        assert planned(BOB, seen) == []
        assert notes(BOB, seen) == []

    def test_a_number_is_an_exit_code(self) -> None:
        """With no output."""
        assert observe(BOB, 3).only == Result(code=3)

    def test_an_error_is_raised(self) -> None:
        """As a session would."""
        with pytest.raises(ProbeFailed):
            observe(BOB, ProbeFailed("no"))

    def test_answers_by_name(self) -> None:
        """What is not given is empty; what is not asked is a mistake."""
        settings = JsonSettings("/etc/x.json", {"a": 1})
        seen = observe(settings, {"file": NO_FILE})
        assert [one.action for one in planned(settings, seen)] == ["create"]
        with pytest.raises(ValueError, match=r"JsonSettings /etc/x\.json asks \['file'\], and was answered \['fil'\]"):
            observe(settings, {"fil": NO_FILE})

    def test_what_hosts_say(self) -> None:
        """In the words of the real questions."""
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

    def test_the_first_that_fits(self) -> None:
        """By text or pattern; what fits nothing ends well, or as it is told to."""
        session = FakeSession({"id -nG -- bob": "staff", re.compile(r"^id "): Result(code=1)})
        assert [one.code for one in session.ask([sh("id -nG -- bob"), sh("id alice"), sh("true")], deadline=1)] == [
            0,
            1,
            0,
        ]
        assert FakeSession(otherwise=4).run(sh("x"), deadline=1).code == 4

    def test_one_after_the_other(self) -> None:
        """The last again and again."""
        session = FakeSession({"id": ["a", "b"]})
        assert [session.run(sh("id"), deadline=1).text for _ in range(3)] == ["a", "b", "b"]

    def test_what_it_was_told_to_do_is_kept(self) -> None:
        """Batches, commands, cost, end."""
        session = FakeSession({"noisy": Result(b"out", b"err")})
        session.ask([sh("a"), sh("b")], deadline=1)
        heard: list[bytes] = []
        session.run(sh("noisy").reading("in"), deadline=1, on_output=heard.append)
        session.close()
        assert (session.batches, session.ran) == ([[sh("a"), sh("b")]], [Command("noisy", b"in")])
        assert heard == [b"out", b"err"]
        assert (session.traffic.round_trips, session.traffic.bytes_received) == (2, 6)
        assert session.closed

    def test_a_broken_off_one(self) -> None:
        """Answers no more."""
        session = FakeSession()
        session.abort()
        with pytest.raises(ConnectionLost):
            session.run(sh("x"), deadline=1)

    def test_looking_through_it(self) -> None:
        """A resource's own questions, in one batch."""
        session = FakeSession({"id -nG": "bob staff"})
        assert planned(BOB, observe_on(session, BOB)) == []
        assert len(session.batches) == 1


class TestLocalSession:
    """A real sh."""

    def test_folders_stand_in_for_others(self, tmp_path: Path) -> None:
        """Whole folders, wherever they stand in a script; names that begin alike are left alone."""
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
