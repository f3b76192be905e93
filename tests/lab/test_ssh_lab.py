"""Sessions on real hosts: sudo in all its moods, the lock under kill -9, frozen and unreachable hosts, round trips."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from provision.errors import BecomeError, ConnectionLost, HostKeyError, Locked, Unreachable
from provision.secret import Secret
from provision.shell import Command, sh
from provision.ssh import Target, connect
from provision.ssh.shell_session import ShellSession
from provision_lab import Lab, LabHost
from provision_lab.proxy import Proxy

WRONG = "not the password, canary-0815"


@pytest.fixture(scope="module")
def lab(lab_factory: Callable[..., Lab]) -> Lab:
    """A host whose sudo asks for nothing, on a port of its own, and one whose sudo asks for the password."""
    return lab_factory(LabHost("open", sshd_port=2222), LabHost("asks", sudo="password"))


def target(lab: Lab, name: str = "open", **changes: object) -> Target:
    """A target that works, changed."""
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
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]


@contextmanager
def session(where: Target, *, lock: bool = False, who: str = "test") -> Iterator[ShellSession]:
    """An open session, closed afterwards."""
    opened = connect(where, lock=lock, who=who)
    try:
        yield opened
    finally:
        opened.close()


def said(opened: ShellSession, script: str) -> str:
    """What a script prints."""
    return opened.ask([sh(script)], deadline=20)[0].text.strip()


def eventually(condition: Callable[[], bool], seconds: float = 10) -> bool:
    """Waits for a condition."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


# -- sudo --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["open", "asks"])
@pytest.mark.parametrize("lock", [True, False])
def test_root_through_sudo(lab: Lab, name: str, lock: bool) -> None:
    """With and without a password we are root, without a terminal, and stdin is ours again after the password."""
    with session(target(lab, name), lock=lock) as opened:
        assert said(opened, "id -u; id -un; tty; umask").split("\n") == ["0", "root", "not a tty", "0022"]
        assert opened.run(Command("cat", b"\0bytes\xff"), deadline=10).stdout == b"\0bytes\xff"
        assert said(opened, 'echo "$SSH_CONNECTION"').endswith(f" {target(lab, name).port}")


def test_a_password_nobody_asks_for_does_no_harm(lab: Lab) -> None:
    """A NOPASSWD sudo leaves the password unread: the shell drops the line."""
    with session(target(lab, "open", become_password=lambda: Secret("unread words"))) as opened:
        assert opened.ask([sh("echo one"), sh("id -u")], deadline=10)[1].text == "0\n"


def test_wrong_password(lab: Lab) -> None:
    """A refused password: said within seconds, shown nowhere, tried once and not with lines of a script."""
    before = lab.inside("asks", "journalctl -q -b --no-pager | grep -c 'authentication failure' || true")
    started = time.monotonic()
    with pytest.raises(BecomeError) as told:
        connect(target(lab, "asks", become_password=lambda: Secret(WRONG)), lock=True, who="test")
    assert time.monotonic() - started < 15
    assert f"sudo refused the password for {lab.user}" in told.value.text
    assert "-K" in told.value.hint
    assert WRONG not in str(told.value)
    after = lab.inside("asks", "journalctl -q -b --no-pager | grep -c 'authentication failure' || true")
    assert int(after) - int(before) <= 1
    assert lab.inside("asks", "ls -A /var/lib/provision 2>/dev/null || true") == ""


def test_no_password_where_one_is_needed(lab: Lab) -> None:
    """sudo wants a password and none was given: said with the three ways out."""
    with pytest.raises(BecomeError) as told, session(target(lab, "asks", become_password=None)) as opened:
        opened.ask([sh("echo")], deadline=10)
    for way in ("-K", "become_password", "NOPASSWD"):
        assert way in told.value.hint


def test_no_root_without_sudo(lab: Lab) -> None:
    """become = false as an ordinary user: refused before anything runs."""
    with pytest.raises(BecomeError) as told, session(target(lab, "open", become=False), lock=True) as opened:
        opened.ask([sh("touch /tmp/never")], deadline=10)
    assert "has user id 1000" in told.value.text
    assert lab.inside("open", "ls /tmp/never 2>/dev/null || true") == ""


def test_the_password_is_seen_nowhere(lab: Lab) -> None:
    """While the session lives: no argv, environment, file or journal of the host holds the password or the nonce."""
    secret = lab.secret("sudo_password").strip()
    with session(target(lab, "asks"), lock=True) as opened:
        seen = said(opened, "for p in /proc/[0-9]*; do cat $p/cmdline $p/environ; done 2>/dev/null | tr '\\0' '\\n'")
        assert "provision-ready" in seen, "the bootstrap itself is in an argv"
        assert secret not in seen
        left = opened.run(
            Command(
                'read -r word; grep -rlsF -- "$word" /var/lib/provision /var/log /tmp /run/log', secret.encode() + b"\n"
            ),
            deadline=30,
        )
        assert left.stdout == b""


# -- the lock ----------------------------------------------------------------------------------------


