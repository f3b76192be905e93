"""The graph of plays: plays that do not depend on each other run at the same time, in a bounded number of threads."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Sequence
from itertools import permutations
from operator import and_, or_, sub
from typing import Any

import pytest

from provision.engine.assemble import Options, assemble
from provision.engine.catalogue import Catalogue
from provision.engine.events import Message, Start, StartedPlay, Step
from provision.engine.host_run import HostRun
from provision.engine.play_graph import PlayEnded, PlayGraph, PlaySet
from provision.engine.run import HostPlay
from provision.tasks import play
from tests.support.waiting import wait_for

WAIT = 20  # seconds: far more than any test needs


def named(toys: Any, name: str) -> Any:
    """A task of one toy with its name."""
    return toys.task(name, toys.Toy(name))


def on(hosts: Sequence[str], task: Any, after: tuple[int, ...] | None = None, chain: object = None) -> HostPlay:
    """A play of one task."""
    return HostPlay(dict.fromkeys(hosts, (task,)), chain, after)  # type: ignore[arg-type]


class Order:
    """Records the changes of all hosts in the order in which they ended, as "host key"."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self._changed = threading.Condition()

    def after(self, host: str, waits: dict[str, str] | None = None) -> Callable[[str], int]:
        """The function of a host that is called with each key: it waits until what is given for the key is done."""

        def on_set(key: str) -> int:
            with self._changed:
                awaited = (waits or {}).get(key)
                in_time = awaited is None or self._changed.wait_for(lambda: awaited in self.done, WAIT)
                self.done.append(f"{host} {key}")
                self._changed.notify_all()
                return int(not in_time)

        return on_set


