"""One command on several hosts: lines, errors, Ctrl-C, and a reader that is gone."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Sequence

import pytest

from provision.engine.each_host import EachHost
from provision.errors import ConnectionLost, Unexpected, Unreachable
from provision.secret import Secret
from provision.shell import Command, Result
from provision.ssh.session import Session, Traffic
from provision.testing import FakeSession
from tests.unit.engine.conftest import Pieces

COMMAND = Command("docker logs")


class Following(FakeSession):
    """A session whose command prints one line, and ends when the session is aborted."""

    def __init__(self, started: Callable[[], None] = lambda: None) -> None:
        super().__init__()
        self.started = started
        self.ended = threading.Event()
        self.traffic = Traffic()

    def run(self, command: Command, *, deadline: float, on_output: Callable[[bytes], None] | None = None) -> Result:
        del command, deadline
        assert on_output is not None
        on_output(b"first line\n")
        self.started()
        assert self.ended.wait(10)
        raise ConnectionLost("closed by this run")

    def abort(self) -> None:
        super().abort()
        self.ended.set()


def each_host(
    sessions: dict[str, Session | Exception], lines: list[tuple[str, str]], errors: list[tuple[str, str]]
) -> EachHost:
    """The command on these sessions."""

    def open_session(name: str, /, *, lock: bool) -> Session:
        assert not lock
        session = sessions[name]
        if isinstance(session, Exception):
            raise session
        return session

    return EachHost(
        open_session,
        lambda _: COMMAND,
        deadline=10,
        on_line=lambda host, line: lines.append((host, line)),
        on_error=lambda host, error: errors.append((host, str(error))),
    )


@pytest.mark.parametrize(
    ("pieces", "lines"),
    [
        ((b"one\ntwo\n",), ["one", "two"]),
        ((b"on", b"e\r\nt", b"wo"), ["one", "two"]),
        ((b"\n\n",), ["", ""]),
        ((b"one cana", b"ry-0f2b\xc3", b"\xa4\n"), ["one ***ä"]),
        ((), []),
    ],
)
def test_pieces_of_output_become_lines(pieces: Sequence[bytes], lines: list[str]) -> None:
    """Lines are joined, masked, and passed on without their line break."""
    Secret("canary-0f2b")
    received: list[tuple[str, str]] = []
    session = Pieces(*pieces)
    outcomes = each_host({"web1": session}, received, []).run(["web1"])
    assert [line for _, line in received] == lines
    assert outcomes == {"web1": Result()}
    assert session.closed


def test_a_failed_host_does_not_affect_the_others() -> None:
    """The error of one host, of whatever kind, is reported with its name; the other host has its output."""
    lines: list[tuple[str, str]] = []
    errors: list[tuple[str, str]] = []
    sessions = {"web1": Unreachable("no route"), "web2": ValueError("unexpected"), "web3": Pieces(b"ok\n")}
    outcomes = each_host(sessions, lines, errors).run(list(sessions))
    assert lines == [("web3", "ok")]
    (first, second) = sorted(errors)
    assert first == ("web1", "no route")
    assert second[1].startswith("ValueError: unexpected (")
    assert isinstance(outcomes["web1"], Unreachable)
    assert isinstance(outcomes["web2"], Unexpected)


def test_ctrl_c_ends_the_command_everywhere() -> None:
    """Every session is aborted and closed; the aborted commands are not reported as errors."""
    both_run = threading.Barrier(2, action=lambda: os.kill(os.getpid(), signal.SIGINT))
    sessions = {name: Following(lambda: both_run.wait(10) and None) for name in ("web1", "web2")}
    errors: list[tuple[str, str]] = []
    everywhere = each_host(dict(sessions), [], errors)
    everywhere.run(list(sessions))
    assert everywhere.interrupted
    assert errors == []
    assert all(session.aborted and session.closed for session in sessions.values())


def test_a_reader_that_is_gone_ends_the_command_everywhere() -> None:
    """When a line cannot be printed, no host is waited for and the error is raised."""

    def broken(*_: object) -> None:
        raise BrokenPipeError

    sessions = {name: Following() for name in ("web1", "web2")}
    everywhere = each_host(dict(sessions), [], [])
    everywhere.on_line = broken
    with pytest.raises(BrokenPipeError):
        everywhere.run(list(sessions))
    assert all(session.aborted and session.closed for session in sessions.values())


def test_output_in_small_pieces_is_read_once() -> None:
    """A line of a megabyte that arrives in pieces of 16 bytes takes a moment, not minutes."""
    lines: list[tuple[str, str]] = []
    pieces = [b"x" * 16] * 65_536
    started = time.process_time()
    each_host({"web1": Pieces(*pieces, b"\n")}, lines, []).run(["web1"])
    assert "".join(line for _, line in lines) == "x" * 1_048_576
    assert time.process_time() - started < 3


@pytest.mark.usefixtures("no_thread_for_b")
def test_a_thread_that_cannot_be_started_is_an_error_of_its_host() -> None:
    """The other hosts print their lines."""
    lines: list[tuple[str, str]] = []
    errors: list[tuple[str, str]] = []
    found = each_host({"a": Pieces(b"one\n"), "b": Pieces(b"two\n")}, lines, errors).run(["a", "b"])
    assert lines == [("a", "one")]
    assert [host for host, _ in errors] == ["b"]
    assert "can't start new thread" in str(found["b"])