def test_two_runs_at_once(lab: Lab) -> None:
    """The second is told who holds the host since when; check mode looks on; afterwards the host is free."""
    with session(target(lab), lock=True, who="alice@laptop, pid 7") as first:
        first.ready()
        with session(target(lab), lock=True) as second, pytest.raises(Locked, match="by alice@laptop, pid 7"):
            second.ask([sh("echo")], deadline=10)
        with session(target(lab)) as looking:
            assert said(looking, "echo looks") == "looks"
    with session(target(lab), lock=True) as third:
        assert said(third, "ls -A /var/lib/provision") == "lock"


def test_the_lock_outlives_no_kill(lab: Lab) -> None:
    """kill -9 of a controller: the kernel closes its connection, and the lock is free."""
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

    assert eventually(free)


def test_looking_changes_nothing(lab: Lab) -> None:
    """A session without the lock leaves the disk as it was, logs and login records aside."""
    script = (
        "find / -xdev -type f -newer /tmp/mark ! -path '/var/log/*' ! -path '/run/*' ! -path '/proc/*' "
        "! -path '/var/lib/sudo/*' ! -path '/var/lib/systemd/*' ! -name lastlog ! -name 'wtmp*' ! -name 'btmp*'"
    )
    lab.inside("open", "rm -rf /var/lib/provision; touch /tmp/mark")
    with session(target(lab)) as opened:
        opened.ask([sh("true")] * 20, deadline=10)
    assert lab.inside("open", f"{script}; ls -d /var/lib/provision 2>/dev/null || true") == ""


# -- hosts that do not answer ------------------------------------------------------------------------


def test_black_hole(lab: Lab) -> None:
    """An address whose packets are dropped: given up after connect_timeout."""
    lab.inside("open", "iptables -I INPUT -p tcp --dport 2222 -j DROP")
    try:
        started = time.monotonic()
        with pytest.raises(Unreachable, match=r"no answer from .* port 2222 within 1 s"):
            connect(target(lab, connect_timeout=1.0), lock=False, who="test")
        assert time.monotonic() - started < 3
    finally:
        lab.inside("open", "iptables -D INPUT -p tcp --dport 2222 -j DROP")


def test_wrong_port_and_wrong_key(lab: Lab) -> None:
    """A port nobody listens on, and a pin of another host's key."""
    with pytest.raises(Unreachable, match=r"port 23 of .* refused"):
        connect(target(lab, port=23), lock=False, who="test")
    with pytest.raises(HostKeyError, match="the inventory pins"):
        connect(target(lab, host_key=lab.host_keys["asks"]), lock=False, who="test")
    with session(target(lab, host_key=lab.host_keys["open"], known_hosts="/nowhere/known")) as opened:
        assert said(opened, "hostname") == "open"


def test_frozen_host(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every process of sshd is stopped while a step runs: the watchdog gives up, long before the deadline."""
    monkeypatch.setattr("provision.ssh.streams._PING_AFTER", 1.0)
    monkeypatch.setattr("provision.ssh.streams.SILENCE_LIMIT", 3.0)
    with session(target(lab)) as opened:
        opened.ready()
        pids = lab.inside("open", "pgrep -x sshd").split()
        lab.inside("open", f"kill -STOP {' '.join(pids)}")
        try:
            started = time.monotonic()
            with pytest.raises(ConnectionLost, match="went silent"):
                opened.run(sh("sleep 1; echo x"), deadline=120)
            assert time.monotonic() - started < 10
        finally:
            lab.inside("open", f"kill -CONT {' '.join(pids)}")


def test_cable_pulled(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """The host's packets stop in the middle of an upload: given up in the same way."""
    monkeypatch.setattr("provision.ssh.streams._PING_AFTER", 1.0)
    monkeypatch.setattr("provision.ssh.streams.SILENCE_LIMIT", 3.0)
    monkeypatch.setattr("provision.ssh.wire.SILENCE_LIMIT", 3.0)
    with session(target(lab)) as opened:
        opened.ready()
        lab.inside("open", "ip link set host0 down")
        try:
            with pytest.raises(ConnectionLost):
                opened.run(Command("cat >/tmp/half && mv /tmp/half /tmp/whole", b"x" * 20_000_000), deadline=120)
        finally:
            lab.inside("open", "ip link set host0 up")
    assert lab.inside("open", "ls /tmp/half /tmp/whole 2>/dev/null || true") == "", "half a file is none"


def test_reboot_under_a_step(lab: Lab) -> None:
    """sshd goes away under a running step: told at once as a lost connection."""
    with session(target(lab)) as opened:
        opened.ready()
        with pytest.raises(ConnectionLost):
            opened.run(sh("pkill -x sshd; sleep 5"), deadline=60)
    assert eventually(lambda: lab.inside("open", "systemctl restart ssh; echo on") == "on\n")


# -- cost --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "trips"), [("open", 7), ("asks", 8)])
def test_round_trips(lab: Lab, name: str, trips: int) -> None:
    """Connect, lock, a hundred questions, leave: seven round trips, eight with a password, by the clock too."""
    there = target(lab, name)
    pin = lab.host_keys[name]
    with Proxy(there.address, there.port or 22, round_trip=0.1) as line:
        through = dataclasses.replace(there, address="127.0.0.1", port=line.port, host_key=pin)
        started = time.monotonic()
        with session(through, lock=True) as opened:
            assert len(opened.ask([sh("echo")] * 100, deadline=20)) == 100
        seconds = time.monotonic() - started
    assert opened.traffic.round_trips == trips
    assert seconds < trips * 0.1 + 1.0
