"""Hosts that break the protocol: floods, stalls, broken markers, broken handshakes. Each ends in an error, in time."""

from __future__ import annotations

import os
import resource
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import paramiko
import pytest
from paramiko.common import cMSG_CHANNEL_DATA
from paramiko.message import Message

from provision.errors import BecomeError, DeadlineExceeded, ProbeFailed, ProvisionError, Unreachable
from provision.shell import Command, sh
from provision.ssh import connect
from provision.ssh.frame import OUTPUT_LIMIT, STREAMED_KEPT
from tests.support import hostile_shell
from tests.support.hostile_server import relay, tcp_server

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from tests.unit.ssh.conftest import Sshd

SHELL = Path(hostile_shell.__file__)


@pytest.fixture
def hostile(sshd_factory: Callable[..., Sshd]) -> Callable[[str], Sshd]:
    """`hostile("flood")`: a real sshd whose login shell misbehaves in this way."""
    return lambda mode: sshd_factory(f"ForceCommand {sys.executable} {SHELL} {mode}")


def peak_memory() -> int:
    """The most memory that this process has used, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


# -- the shell -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "error", "text"),
    [
        ("flood", ProbeFailed, "web1: the host sent more than 64 MiB, during 'echo hello'"),
        ("flood-lines", ProbeFailed, "web1: the host sent more than 64 MiB"),
        ("flood-greeting", BecomeError, "web1: no root shell, but more than 1 MiB of output: "),
        ("marker-without-end", ProbeFailed, "web1: the host sent a marker of more than 4096 bytes"),
        ("markers", ProbeFailed, "web1: the host sent an unexpected marker: '1.0 0'"),
        ("marker-of-words", ProbeFailed, "web1: the host sent an unexpected marker: '1.0 zero'"),
    ],
)
def test_an_answer_without_end_or_sense(
    hostile: Callable[[str], Sshd], mode: str, error: type[ProvisionError], text: str
) -> None:
    """It is refused as soon as it is seen, long before the deadline, and the connection is closed."""
    opened = connect(hostile(mode).target(), lock=False, who="test")
    started = time.monotonic()
    with pytest.raises(error) as caught:
        opened.ask([sh("echo hello"), sh("echo again")], deadline=300)
    assert caught.value.text.startswith(text)
    assert caught.value.hint
    assert time.monotonic() - started < 60
    opened.close()


@pytest.mark.parametrize("mode", ["flood", "flood-lines", "stall", "stall-greeting"])
def test_the_deadline_of_a_step_holds(
    hostile: Callable[[str], Sshd], mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the host sends without pause or stops in the middle of a marker; only the end of a stream is kept."""
    monkeypatch.setattr("provision.ssh.shell_session._KILL_AFTER", 0.5)
    monkeypatch.setattr("provision.ssh.shell_session._ANSWER_TIMEOUT", 0.5)
    opened = connect(hostile(mode).target(), lock=False, who="test")
    started, size, before = time.monotonic(), 0, peak_memory()

    def count(piece: bytes) -> None:
        nonlocal size
        size += len(piece)

    with pytest.raises(DeadlineExceeded, match="no result within 4 s"):
        opened.run(sh("echo hello"), deadline=4, on_output=count)
    assert time.monotonic() - started < 15
    if mode.startswith("flood"):
        assert size > 2 * STREAMED_KEPT
        assert peak_memory() - before < 64
    opened.close()


def test_a_password_prompt_that_floods_is_given_up(hostile: Callable[[str], Sshd]) -> None:
    """The host asks for a password with more than a megabyte of text."""
    opened = connect(hostile("flood-prompt").target(), lock=False, who="test")
    started = time.monotonic()
    with pytest.raises(BecomeError, match="more than 1 MiB of output"):
        opened.give_password("not the password")
    assert time.monotonic() - started < 20
    opened.close()


