"""Sessions on real hosts: sudo with and without a password, the lock after kill -9, frozen and unreachable hosts."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from provision.errors import BecomeError, ConnectionLost, HostKeyError, Locked, LoginRefused, Unreachable
from provision.secret import Secret
from provision.shell import Command, sh
from provision.ssh import Target, connect
from provision.ssh.shell_session import ShellSession
from provision_lab import Lab, LabHost
from provision_lab.proxy import Proxy
from tests.support.waiting import wait_for

WRONG = "not the password, canary-0815"


@pytest.fixture(scope="module")
def lab(lab_factory: Callable[..., Lab]) -> Lab:
    """A host whose sudo needs no password, with sshd on another port, and a host whose sudo needs one."""
    return lab_factory(LabHost("open", sshd_port=2222), LabHost("asks", sudo="password"))


def target(lab: Lab, name: str = "open", **changes: object) -> Target:
    """A target that can be connected to, with some fields changed."""
    host = lab.machine(name).host
    password = Secret(lab.secret("sudo_password"))
    base = Target(
        name=name,
        address=host.address,
        port=host.sshd_port,
        user=lab.user,
        identity_file=lab.identity_file,
        known_hosts=lab.known_hosts,
        connect_timeout=5.0,
        become_password=(lambda: password) if name == "asks" else None,
    )
    return base._replace(**changes)  # type: ignore[arg-type]


@contextmanager
def session(where: Target, *, lock: bool = False, who: str = "test") -> Iterator[ShellSession]:
    """An open session, closed afterwards."""
    opened = connect(where, lock=lock, who=who)
    try:
        yield opened
    finally:
        opened.close()


def output_of(opened: ShellSession, script: str) -> str:
    """The stdout of a script, stripped."""
    return opened.ask([sh(script)], deadline=20)[0].text.strip()


# -- the login ---------------------------------------------------------------------------------------


def test_a_host_that_boots_says_so(lab: Lab) -> None:
    """While /run/nologin exists, sshd accepts no key. The refusal quotes the host's reason; the next try succeeds."""
    lab.inside("open", 'echo "System is booting up. Unprivileged users are not permitted to log in yet." >/run/nologin')
    try:
        with pytest.raises(LoginRefused) as error:
            connect(target(lab), lock=False, who="test")
    finally:
        lab.inside("open", "rm /run/nologin")
    assert "the host disconnected with the message: System is booting up. Unprivileged users are" in error.value.text
    with session(target(lab)) as opened:
        assert output_of(opened, "id -u") == "0"


# -- sudo --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["open", "asks"])
@pytest.mark.parametrize("lock", [True, False])
def test_root_through_sudo(lab: Lab, name: str, lock: bool) -> None:
    """With and without a password the shell is root's and has no terminal; after the password, stdin is the commands'."""
    with session(target(lab, name), lock=lock) as opened:
        assert output_of(opened, "id -u; id -un; tty; umask").split("\n") == ["0", "root", "not a tty", "0022"]
        assert opened.run(Command("cat", b"\0bytes\xff"), deadline=10).stdout == b"\0bytes\xff"
        assert output_of(opened, 'echo "$SSH_CONNECTION"').endswith(f" {target(lab, name).port}")


def test_a_password_that_sudo_does_not_read_is_dropped(lab: Lab) -> None:
    """A NOPASSWD sudo leaves the password unread: the bootstrap script drops the line."""
    with session(target(lab, "open", become_password=lambda: Secret("unread words"))) as opened:
        assert opened.ask([sh("echo one"), sh("id -u")], deadline=10)[1].text == "0\n"


def test_a_wrong_password_is_tried_once(lab: Lab) -> None:
    """The refusal is reported within seconds, without the password; lines of the script are not tried as passwords."""
    before = lab.inside("asks", "journalctl -q -b --no-pager | grep -c 'authentication failure' || true")
    started = time.monotonic()
    with pytest.raises(BecomeError) as error:
        connect(target(lab, "asks", become_password=lambda: Secret(WRONG)), lock=True, who="test")
    assert time.monotonic() - started < 15
    assert f"sudo refused the password for {lab.user}" in error.value.text
    assert "-K" in error.value.hint
    assert WRONG not in str(error.value)
    after = lab.inside("asks", "journalctl -q -b --no-pager | grep -c 'authentication failure' || true")
    assert int(after) - int(before) <= 1
    assert lab.inside("asks", "ls -A /var/lib/provision 2>/dev/null || true") == ""


