"""Applying a change: pending handlers before it, records around it, verifications after it; run with a real sh."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from provision.engine.apply import Applied, Applier, end_of_output
from provision.engine.desired_state import Owned
from provision.engine.plan import Planned
from provision.errors import ChangeFailed
from provision.host.files import replace
from provision.host.pending import ASK_PENDING, Handler
from provision.host.scripts import NOTHING_CHANGED
from provision.host.state import ASK_STATE, HostState, union
from provision.resources.base import ApiAction, Change, Guard, Note, Observation, Outcome, Probe, Resource
from provision.secret import Secret
from provision.shell import Command, Result, sh
from provision.testing import FakeSession, LocalSession
from tests.unit.engine.conftest import Pieces, Steps

RELOAD = Handler("reload", "reload it", sh("true"))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Replaces /var/lib/provision."""
    return tmp_path / "home"


@pytest.fixture
def host(home: Path, tmp_path: Path) -> LocalSession:
    """This machine as a host; /etc is in the test's folder."""
    (tmp_path / "etc").mkdir()
    return LocalSession({"/var/lib/provision": home, "/etc": tmp_path / "etc"})


class Keeper(Resource):
    """Records something under "keys"."""

    record_key = "keys"
    label = "Keeper"

    def probe(self) -> Probe:
        return Probe()

    def plan(self, seen: Observation) -> Iterator[Change | Note]:
        del seen
        yield from ()


OWNED = Owned("task", Keeper())


def state_of(records: dict[str, Any]) -> HostState:
    """A host on which the task has these records."""
    return HostState().updated("task", records)


def applier_of(session: FakeSession | LocalSession, records: dict[str, Any] | None = None) -> Applier:
    """An applier on a host whose second login is the same session."""
    return Applier(session, state_of(records or {}), lambda: session)


def apply(applier: Applier, change: Change, heard: list[str] | None = None) -> None:
    """Applies one change of the task."""
    applier.apply([Planned(OWNED, change)], Steps(heard))


def run_handler(applier: Applier, handler: Handler, heard: list[str] | None = None) -> None:
    """Runs a handler."""
    applier.apply([handler], Steps(heard))


def recorded(home: Path) -> Any:
    """What the task recorded; {} without a state.json."""
    file = home / "state.json"
    return json.loads(file.read_text())["owners"].get("task", {}) if file.exists() else {}


def pending(home: Path) -> str:
    """The file `pending`; "" without one."""
    file = home / "pending"
    return file.read_text() if file.exists() else ""


def test_the_handler_is_pending_when_the_change_runs(host: LocalSession, home: Path) -> None:
    """A run that is killed inside the change leaves it pending."""
    change = Change("edit", sh("cat /var/lib/provision/pending > /etc/seen"), notify=(RELOAD,))
    apply(applier_of(host), change)
    assert (home.parent / "etc" / "seen").read_text() == "reload\treload it\n"
    assert pending(home) == "reload\treload it\n"


def test_after_a_failed_change_the_handler_is_pending(host: LocalSession, home: Path) -> None:
    """The change may have had an effect."""
    with pytest.raises(ChangeFailed, match="edit: broken pipe dream"):
        apply(applier_of(host), Change("edit", sh("echo 'broken pipe dream' >&2; exit 3"), notify=(RELOAD,)))
    assert pending(home) == "reload\treload it\n"


def test_a_change_reads_its_standard_input_after_our_steps(host: LocalSession, home: Path) -> None:
    """What is written to `pending` and `state.json` before it does not read from it."""
    change = Change("edit", sh("cat > /etc/file").reading("content\n"), notify=(RELOAD,), record=1)
    apply(applier_of(host), change)
    assert (home.parent / "etc" / "file").read_text() == "content\n"