class TestOrder:
    """When a play starts."""

    def test_a_play_that_waits_for_none_starts_at_once(self, engine: Any, toys: Any) -> None:
        """The first play of the server ends only after the second play, of another host, has ended."""
        order = Order()
        sessions = {
            "server": toys.Host(on_set=order.after("server", {"install": "runner packages"})),
            "runner": toys.Host(on_set=order.after("runner")),
        }
        plays = [
            on(["server"], named(toys, "install")),
            on(["runner"], named(toys, "packages"), ()),
            on(["runner"], named(toys, "register"), (0,)),
        ]
        report = engine(sessions, *plays)
        assert order.done == ["runner packages", "server install", "runner register"]
        assert report.summary.failed == 0
        waits = [one.text for one in report.events if isinstance(one, Step) and one.kind == "waiting"]
        assert waits == ["waiting for install on server"]

    def test_a_diamond(self, engine: Any, toys: Any) -> None:
        """Both sides start after the top play and may overlap. The bottom play starts after both."""
        order = Order()
        sessions = {
            "a": toys.Host(on_set=order.after("a")),
            "b": toys.Host(on_set=order.after("b", {"left": "c right"})),
            "c": toys.Host(on_set=order.after("c")),
        }
        plays = [
            on(["a"], named(toys, "top")),
            on(["b"], named(toys, "left"), (0,)),
            on(["c"], named(toys, "right"), (0,)),
            on(["a"], named(toys, "bottom"), (1, 2)),
        ]
        assert engine(sessions, *plays).summary.failed == 0
        assert order.done == ["a top", "c right", "b left", "a bottom"]

    def test_a_host_works_on_its_plays_in_their_order(self, engine: Any, toys: Any) -> None:
        """The second play starts after the first, although it waits for no other play."""
        host = toys.Host()
        engine({"one": host}, on(["one"], named(toys, "a")), on(["one"], named(toys, "b"), ()))
        assert host.was_set == ["a", "b"]

    def test_a_play_without_hosts_still_orders_others(self, engine: Any, toys: Any) -> None:
        """--limit has removed the hosts of the second play: the third one waits for the first."""
        order, waits = Order(), threading.Event()

        def notice(event: Any) -> None:
            if isinstance(event, Step) and (event.host, event.kind) == ("c", "waiting"):
                waits.set()

        sessions = {
            "a": toys.Host(on_set=lambda key: int(not waits.wait(WAIT)) or order.after("a")(key)),
            "c": toys.Host(on_set=order.after("c")),
        }
        plays = [
            on(["a"], named(toys, "first")),
            on([], named(toys, "second"), (0,)),
            on(["c"], named(toys, "third"), (1,)),
        ]
        report = engine(sessions, *plays, run=lambda run: run.listeners.append(Watch(notice)))
        assert report.summary.failed == 0
        assert order.done == ["a first", "c third"]

    def test_a_host_that_others_wait_for_goes_first(self, engine: Any, toys: Any) -> None:
        """There is one thread, and the host is the last one of the inventory."""
        order = Order()
        sessions = {name: toys.Host(on_set=order.after(name)) for name in ("r1", "r2", "server")}
        plays = [
            on(["server"], named(toys, "install")),
            on(["r1", "r2"], named(toys, "packages"), ()),
            on(["r1"], named(toys, "register"), (0,)),
        ]
        engine(sessions, *plays, forks=1)
        assert order.done[0] == "server install"

    def test_serial_plays_beside_others(self, engine: Any, toys: Any) -> None:
        """The steps of the serial play follow each other. A play that waits for none of them runs meanwhile."""
        order = Order()
        sessions = {
            "web1": toys.Host(on_set=order.after("web1", {"deploy": "other packages"})),
            "web2": toys.Host(on_set=order.after("web2")),
            "other": toys.Host(on_set=order.after("other")),
        }
        deploy = named(toys, "deploy")
        plays = [
            on(["web1"], deploy, (), "chain"),
            on(["web2"], deploy, (0,), "chain"),
            on(["other"], named(toys, "packages"), ()),
        ]
        assert engine(sessions, *plays).summary.failed == 0
        assert order.done == ["other packages", "web1 deploy", "web2 deploy"]

    def test_a_failure_does_not_stop_later_plays(self, engine: Any, toys: Any) -> None:
        """The other hosts run the later play. In a serial play, the steps after the failed host are skipped."""
        sessions = {"bad": toys.Host(on_set=lambda _: 1), "good": toys.Host(), "last": toys.Host()}
        deploy = named(toys, "deploy")
        report = engine(
            sessions,
            on(["bad", "good"], named(toys, "first")),
            on(["bad", "good"], named(toys, "second"), (0,)),
            on(["bad"], deploy, (1,), "chain"),
            on(["last"], deploy, (2,), "chain"),
        )
        assert [one for one in report.statuses if one.startswith("good")] == [
            "good first changed",
            "good second changed",
        ]
        assert [one for one in report.statuses if one.startswith("bad")] == [
            "bad first failed",
            "bad second skipped",
            "bad deploy skipped",
        ]
        assert report.statuses[-1] == "last deploy skipped"
        assert [one.text for one in report.messages_of("last")] == ["skipped: bad failed earlier"]

    def test_check_mode_predicts_in_the_same_order(self, engine: Any, toys: Any) -> None:
        """A change that requires a task is not planned if this task failed on another host."""
        from provision.errors import Refused

        class Refusing(toys.Toy):  # type: ignore[misc]
            def plan(self, seen: Any) -> Any:
                del seen
                raise Refused("not here")
                yield

        sessions = {"server": toys.Host(), "runner": toys.Host()}
        report = engine(
            sessions,
            on(["server"], toys.task("install", Refusing("x"))),
            on(["runner"], named(toys, "packages"), ()),
            on(["runner"], toys.task("register", toys.Toy("r", after="install")), (0,)),
            check=True,
        )
        assert report.changes == ["runner: ?set packages to on"]
        assert "not planned, depends on install, which failed: set r to on" in report.messages


