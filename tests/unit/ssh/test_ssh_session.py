"""The session against a real sshd: results, deadlines, the lock, and every way to lose the other side."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from provision.errors import ConnectionLost, DeadlineExceeded, HostFailed, Locked, ProbeFailed
from provision.shell import Command, Result, sh
from provision.ssh import connect
from provision.ssh.bootstrap import SCRIPT
from provision.ssh.host_keys import host_label
from provision.ssh.shell_session import ShellSession
from provision_lab.proxy import Proxy

if TYPE_CHECKING:
    from tests.unit.ssh.conftest import Sshd


@contextmanager
def session(sshd: Sshd, *, lock: bool = False, who: str = "test") -> Iterator[ShellSession]:
    """An open session, closed afterwards."""
    opened = connect(sshd.target(), lock=lock, who=who)
    try:
        yield opened
    finally:
        opened.close()


def eventually(condition: Callable[[], bool], seconds: float = 5) -> bool:
    """Waits for a condition."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def text(opened: ShellSession, script: str, *arguments: str | int) -> str:
    """What a script prints."""
    return opened.ask([sh(script, *arguments)], deadline=10)[0].text


# -- what it is like in there ------------------------------------------------------------------------


def test_results_in_order(sshd: Sshd) -> None:
    """All commands run whatever their codes, each on its own, in order."""
    with session(sshd) as opened:
        assert opened.ask(
            [sh("x=1; cd /tmp; exit 3"), sh('echo "${x-none}" $(pwd)'), Command("cat; echo >&2", b"\0\xff"), sh("(")],
            deadline=10,
        )[:3] == [Result(code=3), Result(b"none /\n"), Result(b"\0\xff", b"\n")]
        assert opened.ask([], deadline=1) == []


def test_surroundings(sshd: Sshd) -> None:
    """Root, a sane PATH, umask 022, LC_ALL=C, /, no terminal, nothing to read, and the connection's address."""
    with session(sshd) as opened:
        said = text(opened, 'id -u; echo "$PATH"; umask; echo "$LC_ALL"; pwd; tty; cat; echo "$SSH_CONNECTION"; env')
    lines = said.splitlines()
    assert lines[:6] == [
        "0",
        "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "0022",
        "C",
        "/",
        "not a tty",
    ]
    assert lines[6].endswith(f"127.0.0.1 {sshd.port}")


def test_no_descriptor_is_inherited(sshd: Sshd) -> None:
    """Commands see three open files: neither the lock nor anything else of ours."""
    with session(sshd, lock=True) as opened:
        for count in (1, 9):
            assert opened.ask([sh("ls /proc/self/fd")] * count, deadline=10)[-1].text.split() == ["0", "1", "2", "3"]
        assert opened.run(sh("ls /proc/self/fd"), deadline=10).text.split() == ["0", "1", "2", "3"]


def test_run_streams_and_returns(sshd: Sshd) -> None:
    """`run` hands out pieces as they come, from both streams, and the whole at the end."""
    pieces: list[tuple[float, bytes]] = []
    with session(sshd) as opened:
        opened.ready()
        started = time.monotonic()
        result = opened.run(
            Command("echo one; sleep 0.3; echo two >&2; cat; exit 4", b"stdin"),
            deadline=10,
            on_output=lambda piece: pieces.append((time.monotonic() - started, piece)),
        )
    assert result == Result(b"one\nstdin", b"two\n", 4)
    assert pieces[0][1] == b"one\n"
    assert pieces[0][0] < 0.25
    assert sorted(b"".join(piece for _, piece in pieces)) == sorted(b"one\ntwo\nstdin")


def test_daemons_do_not_hold_a_step(sshd: Sshd) -> None:
    """A step that leaves a child with its outputs open ends when its main process does; so does `close`."""
    with session(sshd) as opened:
        started = time.monotonic()
        result = opened.run(sh("sleep 20 & echo $!"), deadline=10)
        os.kill(int(result.text), 0)
        opened.close()
        assert time.monotonic() - started < 4
        os.kill(int(result.text), signal.SIGKILL)


def test_four_megabytes_are_linear(sshd: Sshd) -> None:
    """4 MB out in a fraction of a second (invoke: 1.6 to 3.1 s), 4 MB of anything in, and both at once."""
    blob = os.urandom(4_000_000)
    with session(sshd) as opened:
        opened.ready()
        started = time.monotonic()
        assert len(opened.run(sh("head -c 4000000 /dev/zero"), deadline=30).stdout) == 4_000_000
        assert time.monotonic() - started < 1
        assert opened.run(Command("cat", blob), deadline=60).stdout == blob
        both = sh("head -c 3000000 /dev/zero >&2; head -c 3000000 /dev/zero; head -c 3000000 /dev/zero >&2")
        result = opened.run(both, deadline=30)
        assert (len(result.stdout), len(result.stderr)) == (3_000_000, 6_000_000)