class TestNothingChanged:
    """A change whose command fails before it changes anything: a file that its checker refuses."""

    FILE = "/etc/file"

    def refused(self, check: str = "false", notify: tuple[Handler, ...] = (RELOAD,), **more: Any) -> Change:
        """A new file that is refused."""
        rollback = "/var/lib/provision/rollback/file"
        run = replace(self.FILE, "new", mode="0644", owner="", check=check, rollback=rollback, **more)
        return Change("edit", run, notify=notify, record=["new"])

    def fail(self, applier: Applier, change: Change) -> None:
        """Applies it; it fails."""
        with pytest.raises(ChangeFailed) as caught:
            apply(applier, change)
        assert caught.value.changed_nothing

    @pytest.mark.parametrize("before", [None, "old"])
    def test_leaves_nothing_pending_and_nothing_recorded(
        self, host: LocalSession, home: Path, before: str | None
    ) -> None:
        """And no rollback copy, which a later change would take for the state before it."""
        if before is not None:
            (home.parent / "etc/file").write_text(before)
        applier = applier_of(host, {"keys": ["old"]})
        self.fail(applier, self.refused())
        assert (pending(home), recorded(home)) == ("", {"keys": ["old"]})
        assert applier.state.records("task") == {"keys": ["old"]}
        assert sorted(one.name for one in home.iterdir()) == ["state.json"]
        assert [one.name for one in (home.parent / "etc").iterdir()] == ([] if before is None else ["file"])

    def test_also_when_another_program_changed_the_file(self, host: LocalSession, home: Path) -> None:
        """It is planned again; then nothing may be left to change."""
        (home.parent / "etc/file").write_text("theirs")
        self.fail(applier_of(host), self.refused("", seen=b"old"))
        assert pending(home) == ""

    def test_what_was_pending_before_stays(self, host: LocalSession, home: Path) -> None:
        """Another handler, and the same one for an earlier change, with the rollback copy of that change."""
        home.mkdir()
        (home / "pending").write_text("other\tx\nreload\treload it\n")
        (home / "rollback").mkdir()
        (home / "rollback/file").write_text("first")
        self.fail(applier_of(host), self.refused())
        assert pending(home) == "other\tx\nreload\treload it\n"
        assert (home / "rollback/file").read_text() == "first"

    def test_the_handler_is_pending_while_the_file_is_checked(self, host: LocalSession, home: Path) -> None:
        """A run that is killed there loses nothing."""
        self.fail(applier_of(host), self.refused("cp /var/lib/provision/pending /etc/seen; false"))
        assert (home.parent / "etc/seen").read_text() == "reload\treload it\n"

    def test_a_running_job_is_not_stale(self, host: LocalSession, home: Path) -> None:
        """It began before the refused change, and its result still counts; one that was stale before stays so."""
        slow = Handler("slow", "slow work", sh("true"), detached=True)
        old = Handler("old", "old work", sh("true"), detached=True)
        for name in ("slow", "old"):
            (home / "job" / name).mkdir(parents=True)
        (home / "job/old/stale").touch()
        self.fail(applier_of(host), self.refused(notify=(slow, old)))
        assert sorted(str(one.relative_to(home)) for one in home.glob("job/*/*")) == ["job/old/stale"]

    def test_a_handler_that_rolls_back_does_not_record_it(self, host: LocalSession) -> None:
        """When it runs for another change, only that one is recorded."""
        undo = Handler("undo", "restart it", sh("true"), rolls_back=True)
        applier = applier_of(host, {"keys": ["old"]})
        self.fail(applier, self.refused(notify=(undo,)))
        run_handler(applier, undo)
        assert applier.state.records("task") == {"keys": ["old"]}

    def test_an_undo_that_fails_hides_nothing(self, host: LocalSession) -> None:
        """The error is that of the change."""
        change = self.refused("rm /var/lib/provision/pending && mkdir /var/lib/provision/pending; echo why >&2; false")
        with pytest.raises(ChangeFailed, match="why"):
            apply(applier_of(host), change)