class TestObservations:
    """When a host is observed again, and which verifications are due."""

    @staticmethod
    def batches(engine: Any, toys: Any, after: tuple[int, ...]) -> tuple[int, list[str]]:
        """How often the host `quiet` was observed, and all messages. Its play comes `after` others; play 0 changes something."""
        quiet = toys.Host({"b": "on", "checked-p": "shown"})
        plays = [
            on(["one"], named(toys, "a")),
            on(["two"], named(toys, "c"), ()),
            on(["quiet"], toys.task("b", toys.Toy("b"), toys.Check("p")), after),
        ]
        sessions = {"one": toys.Host(), "two": toys.Host({"c": "on"}), "quiet": quiet}
        report = engine(sessions, *plays)
        return len(quiet.batches), report.messages

    def test_a_change_that_it_depends_on(self, engine: Any, toys: Any) -> None:
        """The host is observed again."""
        assert self.batches(engine, toys, (0, 1))[0] == 2

    def test_a_change_that_it_does_not_depend_on(self, engine: Any, toys: Any) -> None:
        """Its first observation is enough."""
        for _ in range(5):
            assert self.batches(engine, toys, (1,)) == (1, [])

    @pytest.mark.parametrize("depends", [True, False])
    def test_verifications_are_due_after_what_they_depend_on(self, engine: Any, toys: Any, depends: bool) -> None:
        """A verification is due after a change in a play that its own play waits for, and not after another change."""
        seen: list[bool] = []

        class Asking(toys.Toy):  # type: ignore[misc]
            def plan(self, seen_now: Any) -> Any:
                seen.append(seen_now.due)
                yield from ()

        plays = [
            on(["one"], named(toys, "a")),
            on(["two"], named(toys, "c"), ()),
            on(["quiet"], toys.task("b", Asking("b")), (0,) if depends else (1,)),
        ]
        engine({"one": toys.Host(), "two": toys.Host({"c": "on"}), "quiet": toys.Host()}, *plays)
        assert seen == [depends]

    def test_a_host_knows_its_own_changes(self, engine: Any, toys: Any) -> None:
        """The host is observed before and after each change, and no more often."""
        host = toys.Host()
        engine({"one": host}, on(["one"], named(toys, "a")), on(["one"], named(toys, "b"), (0,)))
        assert len(host.batches) == 4  # all; a again; b; b again

    def test_each_change_elsewhere_counts_once(self, engine: Any, toys: Any) -> None:
        """The host is not observed once more for a third play that waits for the same play."""
        quiet = toys.Host({"b": "on", "d": "on"})
        plays = [
            on(["one"], named(toys, "a")),
            on(["quiet"], named(toys, "b"), (0,)),
            on(["quiet"], toys.task("b2", toys.Toy("b")), (0,)),
        ]
        engine({"one": toys.Host(), "quiet": quiet}, *plays)
        assert len(quiet.batches) == 2


