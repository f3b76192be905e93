"""The socket under a connection: racing the addresses of a name, and the processes of ProxyCommands."""

from __future__ import annotations

import os
import pty
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from provision.errors import Unreachable
from provision.shell import sh
from provision.ssh import connect
from provision.ssh import dial as dial_module
from provision.ssh.dial import dial
from provision.ssh.host_keys import known_hosts_name
from provision.ssh.wire import run_proxy_command
from tests.support.waiting import wait_for

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from tests.unit.ssh.conftest import Sshd


# -- racing the addresses ----------------------------------------------------------------------------


@contextmanager
def silent(address: str = "127.0.0.1", port: int = 0) -> Iterator[int]:
    """A port that drops packets, like a firewall: its backlog is full."""

    def full() -> bool:
        # Of a listening socket these two fields are the connections that wait to be accepted, and the backlog.
        waiting, backlog = struct.unpack_from("=II", server.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 32), 24)
        return bool(waiting > backlog)

    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, port), family=family, backlog=0) as server:
        port = server.getsockname()[1]
        fillers = [socket.socket(family) for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex((address, port))
        wait_for(full, "the backlog is full")
        yield port
        for filler in fillers:
            filler.close()


@pytest.fixture
def resolves_to(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes every name resolve to these addresses, in this order."""
    real = socket.getaddrinfo

    def give(*addresses: tuple[str, int]) -> None:
        def answer(host: str, port: int, **options: Any) -> Sequence[tuple[Any, ...]]:  # noqa: ARG001
            return [one for name, own in addresses for one in real(name, own, type=socket.SOCK_STREAM)]

        monkeypatch.setattr(socket, "getaddrinfo", answer)

    return give


def test_a_silent_first_address_does_not_use_up_the_time(sshd: Sshd, resolves_to: Callable[..., None]) -> None:
    """The second address is tried after a quarter of a second, and the login works through it."""
    known = sshd.known(f"{known_hosts_name('web1', sshd.port)} {{key}}")
    with silent() as port:
        resolves_to(("127.0.0.1", port), ("127.0.0.1", sshd.port))
        started = time.monotonic()
        session = connect(sshd.target(address="web1", known_hosts=known, connect_timeout=10.0), lock=False, who="test")
        took = time.monotonic() - started
        assert session.ask([sh("echo ok")], deadline=5)[0].text == "ok\n"
        session.close()
    assert 0.25 <= took < 4


def test_a_refused_address_costs_no_time(sshd: Sshd, resolves_to: Callable[..., None]) -> None:
    """The next address is tried at once."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        resolves_to(("127.0.0.1", closed.getsockname()[1]), ("127.0.0.1", sshd.port))
        started = time.monotonic()
        dial("web1", 22, timeout=10, label="web1").close()
        assert time.monotonic() - started < 0.25


def test_all_addresses_share_the_time_limit(resolves_to: Callable[..., None]) -> None:
    """None answers: the attempt ends after connect_timeout."""
    with silent() as first, silent() as second:
        resolves_to(("127.0.0.1", first), ("127.0.0.1", second))
        started = time.monotonic()
        with pytest.raises(Unreachable, match=r"no answer from web1 port 22 within 0\.6 s"):
            dial("web1", 22, timeout=0.6, label="web1")
        assert 0.5 < time.monotonic() - started < 1.5


def test_the_families_are_tried_in_turn(resolves_to: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    """IPv6 addresses that do not answer are followed by an IPv4 address, not by the next IPv6 address (RFC 8305)."""
    tried: list[str] = []
    begin = dial_module._begin

    def record(address: tuple[Any, ...]) -> socket.socket:
        tried.append(address[4][0])
        return begin(address)

    monkeypatch.setattr(dial_module, "_begin", record)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        resolves_to(("::1", 1), ("::1", 2), ("127.0.0.1", port), ("127.0.0.1", port))
        dial("web1", 22, timeout=5, label="web1").close()
    assert tried == ["::1", "127.0.0.1"]


def test_the_address_family_of_ssh_config_counts(sshd: Sshd, empty_home: Path) -> None:
    """AddressFamily inet6: a host that listens on IPv4 only cannot be reached."""
    (empty_home / ".ssh" / "config").write_text("AddressFamily inet6\n")
    with pytest.raises(Unreachable):
        connect(sshd.target(), lock=False, who="test")
    (empty_home / ".ssh" / "config").write_text("AddressFamily inet\n")
    connect(sshd.target(), lock=False, who="test").close()


def test_no_connection_is_left_half_open(resolves_to: Callable[..., None]) -> None:
    """A slow address is given up while it is still being connected: its server never accepts a connection."""
    with silent() as slow, socket.create_server(("127.0.0.1", 0)) as fast:
        port = fast.getsockname()[1]
        resolves_to(("127.0.0.1", slow), ("127.0.0.1", port), ("127.0.0.1", port))
        before = connections_to(slow)
        connection = dial("web1", 22, timeout=5, label="web1")
        fast.settimeout(5)
        fast.accept()[0].close()
        fast.settimeout(0.5)
        with pytest.raises(TimeoutError):
            fast.accept()
        assert connections_to(slow) == before
        connection.close()


def connections_to(port: int) -> int:
    """How many sockets of this machine are connected, or being connected, to a port."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return sum(line.split()[2].endswith(f":{port:04X}") and line.split()[3] in ("01", "02") for line in lines)


@pytest.mark.parametrize("name", ["web1..example.com", "x" * 64 + ".example.com", "web1.example.com."])
def test_a_name_that_cannot_be_encoded_is_unreachable(name: str) -> None:
    """Two dots in a row, or a label of more than 63 characters, as HostName in ~/.ssh/config may contain them."""
    with pytest.raises(Unreachable, match="does not resolve"):
        dial(name, 22, timeout=1, label="web1")


def test_a_host_is_dialled_before_paramiko_is_imported() -> None:
    """The import takes 0.1 s, in which the host can start its processes."""
    program = """
import socket, sys
from provision.errors import Unreachable
from provision.ssh import Target, connect

with socket.socket() as closed:
    closed.bind(("127.0.0.1", 0))
    try:
        connect(Target("web1", "127.0.0.1", closed.getsockname()[1]), lock=False, who="test")
    except Unreachable as error:
        print(error.text, "paramiko" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("refused the connection False\n"), done.stdout + done.stderr


# -- ProxyCommand ------------------------------------------------------------------------------------


def running(number: int) -> bool:
    """Whether a process is there, and is no zombie."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def children() -> set[int]:
    """The processes that this one has started and not reaped."""
    found = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return {int(number) for number in found}


def test_a_proxy_command_of_another_user_ends_with_its_input(monkeypatch: pytest.MonkeyPatch) -> None:
    """`ProxyCommand sudo …` cannot be sent signals. Closing raises nothing: the thread of idle connections would end."""

    def refuse(*_: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    wire = run_proxy_command("cat")
    monkeypatch.setattr(os, "killpg", refuse)
    wire.close()
    assert wire._helper is not None
    assert wire._helper.returncode == 0


@pytest.mark.parametrize("command", ["cat", "trap '' HUP TERM; cat & wait; sleep 1000", "sleep 1000 & cat", "true"])
def test_a_proxy_command_is_ended_and_reaped(tmp_path: Path, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All its processes end, also those that ignore signals, and it is no zombie."""
    monkeypatch.setenv("SHELL", "/bin/sh")
    before = children()
    wire = run_proxy_command(f"sh -c 'echo $$ >{tmp_path}/pid; {command.replace(chr(39), chr(34))}'")
    pid = tmp_path / "pid"
    wait_for(lambda: pid.exists() and pid.read_text().endswith("\n"), "the command has started")
    group = int(pid.read_text())
    started = time.monotonic()
    wire.close()
    wire.close()
    assert time.monotonic() - started < 2
    assert children() == before
    wait_for(lambda: not any(running(number) for number in members(group)), "its processes have ended")


def members(group: int) -> list[int]:
    """The processes of a process group."""
    listed = subprocess.run(["ps", "-e", "-o", "pid=,pgid="], capture_output=True, text=True, check=True).stdout
    return [int(line.split()[0]) for line in listed.splitlines() if line.split()[1] == str(group)]


IN_A_TERMINAL = """
import signal
from provision.ssh.wire import run_proxy_command

pressed = []
signal.signal(signal.SIGINT, lambda *_: pressed.append(1))
wire = run_proxy_command("cat")
print("ready", flush=True)
while not pressed:
    signal.pause()
wire.send(b"still here")
print((wire.receive(10) or b"gone").decode(), flush=True)
wire.close()
"""


def test_ctrl_c_does_not_reach_a_proxy_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in the terminal signals its whole process group; the connection survives, so that the step can end."""
    monkeypatch.setenv("SHELL", "/bin/sh")
    monkeypatch.setenv("PYTHONPATH", ":".join(sys.path))
    number, terminal = pty.fork()
    if number == 0:  # in the child, whose terminal this is
        os.execv(sys.executable, [sys.executable, "-c", IN_A_TERMINAL])
    shown = b""
    try:
        while b"ready" not in shown:
            shown += os.read(terminal, 1000)
        os.write(terminal, b"\x03")
        while b"still here" not in shown and b"gone" not in shown:
            shown += os.read(terminal, 1000)
    except OSError:  # the program has ended
        pass
    finally:
        os.waitpid(number, 0)
        os.close(terminal)
    assert b"still here" in shown, shown