class TestRecords:
    """`state.json` around a change."""

    def test_a_new_record_is_written_before_the_change(self, host: LocalSession, home: Path) -> None:
        """A change that fails leaves nothing of ours unrecorded."""
        change = Change("set", sh("exit 1"), record=["a"])
        with pytest.raises(ChangeFailed):
            apply(applier_of(host), change)
        assert recorded(home) == {"keys": ["a"]}

    def test_an_old_record_stays_until_the_change_succeeded(self, host: LocalSession, home: Path) -> None:
        """A key that a refused edit would have dropped is still recorded as ours."""
        applier = applier_of(host, {"keys": ["a", "b"]})
        with pytest.raises(ChangeFailed):
            apply(applier, Change("set", sh("exit 1"), record=["b", "c"]))
        assert recorded(home) == {"keys": ["a", "b", "c"]}
        apply(applier, Change("set", sh("true"), record=["b", "c"]))
        assert recorded(home) == {"keys": ["b", "c"]}

    def test_a_record_is_removed_after_the_change(self, host: LocalSession, home: Path) -> None:
        """None removes it; other records stay."""
        applier = applier_of(host, {"keys": ["a"], "other": 1})
        with pytest.raises(ChangeFailed):
            apply(applier, Change("drop", sh("exit 1"), record=None))
        assert recorded(home) == {}
        apply(applier, Change("drop", sh("true"), record=None))
        assert recorded(home) == applier.state.records("task") == {"other": 1}

    def test_a_failed_verification_is_not_recorded(self, host: LocalSession, home: Path) -> None:
        """Otherwise the next run would trust it."""
        check = Change("verify", sh("exit 1"), "run", records={"checked": "x"}, verification=True)
        with pytest.raises(ChangeFailed):
            apply(applier_of(host), check)
        assert recorded(home) == {}

    def test_a_verification_is_recorded_after_it_succeeded(self, host: LocalSession, home: Path) -> None:
        """Beside the earlier records."""
        check = Change("verify", sh("exit 0"), "run", records={"checked": "x"}, verification=True)
        apply(applier_of(host, {"other": 1}), check)
        assert recorded(home) == {"checked": "x", "other": 1}

    def test_an_unchanged_state_is_not_written(self) -> None:
        """The change runs as it is."""
        session = FakeSession()
        apply(applier_of(session, {"keys": ["a"]}), Change("set", sh("true"), record=["a"]))
        assert session.ran == [sh("true")]

    def test_the_union_keeps_both_sides(self) -> None:
        """Objects by key, lists by member, of plain values the old one."""
        old = {"top": ["a"], "runners": {"x": {"print": "A"}, "y": {"print": "B"}}}
        new = {"top": ["b", "a"], "runners": {"x": {"print": "C", "id": 1}, "z": {}}}
        assert union(old, new) == {
            "top": ["a", "b"],
            "runners": {"x": {"print": "A", "id": 1}, "y": {"print": "B"}, "z": {}},
        }

    def test_updated_replaces_whole_records(self) -> None:
        """One level deep; None removes."""
        before = state_of({"a": {"x": 1}, "b": 2, "c": 3})
        after = before.updated("task", {"a": {"y": 1}, "b": None, "d": 4})
        assert after.records("task") == {"a": {"y": 1}, "c": 3, "d": 4}
        assert before.records("task") == {"a": {"x": 1}, "b": 2, "c": 3}


def test_an_api_action_returns_what_the_host_does_and_what_is_recorded(host: LocalSession, home: Path) -> None:
    """The outcome counts, not the plan's prediction."""
    made: list[str] = []

    def make() -> Outcome:
        made.append("runner 7")
        return Outcome(sh("cat > /etc/config.toml").reading("id = 7\n"), 7, {"more": 8})

    change = Change("create", ApiAction(make, "POST /user/runners"), "create", record=0)
    apply(applier_of(host), change)
    assert made == ["runner 7"]
    assert (home.parent / "etc" / "config.toml").read_text() == "id = 7\n"
    assert recorded(home) == {"keys": 7, "more": 8}


