"""GitLab is not ready yet: questions, API queries and changes are repeated until it is, and nothing waits otherwise."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from provision.engine import waiting as module
from provision.errors import ApiFailed
from provision.gitlab import access
from provision.gitlab.api import pause
from provision.host.pending import Handler
from provision.host.scripts import NOT_READY
from provision.resources.base import ApiAction, ApiQuery, Change, Note, Observation, Probe, Resource
from provision.shell import Command, Result, sh

RELOAD = Handler("reload", "reload it", sh("toy-set reloaded yes"))
STARTS = "GitLab at https://gitlab.example.com refused /projects: 502 Bad Gateway"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten attempts in a tenth of a second."""
    monkeypatch.setattr(module, "_INTERVAL_SECONDS", 0.01)


@dataclass
class Server:
    """GitLab: it answers 502 for some requests, then it is ready."""

    starts: int = 0
    asked: int = 0
    ready: threading.Event = field(default_factory=threading.Event)

    def ask(self) -> None:
        """A request. Raises ApiFailed while it starts."""
        self.asked += 1
        if self.asked <= self.starts:
            raise ApiFailed(STARTS, hint="see its log", status=502)


@dataclass(frozen=True)
class Project(Resource):
    """Something in GitLab, asked and set through its API. `returns`: errors are returned to `plan`."""

    server: Server = field(hash=False)
    returns: bool = False
    set: Callable[[], None] | None = None

    label = "Project"

    def probe(self) -> Probe:
        return Probe.of(ApiQuery("project", self._ask))

    def plan(self, seen: Observation) -> Iterator[Change | Note]:
        if isinstance(seen.data(), ApiFailed):
            raise seen.data()
        if self.set is not None and seen.data() != "set":
            yield Change("set it", ApiAction(self.set, "PUT /projects"), id="set")

    def _ask(self, seen: Observation) -> Any:
        del seen
        try:
            self.server.ask()
        except ApiFailed as error:
            if self.returns:
                return error
            raise
        return "set" if self.set is not None and self.server.ready.is_set() else "there"


class Messages:
    """Reports that nobody reads."""

    def start_step(self, step: str, kind: str) -> None:
        """A step."""

    def message(self, text: str, kind: str = "note") -> None:
        """A message."""


def starting(count: int) -> Callable[[str], int]:
    """For a toy host: the first settings meet a registry that starts."""
    left = [NOT_READY] * count
    return lambda _: left.pop() if left else 0


