"""Hands: debts before the change, memory around it, proofs behind it; run with a real sh."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from provision.engine.apply import Hands, last_words
from provision.errors import ChangeFailed
from provision.host.pending import Handler
from provision.host.state import either, updated
from provision.resources.base import Call, Change
from provision.secret import Secret
from provision.shell import Command, Result, sh
from provision.testing import FakeSession, LocalSession

RELOAD = Handler("reload", "reload it", sh("true"))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """What stands for /var/lib/provision."""
    return tmp_path / "home"


@pytest.fixture
def host(home: Path, tmp_path: Path) -> LocalSession:
    """This machine as a host; /etc is in the test's folder."""
    (tmp_path / "etc").mkdir()
    return LocalSession({"/var/lib/provision": home, "/etc": tmp_path / "etc"})


def hands_of(session: FakeSession | LocalSession, state: dict[str, Any]) -> Hands:
    """Hands on a host, whose second login is the same session."""
    return Hands(session, state, lambda: session)


def silent(text: str) -> None:
    """Takes output that no one looks at."""
    del text


def recorded(home: Path) -> Any:
    """What state.json says; {} without one."""
    file = home / "state.json"
    return json.loads(file.read_text()) if file.exists() else {}


def pending(home: Path) -> str:
    """The file `pending`; "" without one."""
    file = home / "pending"
    return file.read_text() if file.exists() else ""


def test_the_debt_is_there_when_the_change_runs(host: LocalSession, home: Path) -> None:
    """A run killed inside the change leaves the debt behind."""
    change = Change("edit", sh("cat /var/lib/provision/pending > /etc/seen"), notify=(RELOAD,))
    hands_of(host, {}).apply(change, silent)
    assert (home.parent / "etc" / "seen").read_text() == "reload\treload it\n"
    assert pending(home) == "reload\treload it\n"


def test_a_failed_change_leaves_its_debt(host: LocalSession, home: Path) -> None:
    """It may have got half way."""
    with pytest.raises(ChangeFailed, match="edit: broken pipe dream"):
        hands_of(host, {}).apply(Change("edit", sh("echo 'broken pipe dream' >&2; exit 3"), notify=(RELOAD,)), silent)
    assert pending(home) == "reload\treload it\n"


def test_a_change_reads_its_standard_input_behind_the_steps(host: LocalSession, home: Path) -> None:
    """What is written to `pending` and `state.json` before it eats nothing of it."""
    change = Change("edit", sh("cat > /etc/file").reading("content\n"), notify=(RELOAD,), remember={"it": 1})
    hands_of(host, {}).apply(change, silent)
    assert (home.parent / "etc" / "file").read_text() == "content\n"