class TestHandlers:
    """`run_handler`: the command, then the line in `pending`."""

    def test_a_handler_that_ran_is_no_longer_pending(self, host: LocalSession, home: Path) -> None:
        """Other handlers are."""
        home.mkdir()
        (home / "pending").write_text("other\tx\nreload\treload it\n")
        run_handler(applier_of(host), RELOAD)
        assert pending(home) == "other\tx\n"

    def test_a_handler_that_failed_stays_pending(self, host: LocalSession, home: Path) -> None:
        """The error holds its output."""
        home.mkdir()
        (home / "pending").write_text("reload\treload it\n")
        with pytest.raises(ChangeFailed, match="reload it: no such unit"):
            run_handler(applier_of(host), Handler("reload", "reload it", sh("echo no such unit >&2; exit 5")))
        assert pending(home) == "reload\treload it\n"

    def test_a_handler_may_end_with_exit(self, host: LocalSession, home: Path) -> None:
        """`exit 0` in its script ends only the script."""
        home.mkdir()
        (home / "pending").write_text("reload\treload it\n")
        run_handler(applier_of(host), Handler("reload", "reload it", sh("exit 0")))
        assert pending(home) == ""

    def test_what_a_handler_may_roll_back_to_stays_recorded_until_it_succeeds(
        self, host: LocalSession, home: Path
    ) -> None:
        """A dropped key stays recorded while the handler can fail and restore the previous file."""
        undo = Handler("undo", "put in force", sh("test -e /etc/well"), rolls_back=True)
        home.mkdir()
        (home / "state.json").write_text(state_of({"keys": ["a", "b"]}).text())
        applier = applier_of(host, {"keys": ["a", "b"]})
        apply(applier, Change("edit", sh("true"), notify=(undo,), record=["b"]))
        with pytest.raises(ChangeFailed):
            run_handler(applier, undo)
        assert recorded(home) == applier.state.records("task") == {"keys": ["a", "b"]}
        (home.parent / "etc" / "well").touch()
        run_handler(applier, undo)
        assert recorded(home) == applier.state.records("task") == {"keys": ["b"]}

    def test_a_detached_handler_is_followed(self, host: LocalSession, home: Path) -> None:
        """Its output arrives; its job is removed."""
        home.mkdir()
        (home / "pending").write_text("slow\tslow work\n")
        heard: list[str] = []
        run_handler(applier_of(host), Handler("slow", "slow work", sh("echo working"), detached=True), heard)
        assert "".join(heard) == "working\n"
        assert list(home.iterdir()) == []


def test_a_detached_handler_cannot_read_its_standard_input() -> None:
    """A mistake of the resource's author, found at once."""
    handler = Handler("slow", "slow work", sh("cat").reading("x"), detached=True)
    with pytest.raises(ValueError, match="slow: a detached command cannot read standard input"):
        run_handler(applier_of(FakeSession()), handler)


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (Result(b"out\n", b"why\n\n", 1), "why"),
        (Result(b"out\n\n", b" \n", 1), "out"),
        (Result(b"", b"", 7), "exit code 7, no output"),
        (Result(b"", "".join(f"{n}\n" for n in range(20)).encode(), 1), "\n".join(str(n) for n in range(8, 20))),
    ],
)
def test_the_end_of_a_failed_commands_output(result: Result, words: str) -> None:
    """Of stderr, else of stdout, else its exit code."""
    assert end_of_output(result) == words


def test_secrets_are_masked_in_errors_and_output() -> None:
    """Wherever a program repeats them."""
    Secret("hunter2-hunter2")
    heard: list[str] = []
    session = FakeSession({"login": Result(b"trying hunter2-hunter2\n", b"bad password hunter2-hunter2\n", 1)})
    with pytest.raises(ChangeFailed, match=r"log in: bad password \*\*\*"):
        apply(applier_of(session, {}), Change("log in", sh("login")), heard)
    assert "".join(heard) == "trying ***\nbad password ***\n"