class TestInterrupt:
    """Ctrl-C while hosts wait for a play."""

    def test_hosts_that_wait_end_at_once(self, engine: Any, toys: Any) -> None:
        """They release their locks while a step of another host still runs, and start no task."""
        waiting = toys.Host()
        waits, closed = threading.Event(), threading.Event()

        def work(_: str) -> int:
            assert waits.wait(WAIT)
            os.kill(os.getpid(), signal.SIGINT)
            return int(not closed.wait(WAIT))

        waiting.close = closed.set
        sessions = {"busy": toys.Host(on_set=work), "waiting": waiting}
        watch = Watch(lambda event: isinstance(event, Step) and event.kind == "waiting" and waits.set())
        report = engine(
            sessions,
            on(["busy"], named(toys, "long")),
            on(["waiting"], named(toys, "later"), (0,)),
            run=lambda run: run.listeners.append(watch),
        )
        assert report.summary.interrupted
        assert waiting.was_set == []
        assert "waiting later skipped" in report.statuses
        assert [one.text for one in report.messages_of("waiting")] == [
            "stopped between two steps; the last was: waiting for long on busy"
        ]
        assert [one.kind for one in report.messages_of("busy")] == ["stopping", "note"]

    def test_hosts_that_have_not_begun_are_not_contacted(self, engine: Any, toys: Any) -> None:
        """Their tasks are skipped."""

        def work(_: str) -> int:
            os.kill(os.getpid(), signal.SIGINT)
            return int(not stopping.wait(WAIT))

        stopping = threading.Event()
        watch = Watch(lambda event: isinstance(event, Message) and event.kind == "stopping" and stopping.set())
        sessions = {"busy": toys.Host(on_set=work), "next": AssertionError("contacted")}
        report = engine(
            sessions, [named(toys, "a")], [named(toys, "b")], forks=1, run=lambda run: run.listeners.append(watch)
        )
        assert [one for one in report.statuses if one.startswith("next")] == ["next a skipped", "next b skipped"]
        assert [one.text for one in report.messages_of("next")] == ["stopped before the host was contacted"]
        assert report.errors == []


class Watch:
    """A listener that calls a function with each event."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self._function = function

    def on(self, event: Any) -> None:
        """Calls it."""
        self._function(event)

    def close(self) -> None:
        """Nothing."""


def test_hosts_that_wait_need_no_thread(engine: Any, toys: Any) -> None:
    """Of 300 hosts, 299 wait for one, with --forks 8: then only the thread of this host is left."""
    before, most, while_waiting = threading.active_count(), 0, 0
    waiting: set[str] = set()
    all_wait = threading.Event()
    names = [f"web{number}" for number in range(299)]

    def count_threads(event: Any) -> None:
        nonlocal most
        most = max(most, threading.active_count())
        if isinstance(event, Step) and event.kind == "waiting":
            waiting.add(event.host)
            if len(waiting) == len(names):
                all_wait.set()

    def work(_: str) -> int:
        nonlocal while_waiting
        in_time = all_wait.wait(WAIT)
        wait_for(lambda: threading.active_count() <= before + 1, "the other threads have ended")
        while_waiting = threading.active_count()
        return int(not in_time)

    sessions = {"server": toys.Host(on_set=work)} | {name: toys.Host() for name in names}
    plays = [
        on(["server"], named(toys, "install")),
        on(names, named(toys, "packages"), ()),
        on(names, named(toys, "register"), (0,)),
    ]
    report = engine(sessions, *plays, forks=8, run=lambda run: run.listeners.append(Watch(count_threads)))
    assert (report.summary.failed, report.summary.changed) == (0, 1 + 2 * 299)
    assert most <= before + 8
    assert while_waiting == before + 1


def test_an_engine_error_at_the_end_of_a_host_ends_the_run(
    engine: Any, toys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error is raised after all hosts have ended: no other host waits for the failed one."""

    def broken(run: Any) -> None:
        if run.recorder.host == "bad":
            raise RuntimeError("engine bug")

    monkeypatch.setattr(HostRun, "close", broken)
    with pytest.raises(RuntimeError, match="engine bug"):
        engine({"bad": toys.Host(), "good": toys.Host()}, [named(toys, "a")], [named(toys, "b")])


def test_a_set_of_plays_is_like_a_frozenset() -> None:
    """The operators give the same members as those of frozensets, also in a set of 1,000 plays."""
    some, others = [0, 2, 3, 999], [2, 5, 999]
    made, wanted = (PlaySet.of(some), PlaySet.of(others)), (frozenset(some), frozenset(others))
    for operator in (or_, and_, sub):
        assert list(operator(*made)) == sorted(operator(*wanted))
        assert list(operator(*reversed(made))) == sorted(operator(*reversed(wanted)))
    assert [one in made[0] for one in (0, 1, 2, 1000)] == [True, False, True, False]
    assert list(PlaySet.before(3)) == [0, 1, 2]
    assert made[0].isdisjoint(PlaySet.of([1, 4]))
    assert not made[0].isdisjoint(made[1])
    assert [bool(PlaySet()), bool(PlaySet.of([0]))] == [False, True]