class TestMemory:
    """`state.json` around a change."""

    def test_what_will_be_ours_is_on_record_before(self, host: LocalSession, home: Path) -> None:
        """A change that fails half way leaves nothing of ours unknown."""
        change = Change("set", sh("exit 1"), remember={"keys": ["a"]})
        with pytest.raises(ChangeFailed):
            hands_of(host, {}).apply(change, silent)
        assert recorded(home) == {"keys": ["a"]}

    def test_what_is_no_longer_ours_stays_on_record_until_it_is_gone(self, host: LocalSession, home: Path) -> None:
        """A refused edit that was to drop a key does not forget that the key is ours."""
        hands = hands_of(host, {"keys": ["a", "b"]})
        with pytest.raises(ChangeFailed):
            hands.apply(Change("set", sh("exit 1"), remember={"keys": ["b", "c"]}), silent)
        assert recorded(home) == {"keys": ["a", "b", "c"]}
        hands.apply(Change("set", sh("true"), remember={"keys": ["b", "c"]}), silent)
        assert recorded(home) == {"keys": ["b", "c"]}

    def test_an_entry_is_taken_out_behind_the_change(self, host: LocalSession, home: Path) -> None:
        """None takes it out; other entries stay."""
        hands = hands_of(host, {"keys": ["a"], "other": 1})
        with pytest.raises(ChangeFailed):
            hands.apply(Change("drop", sh("exit 1"), remember={"keys": None}), silent)
        assert recorded(home) == {}
        hands.apply(Change("drop", sh("true"), remember={"keys": None}), silent)
        assert recorded(home) == hands.state == {"other": 1}

    def test_a_failed_proof_is_not_on_record(self, host: LocalSession, home: Path) -> None:
        """Else the next run would take it for proven."""
        proof = Change("prove", sh("exit 1"), "run", remember={"proven": "x"}, leaves=False)
        with pytest.raises(ChangeFailed):
            hands_of(host, {}).apply(proof, silent)
        assert recorded(home) == {}

    def test_a_proof_is_on_record_when_it_has_shown_it(self, host: LocalSession, home: Path) -> None:
        """And stays with what was there."""
        proof = Change("prove", sh("exit 0"), "run", remember={"proven": "x"}, leaves=False)
        hands_of(host, {"other": 1}).apply(proof, silent)
        assert recorded(home) == {"proven": "x", "other": 1}

    def test_what_is_on_record_is_not_written_again(self) -> None:
        """A change that alters nothing of it runs as it stands."""
        session = FakeSession()
        hands_of(session, {"keys": ["a"]}).apply(Change("set", sh("true"), remember={"keys": ["a"]}), silent)
        assert session.ran == [sh("true")]

    def test_either_keeps_both_sides(self) -> None:
        """Objects by key, lists by member, of plain values the old one."""
        old = {"top": ["a"], "runners": {"x": {"print": "A"}, "y": {"print": "B"}}}
        new = {"top": ["b", "a"], "runners": {"x": {"print": "C", "id": 1}, "z": {}}}
        assert either(old, new) == {
            "top": ["a", "b"],
            "runners": {"x": {"print": "A", "id": 1}, "y": {"print": "B"}, "z": {}},
        }

    def test_updated_replaces_whole_entries(self) -> None:
        """One level deep, None out."""
        assert updated({"a": {"x": 1}, "b": 2, "c": 3}, {"a": {"y": 1}, "b": None, "d": 4}) == {
            "a": {"y": 1},
            "c": 3,
            "d": 4,
        }


def test_an_api_change_says_what_the_host_does_and_remembers(host: LocalSession, home: Path) -> None:
    """What `make` returns counts, not what the plan foresaw."""
    made: list[str] = []

    def make() -> tuple[Command, dict[str, Any]]:
        made.append("runner 7")
        return sh("cat > /etc/config.toml").reading("id = 7\n"), {"runner": 7}

    change = Change("create", Call(make, "POST /user/runners"), "create", remember={"runner": 0})
    hands_of(host, {}).apply(change, silent)
    assert made == ["runner 7"]
    assert (home.parent / "etc" / "config.toml").read_text() == "id = 7\n"
    assert recorded(home) == {"runner": 7}


class TestPaying:
    """`pay`: the work, then the line."""

    def test_paid_work_is_struck_off(self, host: LocalSession, home: Path) -> None:
        """Only its own line."""
        home.mkdir()
        (home / "pending").write_text("other\tx\nreload\treload it\n")
        hands_of(host, {}).pay(RELOAD, silent)
        assert pending(home) == "other\tx\n"

    def test_failed_work_stays_owed(self, host: LocalSession, home: Path) -> None:
        """Its words come back."""
        home.mkdir()
        (home / "pending").write_text("reload\treload it\n")
        with pytest.raises(ChangeFailed, match="reload it: no such unit"):
            hands_of(host, {}).pay(Handler("reload", "reload it", sh("echo no such unit >&2; exit 5")), silent)
        assert pending(home) == "reload\treload it\n"

    def test_work_may_end_itself_with_exit(self, host: LocalSession, home: Path) -> None:
        """`exit 0` in its script ends the work, not the striking off."""
        home.mkdir()
        (home / "pending").write_text("reload\treload it\n")
        hands_of(host, {}).pay(Handler("reload", "reload it", sh("exit 0")), silent)
        assert pending(home) == ""

    def test_what_it_may_bring_back_is_ours_until_it_is_paid(self, host: LocalSession, home: Path) -> None:
        """A dropped key stays on record while the work owed can fail and put the previous file back."""
        undo = Handler("undo", "put in force", sh("test -e /etc/well"), takes_back=True)
        home.mkdir()
        (home / "state.json").write_text('{"keys": ["a", "b"]}')
        hands = hands_of(host, {"keys": ["a", "b"]})
        hands.apply(Change("edit", sh("true"), notify=(undo,), remember={"keys": ["b"]}), silent)
        with pytest.raises(ChangeFailed):
            hands.pay(undo, silent)
        assert recorded(home) == hands.state == {"keys": ["a", "b"]}
        (home.parent / "etc" / "well").touch()
        hands.pay(undo, silent)
        assert recorded(home) == hands.state == {"keys": ["b"]}

    def test_a_detached_handler_is_followed_and_struck_off(self, host: LocalSession, home: Path) -> None:
        """Its output arrives; nothing of the job is left."""
        home.mkdir()
        (home / "pending").write_text("slow\tslow work\n")
        heard: list[str] = []
        hands_of(host, {}).pay(Handler("slow", "slow work", sh("echo working"), detached=True), heard.append)
        assert "".join(heard) == "working\n"
        assert list(home.iterdir()) == []