@pytest.mark.parametrize("verification", [False, True], ids=["a change", "a verification"])
def test_the_first_failing_line_ends_a_change(host: LocalSession, home: Path, verification: bool) -> None:
    """`set -e` works in it, with steps of ours before and after it."""
    change = Change(
        "go on",
        sh("set -e\nfalse\ntouch %s", home / "went-on"),
        notify=(Handler("restart", "restart it", sh(":")),),
        record=True,
        verification=verification,
    )
    with pytest.raises(ChangeFailed):
        apply(applier_of(host), change)
    assert not (home / "went-on").exists()


def test_a_handler_that_cannot_be_written_stops_the_change(host: LocalSession, home: Path) -> None:
    """The change does not run."""
    (home / "pending").mkdir(parents=True)
    change = Change("go on", sh("touch %s", home / "went-on"), notify=(Handler("restart", "restart it", sh(":")),))
    with pytest.raises(ChangeFailed):
        apply(applier_of(host), change)
    assert not (home / "went-on").exists()


def test_the_first_failing_line_ends_a_handler(host: LocalSession, home: Path) -> None:
    """And it stays pending."""
    home.mkdir()
    (home / "pending").write_text("restart\trestart it\n")
    with pytest.raises(ChangeFailed):
        run_handler(applier_of(host), Handler("restart", "restart it", sh("set -e\nfalse\ntouch %s", home / "on")))
    assert not (home / "on").exists()
    assert pending(home) == "restart\trestart it\n"


@pytest.mark.parametrize("code", [0, 1])
def test_a_secret_that_is_cut_by_a_packet_is_masked(code: int) -> None:
    """The output is masked line by line after joining; the last line as well, whether the command fails or not."""
    Secret("canary-0f2b")
    shown: list[str] = []
    session = Pieces(b"one canary", b"-0f2b\ntwo cana", b"ry-0f2b three", code=code)
    applier = Applier(session, HostState(), lambda: session)
    with suppress(ChangeFailed):
        applier.apply([Planned(OWNED, Change("change it", Command(":")))], Steps(shown))
    assert shown == ["one ***\n", "two *** three"]


def test_the_end_of_an_output_has_no_part_of_a_secret() -> None:
    """It is masked before its earlier lines are cut off."""
    Secret("canary first line\nzwei\n")
    assert end_of_output(Result(stderr=b"canary first line\nzwei\nfailed\n", code=1), 2) == "***\nfailed"


@pytest.mark.parametrize("code", [0, 1])
def test_what_follows_the_command(host: LocalSession, code: int) -> None:
    """What an API action made for its command is undone after it, also when the command fails."""
    done: list[str] = []

    def make() -> Outcome:
        return Outcome(sh(f"exit {code}"), after=lambda: done.append("revoked"))

    change = Change("check", ApiAction(make, "POST /tokens"), "run", verification=True)
    applier = Applier(host, HostState(), lambda: host)
    if code:
        with pytest.raises(ChangeFailed):
            applier.apply([Planned(OWNED, change)], Steps())
    else:
        applier.apply([Planned(OWNED, change)], Steps())
    assert done == ["revoked"]