class TestApi:
    """GitLab's API, asked from this machine."""

    @pytest.mark.parametrize("returns", [False, True], ids=["raised", "returned"])
    @pytest.mark.parametrize("check", [False, True], ids=["apply", "check"])
    def test_a_query_is_repeated(self, engine: Any, toys: Any, returns: bool, check: bool) -> None:
        """Four answers of 502, then it goes on: what is waited for, and for how long, is reported."""
        server = Server(starts=4)
        report = engine({"web1": toys.Host()}, [toys.task("t", Project(server, returns))], check=check)
        assert (report.errors, report.statuses, server.asked) == ([], ["web1 t ok"], 5)
        assert report.messages == [f"waiting for at most 300 s: {STARTS}", f"waited for 0 s: {STARTS}"]

    def test_nothing_waits_when_it_is_ready(self, engine: Any, toys: Any) -> None:
        """One request, no message."""
        server = Server()
        report = engine({"web1": toys.Host()}, [toys.task("t", Project(server))])
        assert (report.messages, server.asked) == ([], 1)

    def test_only_the_task_that_needs_it_waits(self, engine: Any, toys: Any) -> None:
        """A task before it may repair GitLab."""
        server = Server(starts=10**6)

        def repair(_: str) -> None:
            server.starts = 0

        host = toys.Host(on_set=repair)
        report = engine({"web1": host}, [toys.task("t", toys.Toy("a")), toys.task("u", Project(server))])
        assert (report.errors, report.statuses) == ([], ["web1 t changed", "web1 u ok"])
        assert report.messages == []

    @pytest.mark.parametrize("status", [0, 401, 404, 429, 500])
    def test_other_answers_fail_at_once(self, engine: Any, toys: Any, status: int) -> None:
        """They do not mean that it starts."""
        server = Server()

        def ask() -> None:
            server.asked += 1
            raise ApiFailed("no", status=status)

        server.ask = ask  # type: ignore[method-assign]
        report = engine({"web1": toys.Host()}, [toys.task("t", Project(server))])
        assert ([one.text for one in report.errors], report.messages, server.asked) == (["no"], [], 1)

    def test_a_rate_limit_is_reported(self, engine: Any, toys: Any) -> None:
        """Of a query and of a change: the client waits as long as GitLab asks, and the run says so."""
        server, reason = Server(), "GitLab at https://gitlab.example.com limits requests and asks to wait 1 s"

        def ask() -> None:
            pause.get()(0.01, reason)

        def set_it() -> None:
            pause.get()(0.01, reason)
            server.ready.set()

        server.ask = ask  # type: ignore[method-assign]
        report = engine({"web1": toys.Host()}, [toys.task("t", Project(server, set=set_it))])
        assert (report.errors, report.statuses) == ([], ["web1 t changed"])
        assert report.messages == [f"waiting for 0 s: {reason}"] * 3

    def test_the_wait_for_a_rate_limit_ends_with_the_run(self) -> None:
        """Ctrl-C: what is left is named."""
        waiting = module.Waiting(Messages(), lambda _: True, 300)
        with pytest.raises(module.Stopped) as caught, waiting.rate_limits("set it"):
            pause.get()(60, "GitLab limits requests")
        assert caught.value.left == "set it"

    @pytest.mark.parametrize("limit", [0, 1])
    def test_the_limit(self, engine: Any, toys: Any, limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
        """It fails with the API's own error after that time; with 0 nothing is repeated after the plan, and there is no message."""
        monkeypatch.setattr(access, "READY_SECONDS", limit)
        server = Server(starts=10**6)
        report = engine({"web1": toys.Host()}, [toys.task("t", Project(server)), toys.task("u")])
        (error,) = report.errors
        assert (error.error, error.text, error.hint) == ("ApiFailed", STARTS, "see its log")
        assert report.statuses == ["web1 t failed", "web1 u skipped"]
        assert (len(report.messages), server.asked > 3) == (limit, limit > 0)

    def test_a_change_is_planned_again(self, engine: Any, toys: Any) -> None:
        """Its request was answered by 502 and had its effect all the same: it is not sent twice."""
        server, sent = Server(), []

        def set_it() -> None:
            sent.append("PUT")
            server.ready.set()
            raise ApiFailed(STARTS, status=502)

        report = engine({"web1": toys.Host()}, [toys.task("t", Project(server, set=set_it))])
        assert (report.errors, sent) == ([], ["PUT"])
        assert report.messages[0] == f"waiting for at most 300 s: {STARTS}"


class TestHost:
    """Commands on hosts, which end with NOT_READY."""

    def test_a_question_is_repeated(self, engine: Any, toys: Any) -> None:
        """It alone is asked again; the last line of its errors is the reason."""
        host = toys.Host({"a": "on", "b": "on"})
        answer, left = host._get, [3]

        def get(command: Command) -> Result | str:
            if command.script == "toy-get b" and left[0]:
                left[0] -= 1
                return Result(b"", b"warning\nhttps://gitlab.example.com/jwt/auth answers 502\n", NOT_READY)
            return answer(command)

        host.answers = {"toy-get": get, **host.answers}
        report = engine({"web1": host}, [toys.task("t", toys.Toy("a"), toys.Toy("b"))])
        assert (report.errors, report.statuses) == ([], ["web1 t ok"])
        assert report.messages[0] == "waiting for at most 300 s: https://gitlab.example.com/jwt/auth answers 502"
        assert [[one.script for one in batch] for batch in host.batches[1:]] == [["toy-get b"]] * 3

    def test_a_verification_is_repeated(self, engine: Any, toys: Any) -> None:
        """Until it succeeds; then its handler and the next task run."""
        host = toys.Host(on_set=starting(3))
        report = engine({"web1": host}, [toys.task("t", toys.Check("p")), toys.task("u", toys.Toy("a"))])
        assert (report.errors, host.was_set) == ([], ["checked-p"] * 4 + ["a"])
        assert report.messages == [
            "waiting for at most 300 s: verify p: toy broke",
            "waited for 0 s: verify p: toy broke",
            "done: verify p",
        ]

    def test_the_limit(self, engine: Any, toys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """It fails as it would without waiting."""
        monkeypatch.setattr(access, "READY_SECONDS", 1)
        report = engine({"web1": toys.Host(on_set=lambda _: NOT_READY)}, [toys.task("t", toys.Check("p"))])
        assert [one.text for one in report.errors] == ["verify p: toy broke"]


class TestInterrupt:
    """Ctrl-C while a host waits."""

    def test_it_ends_at_once_and_names_what_is_left(
        self, engine: Any, toys: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The change that could not be made, the pending handler, the skipped task."""
        monkeypatch.setattr(module, "_INTERVAL_SECONDS", 60)
        host = toys.Host(on_set=lambda key: NOT_READY if key == "b" else 0)
        tasks = [toys.task("t", toys.Toy("a", notify=(RELOAD,)), toys.Toy("b")), toys.task("u")]
        report = engine({"web1": host}, tasks, run=interrupt_when_it_waits)
        assert report.statuses == ["web1 t skipped", "web1 u skipped"]
        assert report.summary.interrupted
        left = "; not done: set b to on; pending until the next run: reload"
        assert any(one.endswith(left) for one in report.messages), report.messages
        assert host.was_set == ["a", "b"]

    def test_while_it_is_observed(self, engine: Any, toys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """The tasks before it are done, and no task failed."""
        monkeypatch.setattr(module, "_INTERVAL_SECONDS", 60)
        host = toys.Host()
        tasks = [toys.task("t", toys.Toy("a")), toys.task("u", Project(Server(starts=10**6))), toys.task("v")]
        report = engine({"web1": host}, tasks, run=interrupt_when_it_waits)
        assert (report.errors, report.statuses) == ([], ["web1 t changed", "web1 u skipped", "web1 v skipped"])
        assert any(one.endswith("; not done: observe") for one in report.messages), report.messages
        assert host.was_set == ["a"]


def interrupt_when_it_waits(run: Any) -> None:
    """Sends Ctrl-C when the run reports that it waits."""

    class Watch:
        def on(self, event: Any) -> None:
            if type(event).__name__ == "Step" and event.text.startswith("waiting for "):
                os.kill(os.getpid(), signal.SIGINT)

        def close(self) -> None:
            """Nothing."""

    run.listeners.append(Watch())