def test_a_detached_step_cannot_read_its_standard_input() -> None:
    """A mistake of who wrote the resource, found at once."""
    change = Change("slow", sh("cat").reading("x"), detached=True)
    with pytest.raises(ValueError, match="slow: a step that outlives the connection"):
        hands_of(FakeSession(), {}).apply(change, silent)


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (Result(b"out\n", b"why\n\n", 1), "why"),
        (Result(b"out\n\n", b" \n", 1), "out"),
        (Result(b"", b"", 7), "exit code 7, without a word"),
        (Result(b"", "".join(f"{n}\n" for n in range(20)).encode(), 1), "\n".join(str(n) for n in range(8, 20))),
    ],
)
def test_the_last_words_of_a_failed_command(result: Result, words: str) -> None:
    """What stood on stderr, else on stdout, else its code; the end of it."""
    assert last_words(result) == words


def test_secrets_are_masked_in_words_and_output() -> None:
    """Whatever a program repeats of them."""
    Secret("hunter2-hunter2")
    heard: list[str] = []
    session = FakeSession({"login": Result(b"trying hunter2-hunter2\n", b"bad password hunter2-hunter2\n", 1)})
    with pytest.raises(ChangeFailed, match=r"log in: bad password \*\*\*"):
        hands_of(session, {}).apply(Change("log in", sh("login")), heard.append)
    assert "".join(heard) == "trying ***\nbad password ***\n"


@pytest.mark.parametrize("leaves", [True, False], ids=["a change", "a proof"])
def test_the_first_failing_line_ends_a_change(host: LocalSession, home: Path, leaves: bool) -> None:
    """`set -e` holds in it, with steps of ours before and behind it."""
    change = Change(
        "go on",
        sh("set -e\nfalse\ntouch %s", home / "went-on"),
        notify=(Handler("restart", "restart it", sh(":")),),
        remember={"done": True},
        leaves=leaves,
    )
    with pytest.raises(ChangeFailed):
        hands_of(host, {}).apply(change, silent)
    assert not (home / "went-on").exists()


def test_a_debt_that_cannot_be_written_stops_the_change(host: LocalSession, home: Path) -> None:
    """Written first means: or not at all."""
    (home / "pending").mkdir(parents=True)
    change = Change("go on", sh("touch %s", home / "went-on"), notify=(Handler("restart", "restart it", sh(":")),))
    with pytest.raises(ChangeFailed):
        hands_of(host, {}).apply(change, silent)
    assert not (home / "went-on").exists()


def test_the_first_failing_line_ends_owed_work(host: LocalSession, home: Path) -> None:
    """And it stays owed."""
    home.mkdir()
    (home / "pending").write_text("restart\trestart it\n")
    with pytest.raises(ChangeFailed):
        hands_of(host, {}).pay(Handler("restart", "restart it", sh("set -e\nfalse\ntouch %s", home / "on")), silent)
    assert not (home / "on").exists()
    assert pending(home) == "restart\trestart it\n"