def test_a_missing_password_is_reported(lab: Lab) -> None:
    """sudo requires a password and none was given: the hint names three solutions."""
    with pytest.raises(BecomeError) as error, session(target(lab, "asks", become_password=None)) as opened:
        opened.ask([sh("echo")], deadline=10)
    for way in ("-K", "become_password", "NOPASSWD"):
        assert way in error.value.hint


def test_no_root_without_sudo(lab: Lab) -> None:
    """become = false as an ordinary user is refused before a command runs."""
    with pytest.raises(BecomeError) as error, session(target(lab, "open", become=False), lock=True) as opened:
        opened.ask([sh("touch /tmp/never")], deadline=10)
    assert "has user id 1000" in error.value.text
    assert lab.inside("open", "ls /tmp/never 2>/dev/null || true") == ""


def test_the_password_is_in_no_argv_environment_or_file(lab: Lab) -> None:
    """During a session, no argv, environment, file or journal of the host contains the password."""
    secret = lab.secret("sudo_password").strip()
    with session(target(lab, "asks"), lock=True) as opened:
        processes = output_of(
            opened, "for p in /proc/[0-9]*; do cat $p/cmdline $p/environ; done 2>/dev/null | tr '\\0' '\\n'"
        )
        assert "provision-ready" in processes, "the bootstrap script itself is in an argv"
        assert secret not in processes
        left = opened.run(
            Command(
                'read -r word; grep -rlsF -- "$word" /var/lib/provision /var/log /tmp /run/log', secret.encode() + b"\n"
            ),
            deadline=30,
        )
        assert left.stdout == b""


# -- the lock ----------------------------------------------------------------------------------------


def test_a_second_run_is_refused(lab: Lab) -> None:
    """The message names the holder of the lock; a session without the lock works; afterwards the lock is free."""
    with session(target(lab), lock=True, who="alice@laptop, pid 7") as first:
        first.ready()
        with session(target(lab), lock=True) as second, pytest.raises(Locked, match="by alice@laptop, pid 7"):
            second.ask([sh("echo")], deadline=10)
        with session(target(lab)) as observer:
            assert output_of(observer, "echo ok") == "ok"
    with session(target(lab), lock=True) as third:
        assert output_of(third, "ls -A /var/lib/provision") == "lock"


def test_the_lock_is_released_after_kill_9(lab: Lab) -> None:
    """kill -9 of a controller closes its connection, which releases the lock."""
    where = target(lab)
    script = (
        "import sys\nfrom provision.ssh import Target, connect\n"
        f"s = connect(Target('open', {where.address!r}, port={where.port}, user={where.user!r},"
        f" identity_file={str(where.identity_file)!r}, known_hosts={str(where.known_hosts)!r}), lock=True, who='doomed')\n"
        "s.ready()\nprint('held', flush=True)\nsys.stdin.read()\n"
    )
    doomed = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert doomed.stdout is not None
    assert doomed.stdout.readline() == b"held\n"
    with session(where, lock=True) as refused, pytest.raises(Locked, match="by doomed"):
        refused.ready()
    doomed.kill()
    doomed.wait(10)

    def free() -> bool:
        with session(where, lock=True) as next_one:
            try:
                next_one.ready()
            except Locked:
                return False
            return True

    wait_for(free, "the lock of the killed run", 10)


def test_a_session_without_the_lock_writes_nothing(lab: Lab) -> None:
    """No file of the host changes, except logs and login records."""
    script = (
        "find / -xdev -type f -newer /tmp/mark ! -path '/var/log/*' ! -path '/run/*' ! -path '/proc/*' "
        "! -path '/var/lib/sudo/*' ! -path '/var/lib/systemd/*' ! -name lastlog ! -name 'wtmp*' ! -name 'btmp*'"
    )
    lab.inside("open", "rm -rf /var/lib/provision; touch /tmp/mark")
    with session(target(lab)) as opened:
        opened.ask([sh("true")] * 20, deadline=10)
    assert lab.inside("open", f"{script}; ls -d /var/lib/provision 2>/dev/null || true") == ""