def test_the_end_of_a_long_step_is_kept(sshd: Sshd) -> None:
    """All output is passed on; the result has the last MiB of each stream."""
    opened = connect(sshd.target(), lock=False, who="test")
    sizes: list[int] = []
    script = "head -c 9000000 /dev/zero; echo out; head -c 9000000 /dev/zero >&2; echo err >&2; exit 3"
    result = opened.run(sh(script), deadline=60, on_output=lambda piece: sizes.append(len(piece)))
    assert sum(sizes) == 18_000_008
    assert (len(result.stdout), len(result.stderr), result.code) == (STREAMED_KEPT, STREAMED_KEPT, 3)
    assert result.stdout.endswith(b"\0out\n")
    assert result.stderr.endswith(b"\0err\n")
    opened.close()


def test_the_output_of_a_batch_is_limited_and_the_limit_can_be_used(sshd: Sshd) -> None:
    """Almost 64 MiB arrive; more is refused, and the error names the command."""
    opened = connect(sshd.target(), lock=False, who="test")
    first = sh("head -c %s /dev/zero", OUTPUT_LIMIT - 100)
    assert len(opened.ask([first], deadline=120)[0].stdout) == OUTPUT_LIMIT - 100
    with pytest.raises(ProbeFailed, match=r"more than 64 MiB, during yes;"):
        opened.ask([sh("echo one"), Command("yes")], deadline=120)
    opened.close()