def test_large_batches(sshd: Sshd) -> None:
    """Hundreds of questions, and megabytes of script, in one round trip."""
    with session(sshd) as opened:
        opened.ready()
        before = opened.traffic.round_trips
        results = opened.ask([sh("echo %s; echo e%s >&2", n, n) for n in range(300)], deadline=30)
        assert results == [Result(b"%d\n" % n, b"e%d\n" % n) for n in range(300)]
        long = "x" * 500_000
        assert [len(one.stdout) for one in opened.ask([sh("printf %%s %s", long)] * 6, deadline=30)] == [500_000] * 6
        assert opened.traffic.round_trips == before + 2


def test_secrets_stay_on_stdin(sshd: Sshd) -> None:
    """What is on standard input is in no argv, no environment and no file while a step runs."""
    canary = "canary-4711-secret"
    look = (
        "read -r secret; [ ${#secret} = 18 ] || exit 9\n"
        "for p in /proc/[0-9]*; do tr '\\0' ' ' <$p/cmdline; tr '\\0' ' ' <$p/environ; done 2>/dev/null\n"
        "grep -rls canary-4711 /tmp/provision* /var/lib /run 2>/dev/null; exit 0"
    )
    with session(sshd) as opened:
        result = opened.run(Command(look, f"{canary}\n".encode()), deadline=20)
    assert result.code == 0
    assert "PATH=" in result.text
    assert canary not in result.text.replace("grep -rls canary-4711", "")


# -- round trips -------------------------------------------------------------------------------------


def test_seven_round_trips_cold(sshd: Sshd) -> None:
    """Connect, take the lock, ask a hundred questions and leave: seven round trips, by count and by the clock.

    Once of three times at least: others are at work on this machine too.
    """
    costs: list[tuple[int, float]] = []
    while len(costs) < 3 and min(costs, default=(9, 9.0)) > (7, 1.4):
        costs.append(_cold(sshd))
    trips, seconds = min(costs)
    assert trips == 7
    assert seconds < 7 * 0.1 + 0.7, "the clock says the same, the time of computing aside"


def _cold(sshd: Sshd) -> tuple[int, float]:
    """Round trips and seconds of one such session."""
    with Proxy("127.0.0.1", sshd.port, round_trip=0.1) as line:
        target = sshd.target(port=line.port, known_hosts=sshd.known(f"{host_label('127.0.0.1', line.port)} {{key}}"))
        started = time.monotonic()
        opened = connect(target, lock=True, who="test")
        assert len(opened.ask([sh("echo")] * 100, deadline=20)) == 100
        opened.close()
        assert opened.traffic.bytes_received > 3000
        return opened.traffic.round_trips, time.monotonic() - started


def test_one_round_trip_each_from_then_on(sshd: Sshd) -> None:
    """Each further batch or step is one round trip."""
    with session(sshd) as opened:
        opened.ready()
        for _ in range(3):
            before = opened.traffic.round_trips
            opened.ask([sh("echo")] * 20, deadline=10)
            assert opened.traffic.round_trips == before + 1


# -- deadlines ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 10])
def test_a_deadline_names_who_overran_and_leaves_a_session(sshd: Sshd, count: int) -> None:
    """What hangs is stopped on the host and named; the session goes on."""
    nap = f"sleep 4242.{os.getpid()}{count}"
    with session(sshd) as opened:
        with pytest.raises(DeadlineExceeded) as told:
            opened.ask([*[sh("echo fine")] * count, sh("echo half; " + nap), sh("echo late")], deadline=0.3)
        assert f"echo half; {nap}" in told.value.text
        assert "stopped after 0.3 s" in told.value.text
        assert text(opened, "ps -eo args | grep '[s]leep 4242.%s'; echo none left", os.getpid()) == "none left\n"
        with pytest.raises(DeadlineExceeded, match="its last words: half"):
            opened.run(sh("echo half; " + nap), deadline=0.2)