class TestGraph:
    """The state of the graph alone."""

    PLAYS = (
        HostPlay({"a": (), "b": ()}),
        HostPlay({"c": ()}, None, (0,)),
        HostPlay({"a": ()}, "chain", (1,)),
        HostPlay({"c": ()}, "chain", (2,)),
        HostPlay({"d": ()}, None, ()),
    )

    def test_graphs_of_several_processes_agree(self) -> None:
        """The reports may arrive in any order."""
        reports = (
            PlayEnded("a", 0, changed=True),
            PlayEnded("b", 0, changed=True, failed=frozenset({"x"})),
            PlayEnded("c", None),
            PlayEnded("a", 2, breaks="chain"),
        )
        for order in permutations(reports):
            graph = PlayGraph(self.PLAYS)
            for one in order:
                graph.add(one)
            assert [graph.is_open(play) for play in range(5)] == [True] * 5
            assert [list(graph.changed_before(3, host)) for host in "abc"] == [[0], [0], [0]]
            assert (graph.failed_host("chain"), graph.failed_host(None), graph.failed_tasks) == ("a", "", {"x"})

    def test_a_hosts_own_change_does_not_count_for_it(self) -> None:
        """It counts for every other host. When a second host changes something too, it counts for both."""
        graph = PlayGraph(self.PLAYS)
        graph.add(PlayEnded("a", 0, changed=True))
        assert [list(graph.changed_before(1, host)) for host in "abc"] == [[], [0], [0]]
        graph.add(PlayEnded("b", 0, changed=True))
        assert [list(graph.changed_before(1, host)) for host in "abc"] == [[0], [0], [0]]
        assert not graph.changed_before(4, "c")

    def test_listeners_are_called_with_each_report(self) -> None:
        """They are called after the report was added."""
        graph, heard = PlayGraph(self.PLAYS), []
        graph.listen(lambda ended: heard.append((ended.host, graph.is_open(1))))
        for host in ("a", "b"):
            graph.add(PlayEnded(host, 0))
        assert heard == [("a", False), ("b", True)]


class TestOutline:
    """The plays as reports show them."""

    def test_it_names_the_plays_that_a_play_waits_for(self, toys: Any) -> None:
        """Only direct ones are named. A serial play is one play, and plays without hosts are left out."""
        task = {name: named(toys, name) for name in "abcde"}
        plays = [
            on(["h1"], task["a"]),
            on([], task["b"], (0,)),
            on(["h2", "h3"], task["c"], (0, 1)),
            on(["h2"], task["d"], (0, 2), "chain"),
            on(["h3"], task["d"], (3,), "chain"),
            on(["h1"], task["e"]),
        ]
        assert PlayGraph(plays).outline() == (
            StartedPlay(("a",), ("h1",)),
            StartedPlay(("c",), ("h2", "h3"), (0,)),
            StartedPlay(("d",), ("h2", "h3"), (1,), serial=True),
            StartedPlay(("e",), ("h1",), (2,)),
        )


INVENTORY = """
[hosts.gitlab]
groups = ["gitlab"]
[hosts."runner-[1:2]"]
groups = ["runners"]
[gitlab]
external_url = "https://gitlab.example.com"
api_token = "glpat-0123456789abcdefghij"
[docker]
[[apps]]
name = "web"
image = "nginx:1"
"""