# -- hosts that do not answer ------------------------------------------------------------------------


def test_a_host_that_drops_packets_times_out(lab: Lab) -> None:
    """The attempt ends after connect_timeout."""
    lab.inside("open", "iptables -I INPUT -p tcp --dport 2222 -j DROP")
    try:
        started = time.monotonic()
        with pytest.raises(Unreachable, match=r"no answer from .* port 2222 within 1 s"):
            connect(target(lab, connect_timeout=1.0), lock=False, who="test")
        assert time.monotonic() - started < 3
    finally:
        lab.inside("open", "iptables -D INPUT -p tcp --dport 2222 -j DROP")


def test_a_wrong_port_and_a_wrong_host_key(lab: Lab) -> None:
    """A port on which nothing listens, and a pin of another host's key."""
    with pytest.raises(Unreachable, match=r"port 23 of .* refused"):
        connect(target(lab, port=23), lock=False, who="test")
    with pytest.raises(HostKeyError, match="the inventory pins"):
        connect(target(lab, host_key=lab.host_keys["asks"]), lock=False, who="test")
    with session(target(lab, host_key=lab.host_keys["open"], known_hosts="/nowhere/known")) as opened:
        assert output_of(opened, "hostname") == "open"


def test_a_frozen_host_is_detected_before_the_deadline(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every process of sshd is stopped while a step runs: the watchdog ends the session long before the deadline."""
    monkeypatch.setattr("provision.ssh.wire._PING_AFTER", 1.0)
    monkeypatch.setattr("provision.ssh.wire.SILENCE_LIMIT", 3.0)
    with session(target(lab)) as opened:
        opened.ready()
        pids = lab.inside("open", "pgrep -x 'sshd(-session)?'").split()
        lab.inside("open", f"kill -STOP {' '.join(pids)}")
        try:
            started = time.monotonic()
            with pytest.raises(ConnectionLost, match="stopped answering"):
                opened.run(sh("sleep 1; echo x"), deadline=120)
            assert time.monotonic() - started < 10
        finally:
            lab.inside("open", f"kill -CONT {' '.join(pids)}")


def test_a_disconnected_host_is_detected(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """The host's network goes down during an upload: the session ends, and no half file is left."""
    monkeypatch.setattr("provision.ssh.wire._PING_AFTER", 1.0)
    monkeypatch.setattr("provision.ssh.wire.SILENCE_LIMIT", 3.0)
    with session(target(lab)) as opened:
        opened.ready()
        lab.inside("open", "ip link set host0 down")
        try:
            with pytest.raises(ConnectionLost):
                opened.run(Command("cat >/tmp/half && mv /tmp/half /tmp/whole", b"x" * 20_000_000), deadline=120)
        finally:
            lab.inside("open", "ip link set host0 up")
    assert lab.inside("open", "ls /tmp/half /tmp/whole 2>/dev/null || true") == "", "a partial upload is not run"


def test_sshd_ends_during_a_step(lab: Lab) -> None:
    """sshd ends while a step runs: ConnectionLost is raised at once."""
    with session(target(lab)) as opened:
        opened.ready()
        with pytest.raises(ConnectionLost):
            opened.run(sh("pkill -x 'sshd(-session)?'; sleep 5"), deadline=60)
    wait_for(lambda: lab.inside("open", "systemctl restart ssh; echo on") == "on\n", "sshd's restart", 10)


# -- cost --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "trips"), [("open", 7), ("asks", 8)])
def test_connecting_and_one_batch_take_seven_round_trips(lab: Lab, name: str, trips: int) -> None:
    """Connect, lock, run a hundred commands, close: seven round trips, eight with a password, as counted and measured."""
    there = target(lab, name)
    pin = lab.host_keys[name]
    with Proxy(there.address, there.port or 22, round_trip=0.1) as line:
        through = there._replace(address="127.0.0.1", port=line.port, host_key=pin)
        started = time.monotonic()
        with session(through, lock=True) as opened:
            assert len(opened.ask([sh("echo")] * 100, deadline=20)) == 100
        seconds = time.monotonic() - started
    assert opened.traffic.round_trips == trips
    assert seconds < trips * 0.1 + 2.0