class TestTogether:
    """Several changes and handlers, and the questions after them, in one round trip."""

    def change(self, name: str, code: int = 0, **more: Any) -> Change:
        """A change that writes to /etc/NAME what is pending and recorded on the host while it runs."""
        script = "cat /var/lib/provision/pending /var/lib/provision/state.json > %s 2>/dev/null; exit %s"
        return Change(name, sh(script, f"/etc/{name}", code), **more)

    def seen(self, home: Path, name: str) -> tuple[str, Any]:
        """What was pending, and what was recorded, while a change ran."""
        pending, brace, state = (home.parent / "etc" / name).read_text().partition("{")
        return pending, json.loads(brace + state)["owners"]["task"] if brace else {}

    def together(
        self, applier: Applier, *work: Change | Handler, then: Sequence[Command] = (), **more: Any
    ) -> tuple[Applied, list[str]]:
        """Applies them."""
        steps = Steps()
        planned = [one if isinstance(one, Handler) else Planned(OWNED, one) for one in work]
        return applier.apply(planned, steps, then, **more), steps.events

    def test_each_runs_as_if_it_were_sent_alone(self, host: LocalSession, home: Path) -> None:
        """Handlers and records are written before a change. Old records are removed after it, before the next one."""
        home.mkdir()
        (home / "state.json").write_text(state_of({"keys": ["old"]}).text())
        applier = applier_of(host, {"keys": ["old"]})
        work = [
            self.change("one", notify=(RELOAD,), record=["new"]),
            self.change("two", records={"other": 1}),
            Handler("reload", "reload it", sh("cp /var/lib/provision/pending /etc/at-reload")),
        ]
        applied, events = self.together(applier, *work, then=[ASK_PENDING, ASK_STATE])
        assert host.traffic.round_trips == 1
        assert self.seen(home, "one") == ("reload\treload it\n", {"keys": ["old", "new"]})
        assert self.seen(home, "two") == ("reload\treload it\n", {"keys": ["new"], "other": 1})
        assert (home.parent / "etc/at-reload").read_text() == "reload\treload it\n"
        assert recorded(home) == applier.state.records("task") == {"keys": ["new"], "other": 1}
        assert applied.done == 3
        assert applied.answers is not None
        assert [one.text for one in applied.answers] == ["", f"{applier.state.text()}\n"]
        pairs = [f"{word} {one}" for one in ("one", "two", "reload it") for word in ("begin", "end")]
        assert events == [*pairs, "observe"]

    def test_a_failure_in_the_middle(self, host: LocalSession, home: Path) -> None:
        """The state, here and on the host, has what the earlier changes and the failed change recorded. No later one ran."""
        applier, steps = applier_of(host), Steps()
        work = [
            self.change("one", records={"first": 1}),
            self.change("two", 1, notify=(RELOAD,), records={"second": 2}),
            self.change("three", notify=(Handler("late", "late work", sh("true")),), records={"third": 3}),
            RELOAD,
        ]
        planned = [one if isinstance(one, Handler) else Planned(OWNED, one) for one in work]
        with pytest.raises(ChangeFailed, match="two: exit code 1"):
            applier.apply(planned, steps, [sh("touch %s", home.parent / "asked")])
        assert steps.events == ["begin one", "end one", "begin two"]
        assert applier.state.records("task") == {"first": 1}
        assert recorded(home) == {"first": 1, "second": 2}
        assert pending(home) == "reload\treload it\n"
        assert sorted(one.name for one in (home.parent / "etc").iterdir()) == ["one", "two"]
        assert not (home.parent / "asked").exists()

    def test_a_refusal_in_the_middle_undoes_its_own_additions(self, host: LocalSession, home: Path) -> None:
        """The additions of the change before it stay."""
        applier = applier_of(host)
        refused = Change("two", sh("exit %s", NOTHING_CHANGED), notify=(RELOAD,), records={"second": 2})
        with pytest.raises(ChangeFailed) as caught:
            self.together(applier, self.change("one", records={"first": 1}), refused, self.change("three"))
        assert caught.value.changed_nothing
        assert (recorded(home), pending(home)) == ({"first": 1}, "")

    def test_records_of_a_handler_that_rolls_back(self, host: LocalSession, home: Path) -> None:
        """The old records stay until it has succeeded, also when it runs in the same round trip."""
        undo = Handler("undo", "put in force", sh("cp /var/lib/provision/state.json /etc/at-undo"), rolls_back=True)
        home.mkdir()
        (home / "state.json").write_text(state_of({"keys": ["a", "b"]}).text())
        applier = applier_of(host, {"keys": ["a", "b"]})
        self.together(applier, self.change("edit", notify=(undo,), record=["b"]), undo)
        at_undo = json.loads((home.parent / "etc/at-undo").read_text())
        assert at_undo["owners"]["task"] == {"keys": ["a", "b"]}
        assert recorded(home) == applier.state.records("task") == {"keys": ["b"]}

    def test_an_api_action_is_called_after_what_is_before_it(self, host: LocalSession, home: Path) -> None:
        """It begins a new round trip. Other changes may follow in the same one."""
        called: list[list[str]] = []

        def make() -> Outcome:
            called.append(sorted(one.name for one in (home.parent / "etc").iterdir()))
            return Outcome(sh("touch /etc/made"))

        applier, action = applier_of(host), Change("make", ApiAction(make, "POST /x"))
        work = [Planned(OWNED, one) for one in (self.change("one"), self.change("two"), action, self.change("three"))]
        assert applier.apply(work, Steps(), [ASK_STATE]) == Applied(2)
        assert called == []
        done, answers = applier.apply(work[2:], Steps(), [ASK_STATE])
        assert (called, done, answers and len(answers)) == ([["one", "two"]], 2, 1)
        assert host.traffic.round_trips == 2

    def test_what_undoes_an_api_action_is_called_at_once(self, host: LocalSession, home: Path) -> None:
        """Nothing else is sent together with its command."""
        undone: list[list[str]] = []

        def names() -> list[str]:
            return sorted(one.name for one in (home.parent / "etc").iterdir())

        action = Change("make", ApiAction(lambda: Outcome(sh("touch /etc/made"), after=lambda: undone.append(names()))))
        applied, _ = self.together(applier_of(host), action, self.change("two"), then=[ASK_STATE])
        assert (applied, undone) == (Applied(1), [["made"]])

    def test_a_guard_is_confirmed_before_anything_else_runs(self) -> None:
        """It is the last one in its round trip. The record of what it removed is deleted after the login."""
        fresh, session = FakeSession(), FakeSession()
        applier = Applier(session, state_of({"keys": ["a"]}), lambda: fresh)
        guarded = Change("two", sh("two"), guard=Guard(sh("undo")), record=None)
        applied, events = self.together(applier, Change("one", sh("one")), guarded, Change("three", sh("three")))
        assert applied == Applied(2)
        assert events == ["begin one", "end one", "begin two", "end two"]
        assert [one.script.splitlines()[-1] for one in fresh.ran] == ["systemctl stop provision-guard.timer"]
        assert len(session.ran) == 3  # the third drops the record
        assert applier.state.records("task") == {}

    def test_ctrl_c_between_two_steps(self, host: LocalSession, home: Path) -> None:
        """The running step ends. A step that has not started is reported as not started, and is not in the state."""
        pressed = [False, True]
        applier = applier_of(host)
        applied, events = self.together(
            applier,
            self.change("one", records={"a": 1}),
            self.change("two", records={"b": 2}),
            self.change("three", records={"c": 3}),
            then=[ASK_STATE],
            stopping=lambda: pressed.pop(0),
        )
        assert applied == Applied(2)
        assert events == ["begin one", "end one", "begin two", "end two", "begin three", "stopped"]
        assert recorded(home) == applier.state.records("task") == {"a": 1, "b": 2}

    def test_ctrl_c_before_the_questions(self, host: LocalSession) -> None:
        """They are not asked."""
        pressed = [True]
        applied, events = self.together(
            applier_of(host), self.change("one"), then=[ASK_STATE], stopping=lambda: pressed.pop(0)
        )
        assert applied == Applied(1)
        assert events[-2:] == ["observe", "stopped"]

    def test_outputs_belong_to_their_steps(self, host: LocalSession) -> None:
        """The last line of a step has no line break; it is printed before the step has ended."""
        steps = Steps()

        class Joined(Steps):
            def output(self, text: str) -> None:
                self.events.append(text)

        steps = Joined()
        work = [Planned(OWNED, Change(name, sh("printf %s", name.upper()))) for name in ("one", "two")]
        applier_of(host).apply(work, steps)
        assert steps.events == ["begin one", "ONE", "end one", "begin two", "TWO", "end two"]