class TestPlaybooks:
    """`after` in playbooks, and several names."""

    @pytest.fixture
    def plays(self, tmp_path: Any) -> Callable[..., Sequence[HostPlay]]:
        """The plays of a run of these names."""
        path = tmp_path / "inventory.toml"
        path.write_text(INVENTORY)

        def of(*names: str, limit: str | None = None) -> Sequence[HostPlay]:
            run, _ = assemble(Options(names, (path,), limit=limit))
            return run.plays

        return of

    def test_names_follow_each_other(self, plays: Any) -> None:
        """All plays of a later name wait for all plays of the names before it."""
        graph = PlayGraph(plays("runners", "all"))
        first = len(plays("runners"))
        assert first == 1
        for host in ("runner-1", "runner-2"):
            graph.add(PlayEnded(host, 0))
            assert [graph.is_open(index) for index in (1, 2)] == [host == "runner-2"] * 2

    def test_all_starts_docker_at_once_and_deploys_last(self, plays: Any) -> None:
        """The shipped playbook."""
        found = PlayGraph(plays("all")).outline()
        tasks = [one.tasks for one in found]
        server, packages = tasks.index(("firewall", "gitlab", "certificates")), tasks.index(("docker", "runner"))
        assert [found[index].after for index in (server, packages)] == [(), ()]
        assert (tasks[-1], found[-1].serial) == (("deploy",), True)

    def test_limit_leaves_out_plays_without_hosts(self, plays: Any) -> None:
        """Without the GitLab host, no play waits for it."""
        found = PlayGraph(plays("all", limit="runners")).outline()
        assert [one.after for one in found if "docker" in one.tasks] == [()]
        assert all(set(one.hosts) <= {"runner-1", "runner-2"} for one in found)

    @pytest.mark.parametrize(
        ("text", "problem", "hint"),
        [
            (
                "first = play('web', docker)\nsecond = play('db', runner, after=(first,))\nPLAYS = [second, first]\n",
                "play('db', runner) waits for play('web', docker), which is not before it in the list",
                "write NAME = play('web', docker) above PLAYS",
            ),
            (
                "PLAYS = [play('db', runner, after=(play('web', docker),))]\n",
                "which is not before it in the list",
                "after=(NAME,)",
            ),
            ("PLAYS = [play('db', runner, after=(docker,))]\n", "is not a play", "fix the playbook file"),
            ("PLAYS = [play('db', runner, after='web')]\n", "after='w' is not a play", "fix the playbook file"),
        ],
    )
    def test_a_wrong_order_is_refused(self, tmp_path: Any, text: str, problem: str, hint: str) -> None:
        """The error names the file, and its hint says what to write."""
        from provision.errors import UsageError

        folder = tmp_path / "playbooks"
        folder.mkdir(mode=0o755)
        (folder / "mine.py").write_text(f"from provision.tasks import docker, play, runner\n{text}")
        with pytest.raises(UsageError) as caught:
            Catalogue.of([folder]).plays(["mine"])
        assert "mine.py" in caught.value.text
        assert problem in caught.value.text
        assert hint in caught.value.hint

    def test_one_play_needs_no_brackets(self, toys: Any) -> None:
        """`after=server` is `after=(server,)`."""
        first = play("web", named(toys, "a"))
        assert play("db", after=first) == play("db", after=(first,))


def test_two_tasks_of_one_name_on_two_hosts(engine: Any, toys: Any) -> None:
    """Each host runs the task of its own play: here a shipped task, and a user's task of the same name."""
    sessions = {"one": toys.Host(), "two": toys.Host()}
    report = engine(sessions, on(["one"], named(toys, "docker")), on(["two"], named(toys, "docker"), ()))
    assert sorted(report.statuses) == ["one docker changed", "two docker changed"]


def test_the_run_begins_with_its_plays(engine: Any, toys: Any) -> None:
    """The first event names the plays."""
    report = engine({"one": toys.Host()}, on(["one"], named(toys, "a")), on(["one"], named(toys, "b"), ()))
    (start,) = [one for one in report.events if isinstance(one, Start)]
    assert start.plays == (StartedPlay(("a",), ("one",)), StartedPlay(("b",), ("one",)))