def test_a_step_that_ignores_being_stopped_is_killed(sshd: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    """TERM ignored: KILL follows (here sooner than after five seconds) and reaches the whole group."""
    monkeypatch.setattr("provision.ssh.bootstrap.SCRIPT", SCRIPT.replace("timeout -k 5 ", "timeout -k 0.3 "))
    with session(sshd) as opened:
        with pytest.raises(DeadlineExceeded):
            opened.run(sh("trap '' TERM; sleep %s", f"4343.{os.getpid()}"), deadline=0.1)
        assert text(opened, "ps -eo args | grep '[s]leep 4343.%s'; echo none left", os.getpid()) == "none left\n"


def test_exit_codes_that_look_like_a_deadline_are_not_one(sshd: Sshd) -> None:
    """A step's own 124 or 137 is its result; a shell that was killed is told as that."""
    with session(sshd) as opened:
        assert [opened.run(sh("exit %s", code), deadline=5).code for code in (124, 137)] == [124, 137]
        with pytest.raises(ProbeFailed, match="ended with code 137"):
            opened.run(sh("kill -9 $$; sleep 5"), deadline=5)
        assert text(opened, "echo on") == "on\n"


# -- the lock ----------------------------------------------------------------------------------------


def test_lock_is_held_once_and_says_by_whom(sshd: Sshd) -> None:
    """The second run is refused and told who holds it since when; nothing of its commands ran."""
    with session(sshd, lock=True, who="alice@laptop, pid 7") as first:
        first.ready()
        with session(sshd, lock=True) as second, pytest.raises(Locked) as told:
            second.ask([sh("touch /tmp/never")], deadline=5)
        assert "by alice@laptop, pid 7" in told.value.text
        assert f"since {time.strftime('%Y-%m-%dT', time.gmtime())}" in told.value.text
        assert text(first, "ls -a /var/lib/provision; stat -c %%a /var/lib/provision") == ".\n..\nlock\n700\n"
    assert not Path("/tmp/never").exists()
    with session(sshd, lock=True) as third:
        assert text(third, "echo in") == "in\n"
    with session(sshd) as fourth:
        assert text(fourth, "ls -A /var/lib/provision") == "", "nothing stays behind"


def test_looking_takes_no_lock_and_writes_nothing(sshd: Sshd) -> None:
    """Without the lock the host's disk is not touched, and a held lock does not matter."""
    with session(sshd) as opened:
        text(opened, "rm -rf /var/lib/provision")
    with session(sshd) as opened:
        assert text(opened, "ls -A /var/lib") == ""
    with session(sshd, lock=True) as holder:
        holder.ready()
        with session(sshd) as looker:
            assert text(looker, "echo looked") == "looked\n"


def test_a_broken_connection_frees_the_lock(sshd: Sshd) -> None:
    """The controller is gone without a goodbye: the lock is free as soon as the host knows."""
    broken = connect(sshd.target(), lock=True, who="gone")
    broken.ready()
    broken.abort()

    def free() -> bool:
        with session(sshd, lock=True) as next_one:
            try:
                next_one.ready()
            except Locked:
                return False
            return True

    assert eventually(free)


def test_a_running_step_keeps_the_lock(sshd: Sshd) -> None:
    """What still runs after the connection broke holds the lock until it ends, and not longer."""
    broken = connect(sshd.target(), lock=True, who="gone")
    broken.ready()
    nap = f"sleep 25.000{os.getpid()}"
    worker = threading.Thread(target=lambda: _swallow(lambda: broken.run(sh(nap + "; echo x"), deadline=30)))
    worker.start()
    assert eventually(lambda: _running(nap))
    broken.abort()
    worker.join(5)
    with session(sshd, lock=True) as second, pytest.raises(Locked, match="by gone"):
        second.ready()
    for process in _running(nap):
        os.kill(process, signal.SIGTERM)
    assert eventually(lambda: _is_free(sshd))


def _is_free(sshd: Sshd) -> bool:
    try:
        with session(sshd, lock=True) as opened:
            opened.ready()
    except Locked:
        return False
    return True


def _running(args: str) -> list[int]:
    """The processes that run exactly this."""
    listing = subprocess.run(["ps", "-eo", "pid=,args="], capture_output=True, text=True, check=True).stdout
    pairs = [line.strip().partition(" ") for line in listing.splitlines()]
    return [int(process) for process, _, said in pairs if said.strip() == args]


def _swallow(work: Callable[[], object]) -> None:
    with pytest.raises(ConnectionLost):
        work()


@pytest.mark.parametrize(("var_lib", "locks"), [("ro", False), ("size=8k", True)])
def test_disk_that_cannot_be_written(sshd_factory: Callable[..., Sshd], var_lib: str, locks: bool) -> None:
    """A full disk costs the holder's name and not the lock; one that takes no folder is told as that."""
    other = sshd_factory(var_lib=var_lib)
    with session(other) as opened:
        text(opened, "mkdir /var/lib/provision; head -c 100000 /dev/zero >/var/lib/full")
    with session(other, lock=True) as opened:
        if locks:
            assert text(opened, "cat /var/lib/provision/lock") == ""
            with session(other, lock=True) as again, pytest.raises(Locked, match="which left no name"):
                again.ready()
        else:
            with pytest.raises(HostFailed, match=r"cannot be taken: .*Read-only file system"):
                opened.ask([sh("echo")], deadline=5)


# -- losing the other side ---------------------------------------------------------------------------


def test_abort_from_another_thread(sshd: Sshd) -> None:
    """Whoever waits is let go at once with ConnectionLost; closing afterwards does nothing more."""
    with session(sshd) as opened:
        opened.ready()
        threading.Timer(0.2, opened.abort).start()
        started = time.monotonic()
        with pytest.raises(ConnectionLost, match="stopped from here"):
            opened.run(sh("sleep 5"), deadline=10)
        assert time.monotonic() - started < 1
        with pytest.raises(ConnectionLost):
            opened.ask([sh("echo")], deadline=5)


def test_the_shell_is_killed(sshd: Sshd) -> None:
    """The remote shell dies under us: told as a lost connection, at once."""
    with session(sshd) as opened:
        opened.ready()
        with pytest.raises(ConnectionLost):
            opened.run(sh("kill -9 $(ps -o ppid= -p $(ps -o ppid= -p $$)); sleep 1"), deadline=10)


def _sshd_children(sshd: Sshd) -> list[int]:
    listing = subprocess.run(["ps", "-eo", "pid,ppid,comm"], capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in listing.splitlines()[1:]]
    found = {sshd.process.pid}
    for _ in range(3):
        found |= {int(row[0]) for row in rows if int(row[1]) in found and row[2] == "sshd"}
    return sorted(found - {sshd.process.pid})


def test_sshd_is_killed(sshd: Sshd) -> None:
    """sshd's process for us dies: told at once."""
    with session(sshd) as opened:
        opened.ready()
        threading.Timer(0.1, lambda: [os.kill(pid, signal.SIGKILL) for pid in _sshd_children(sshd)]).start()
        with pytest.raises(ConnectionLost, match="web1"):
            opened.run(sh("sleep 5"), deadline=10)


@pytest.mark.parametrize("uploading", [False, True])
def test_frozen_host(sshd: Sshd, monkeypatch: pytest.MonkeyPatch, uploading: bool) -> None:
    """A peer whose kernel answers and whose sshd does not: asked, and given up long before the deadline."""
    monkeypatch.setattr("provision.ssh.streams._PING_AFTER", 0.2)
    monkeypatch.setattr("provision.ssh.streams.SILENCE_LIMIT", 0.8)
    monkeypatch.setattr("provision.ssh.wire.SILENCE_LIMIT", 0.8)
    with session(sshd) as opened:
        opened.ready()
        frozen = _sshd_children(sshd)
        for pid in frozen:
            os.kill(pid, signal.SIGSTOP)
        started = time.monotonic()
        try:
            command = Command("cat", b"x" * 30_000_000) if uploading else sh("sleep 1")
            with pytest.raises(ConnectionLost):
                opened.run(command, deadline=60)
            assert 0.5 < time.monotonic() - started < 5
        finally:
            for pid in frozen:
                os.kill(pid, signal.SIGCONT)


def test_silent_steps_are_not_dead(sshd: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step may say nothing for longer than the limit: the host answers when it is asked."""
    monkeypatch.setattr("provision.ssh.streams._PING_AFTER", 0.1)
    monkeypatch.setattr("provision.ssh.streams.SILENCE_LIMIT", 0.5)
    with session(sshd) as opened:
        assert opened.run(sh("sleep 1.5; echo awake"), deadline=10).text == "awake\n"


def test_many_sessions_at_once(sshd: Sshd) -> None:
    """Forty sessions: each answers, and each costs one thread."""
    before = threading.active_count()
    opened: list[ShellSession] = []
    guard = threading.Lock()

    def work(number: int) -> None:
        one = connect(sshd.target(), lock=False, who="test")
        assert one.ask([sh("echo %s", number)], deadline=30)[0].text == f"{number}\n"
        with guard:
            opened.append(one)

    workers = [threading.Thread(target=work, args=(number,)) for number in range(40)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    try:
        assert len(opened) == 40
        assert threading.active_count() - before <= 40
    finally:
        for one in opened:
            one.close()