def test_a_host_that_sends_and_reads_nothing(
    sshd_factory: Callable[..., Sshd], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It sends output without pause and takes no input: the upload ends by its deadline."""
    monkeypatch.setattr("provision.ssh.shell_session._KILL_AFTER", 0.5)
    monkeypatch.setattr("provision.ssh.shell_session._ANSWER_TIMEOUT", 0.5)
    sshd = sshd_factory("ForceCommand exec sh -c 'while read -r a b c; do case $a in provision-nonce) break;; esac; done; "
                        "echo $b greeting 0 none; echo $b greeting >&2; exec cat /dev/zero'")  # fmt: skip
    opened = connect(sshd.target(), lock=False, who="test")
    started = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        opened.run(Command("cat", b"x" * 30_000_000), deadline=3, on_output=lambda _: None)
    assert time.monotonic() - started < 20
    opened.close()


# -- SSH itself ------------------------------------------------------------------------------


def read_to_the_end(connection: socket.socket) -> None:
    """Send nothing more until the client is gone."""
    while connection.recv(4096):
        pass


def banner_without_end(connection: socket.socket) -> None:
    while True:
        connection.sendall(b"x" * 4096)


def banner_lines_without_end(connection: socket.socket) -> None:
    while True:
        connection.sendall(b"welcome\r\n" * 400)


def banner_drop_by_drop(connection: socket.socket) -> None:
    while True:
        connection.sendall(b"x")
        time.sleep(0.05)  # the pause is the subject: each byte arrives in time


def huge_packet(connection: socket.socket) -> None:
    connection.sendall(b"SSH-2.0-OpenSSH_9.9\r\n" + struct.pack(">IB", 0x7FFFFFFC - 4, 4))
    while True:
        connection.sendall(bytes(65536))


def random_packets(connection: socket.socket) -> None:
    connection.sendall(b"SSH-2.0-OpenSSH_9.9\r\n")
    for _ in range(100):
        body = os.urandom(43)
        connection.sendall(struct.pack(">IB", 44, 4) + body)
    read_to_the_end(connection)


def ignored_packets_without_end(connection: socket.socket) -> None:
    connection.sendall(b"SSH-2.0-OpenSSH_9.9\r\n")
    packet = struct.pack(">IB", 28, 10) + b"\x02" + bytes(26)  # SSH_MSG_IGNORE
    while True:
        connection.sendall(packet * 1000)


def silence(connection: socket.socket) -> None:
    connection.recv(4096)
    connection.sendall(b"SSH-2.0-OpenSSH_9.9\r\n")
    read_to_the_end(connection)


def without_penalties() -> list[str]:
    """Options of an sshd that accepts any number of broken connections; OpenSSH before 9.8 always does."""
    ask = ["/usr/sbin/sshd", "-G", "-f", "/dev/null", "-o", "PerSourcePenalties=no"]
    return ["PerSourcePenalties no"] if subprocess.run(ask, capture_output=True, check=False).returncode == 0 else []


SERVERS = [
    banner_without_end,
    banner_lines_without_end,
    banner_drop_by_drop,
    huge_packet,
    random_packets,
    ignored_packets_without_end,
    silence,
]


@pytest.mark.parametrize("serve", SERVERS, ids=lambda one: one.__name__)
def test_a_server_that_is_no_sshd(
    sshd: Sshd, serve: Callable[[socket.socket], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host is unreachable after the time limit, and memory is bounded."""
    monkeypatch.setattr("provision.ssh.connection._MAX_ATTEMPTS", 1)
    before = peak_memory()
    with tcp_server(serve) as port:
        started = time.monotonic()
        with pytest.raises(Unreachable, match="web1") as caught:
            connect(sshd.target(port=port, connect_timeout=1.0), lock=False, who="test")
        assert time.monotonic() - started < 20
        assert caught.value.hint
    assert peak_memory() - before < 32


def test_a_connection_that_ends_at_any_byte_of_the_handshake(
    sshd_factory: Callable[..., Sshd], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host closes after so many bytes of the handshake and the login: it is unreachable, without a crash or a wait."""
    sshd = sshd_factory(*without_penalties())
    known = sshd.known()
    monkeypatch.setattr("provision.ssh.connection._MAX_ATTEMPTS", 1)
    limit = 0

    def serve(connection: socket.socket) -> None:
        relay(connection, sshd.port, limit)

    def error_of(port: int) -> ProvisionError | None:
        try:
            target = sshd.target(port=port, known_hosts=known, host_key=sshd.public())
            opened = connect(target, lock=False, who="test")
            opened.ask([sh("echo hello")], deadline=10)
            opened.close()
        except ProvisionError as error:
            return error
        return None

    with tcp_server(serve) as port:
        for length in [*range(60), *range(60, 100_000, 67)]:
            limit = length
            started = time.monotonic()
            error = error_of(port)
            assert time.monotonic() - started < 10
            if error is None:
                break
            assert isinstance(error, Unreachable | BecomeError)
            assert "web1" in error.text
            assert error.hint
    assert limit > 1500, "the whole handshake and the first answer were cut"


def test_a_server_that_ignores_the_window(tmp_path: Path, sshd: Sshd) -> None:
    """Data that is not read is buffered up to the window only: then the connection ends."""
    key = paramiko.Ed25519Key.from_private_key_file(str(sshd.folder / "host_ed25519"))
    flooded = threading.Event()

    class Server(paramiko.ServerInterface):
        def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
            del username, key
            return paramiko.AUTH_SUCCESSFUL

        def get_allowed_auths(self, username: str) -> str:
            del username
            return "publickey"

        def check_channel_request(self, kind: str, chanid: int) -> int:
            del kind, chanid
            return paramiko.OPEN_SUCCEEDED

        def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
            del command
            threading.Thread(target=flood, args=(channel,), daemon=True).start()
            return True

    def flood(channel: paramiko.Channel) -> None:
        transport = channel.get_transport()
        block = bytes(30_000)
        try:
            for _ in range(2000):  # 60 MB
                message = Message()
                message.add_byte(cMSG_CHANNEL_DATA)
                message.add_int(channel.remote_chanid)
                message.add_string(block)
                transport._send_user_message(message)  # type: ignore[attr-defined]
        except (OSError, EOFError, paramiko.SSHException):
            pass
        finally:
            flooded.set()

    def serve(connection: socket.socket) -> None:
        transport = paramiko.Transport(connection)
        transport.add_server_key(key)
        transport.start_server(server=Server())
        transport.join(60)

    with tcp_server(serve) as port:
        known = tmp_path / "known_hosts"
        known.write_text(f"[127.0.0.1]:{port} {sshd.public()}\n")
        before = peak_memory()
        opened = connect(sshd.target(port=port, known_hosts=known), lock=False, who="test")
        assert flooded.wait(60)  # nothing is read meanwhile
        with pytest.raises(ProvisionError, match="web1"):
            opened.ask([sh("echo hello")], deadline=5)
        opened.close()
        assert peak_memory() - before < 48
