"""The way in, against a real sshd: host keys, keys, gateways, and each failure in plain words."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from provision.errors import BecomeError, HostKeyError, LoginRefused, Unreachable
from provision.shell import sh
from provision.ssh import Target, connect
from provision.ssh.host_keys import KnownHosts, fingerprint, host_label
from provision.ssh.shell_session import ShellSession
from provision.ssh.ssh_config import shared_config

if TYPE_CHECKING:
    from tests.unit.ssh.conftest import Sshd


@contextmanager
def session(target: Target) -> Iterator[ShellSession]:
    """An open session, closed afterwards."""
    opened = connect(target, lock=False, who="test")
    try:
        yield opened
    finally:
        opened.close()


def enters(target: Target) -> bool:
    """Whether a session on the target answers."""
    with session(target) as opened:
        return opened.ask([sh("echo in")], deadline=10)[0].text == "in\n"


def refusal(target: Target, kind: type[Unreachable] = Unreachable) -> str:
    """The message that the target's refusal is told with."""
    with pytest.raises(kind) as told, session(target):
        pass
    assert told.type is kind or issubclass(told.type, kind)
    assert told.value.hint, "each refusal says what to do next"
    return str(told.value)


# -- host keys ---------------------------------------------------------------------------------------


def seen(sshd: Sshd, kind: str = "ed25519") -> str:
    """The fingerprint that ssh-keygen shows for the host's key."""
    shown = subprocess.run(["ssh-keygen", "-lf", sshd.folder / f"host_{kind}.pub"], capture_output=True, text=True)
    return shown.stdout.split()[1]


def test_known_host(sshd: Sshd) -> None:
    """A host that is in known_hosts with its port is entered."""
    assert enters(sshd.target())


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_known_by_one_type_only(sshd: Sshd, kind: str) -> None:
    """A host known by one of its keys is asked for that one: it is not 'unknown' by another."""
    assert enters(sshd.target(known_hosts=sshd.known("{at} " + sshd.public(kind))))


def test_unknown_host(sshd: Sshd) -> None:
    """An unknown host is refused with its fingerprint, before any key is shown to it."""
    told = refusal(sshd.target(known_hosts=sshd.known("# nobody")), HostKeyError)
    assert seen(sshd) in told
    assert f"ssh-keyscan -t ed25519 -p {sshd.port} 127.0.0.1" in told
    assert "web1" in told


def test_changed_key(sshd: Sshd) -> None:
    """A key that has changed is refused with both fingerprints, accept-new or not."""
    other = (sshd.folder / "user_key.pub").read_text().split()[1]
    known = sshd.known(f"{{at}} ssh-ed25519 {other}")
    for policy in ("strict", "accept-new"):
        told = refusal(sshd.target(known_hosts=known, host_keys=policy), HostKeyError)
        assert seen(sshd) in told
        assert "known_" in told
        assert "line 1" in told


def test_revoked_key(sshd: Sshd) -> None:
    """@revoked is honoured, which paramiko alone does not."""
    known = sshd.known("{at} {key}", "@revoked * {key}")
    assert "revoked" in refusal(sshd.target(known_hosts=known), HostKeyError)


def test_accept_new(sshd: Sshd) -> None:
    """A host never seen is noted once, and known afterwards."""
    known = sshd.known("# nobody")
    assert enters(sshd.target(known_hosts=known, host_keys="accept-new"))
    assert known.read_text() == f"# nobody\n{host_label('127.0.0.1', sshd.port)} {sshd.public()}\n"
    assert enters(sshd.target(known_hosts=known))


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
@pytest.mark.parametrize("whole", [True, False])
def test_pinned_key(sshd: Sshd, kind: str, whole: bool) -> None:
    """A pin lets the host in by a key of any type, given whole or by its fingerprint, known_hosts or not."""
    pin = sshd.public(kind) if whole else seen(sshd, kind)
    assert enters(sshd.target(known_hosts=sshd.known("# nobody"), host_key=pin))


def test_pinned_otherwise(sshd: Sshd) -> None:
    """A host with another key than the pinned one is refused, though known_hosts knows it."""
    wanted = fingerprint(b"another key")
    told = refusal(sshd.target(host_key=wanted), HostKeyError)
    assert wanted in told
    assert seen(sshd) in told
    assert "[hosts.web1]" in told


def test_users_own_known_hosts(sshd: Sshd, no_user_configuration: Path) -> None:
    """Without a file in the inventory, ~/.ssh/known_hosts is read."""
    assert "not known" in refusal(sshd.target(known_hosts=None), HostKeyError)
    own = no_user_configuration / ".ssh" / "known_hosts"
    own.write_bytes(sshd.known().read_bytes())
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", own], check=True, capture_output=True)
    assert enters(sshd.target(known_hosts=None))


# -- keys --------------------------------------------------------------------------------------------


def test_refused_key(sshd: Sshd) -> None:
    """A key that the host does not take: the message names user, host and key; there is no second try."""
    told = refusal(sshd.target(identity_file=sshd.folder / "host_ed25519"), LoginRefused)
    for part in ("web1", "root", str(sshd.folder / "host_ed25519"), "authorized_keys"):
        assert part in told


def test_no_key_at_all(sshd: Sshd) -> None:
    """No key, no agent: said so."""
    assert "no key at all" in refusal(sshd.target(identity_file=None), LoginRefused)


def test_missing_key_file(sshd: Sshd) -> None:
    """An identity_file that is not there is named."""
    assert "/nowhere/key is not there" in refusal(sshd.target(identity_file="/nowhere/key"), LoginRefused)


def test_default_key(sshd: Sshd, no_user_configuration: Path) -> None:
    """Without an identity_file, ~/.ssh/id_* is tried."""
    (no_user_configuration / ".ssh" / "id_ed25519").write_bytes(sshd.key.read_bytes())
    assert enters(sshd.target(identity_file=None))


@contextmanager
def agent(monkeypatch: pytest.MonkeyPatch, folder: Path, *keys: Path) -> Iterator[None]:
    """An ssh-agent that holds these keys."""
    path = folder / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.DEVNULL)
    try:
        for _ in range(200):
            if path.exists():
                break
            process.poll()
            threading.Event().wait(0.02)
        monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
        for key in keys:
            subprocess.run(["ssh-add", "-q", key], check=True, capture_output=True)
        yield
    finally:
        process.terminate()
        process.wait(5)


def test_agent(sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The agent's keys are tried in turn; a refused one costs one round trip more."""
    with agent(monkeypatch, tmp_path, sshd.key), session(sshd.target(identity_file=None)) as direct:
        first = direct.traffic.round_trips
    two = agent(monkeypatch, tmp_path, sshd.folder / "host_rsa", sshd.key)
    with two, session(sshd.target(identity_file=None)) as second:
        assert second.traffic.round_trips == first + 1


def test_key_with_a_passphrase(sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key under a passphrase is used through the agent, and otherwise named with the remedy."""
    locked = tmp_path / "locked"
    for name in ("locked", "locked.pub"):
        source = sshd.folder / name.replace("locked", "user_key")
        (tmp_path / name).write_bytes(source.read_bytes())
        (tmp_path / name).chmod(0o600)
    subprocess.run(["ssh-keygen", "-q", "-p", "-N", "secret words", "-f", locked], check=True, capture_output=True)
    assert f"ssh-add {locked}" in refusal(sshd.target(identity_file=locked), LoginRefused)
    with agent(monkeypatch, tmp_path, sshd.key):
        assert enters(sshd.target(identity_file=locked))


# -- ~/.ssh/config and gateways ------------------------------------------------------------------------


def test_ssh_config_counts_and_the_inventory_wins(sshd: Sshd, no_user_configuration: Path) -> None:
    """Name, port, user and key may come from ~/.ssh/config; a user in the inventory overrules it."""
    (no_user_configuration / ".ssh" / "config").write_text(
        f"Host web1\n HostName 127.0.0.1\n Port {sshd.port}\n User nobody-here\n IdentityFile {sshd.key}\n"
    )
    bare = Target("web1", "web1", known_hosts=sshd.known(), become=False)
    assert "nobody-here" in refusal(bare, LoginRefused)
    assert enters(Target("web1", "web1", user="root", known_hosts=sshd.known(), become=False))


def test_known_hosts_file_of_ssh_config(sshd: Sshd, no_user_configuration: Path) -> None:
    """UserKnownHostsFile counts where the inventory names no file."""
    (no_user_configuration / ".ssh" / "config").write_text(f"UserKnownHostsFile {sshd.known()}\n")
    assert enters(sshd.target(known_hosts=None))


def test_hosts_do_not_write_into_the_shared_configuration(sshd: Sshd) -> None:
    """fabric keeps unknown attributes in its configuration, which all threads share: none may get there."""
    assert enters(sshd.target())
    assert shared_config()._modifications == {}


@pytest.mark.parametrize("inventory", [True, False])
@pytest.mark.parametrize("hops", [1, 2])
def test_gateways(sshd: Sshd, no_user_configuration: Path, inventory: bool, hops: int) -> None:
    """ProxyJump, from the inventory or from ~/.ssh/config, through one host or two."""
    jump = ",".join(["root@gate"] * hops)
    own = f"Host gate\n HostName 127.0.0.1\n Port {sshd.port}\n IdentityFile {sshd.key}\n"
    own += "" if inventory else f"Host 127.0.0.1\n ProxyJump {jump}\n"
    (no_user_configuration / ".ssh" / "config").write_text(own)
    with session(sshd.target(proxy_jump=jump if inventory else None)) as opened:
        (result,) = opened.ask([sh("ps -o args= -e | grep -c 'sshd: roo[t]'")], deadline=10)
        assert int(result.text) >= hops + 1
        assert opened.traffic.round_trips > 8, "the gateway's handshake counts too"


def test_gateway_keys_are_checked_too(sshd: Sshd, no_user_configuration: Path) -> None:
    """An unknown gateway is refused as the gateway, by name."""
    (no_user_configuration / ".ssh" / "config").write_text(
        f"Host gate\n HostName localhost\n Port {sshd.port}\n IdentityFile {sshd.key}\n User root\n"
    )
    told = refusal(sshd.target(proxy_jump="gate"), HostKeyError)
    assert "the gateway localhost" in told


def test_gateway_that_cannot_reach_the_host(sshd: Sshd, no_user_configuration: Path) -> None:
    """The gateway's own failure is told as such."""
    (no_user_configuration / ".ssh" / "config").write_text(f"Host gate\n IdentityFile {sshd.key}\n")
    target = sshd.target(port=1, proxy_jump=f"root@127.0.0.1:{sshd.port}")
    (no_user_configuration / ".ssh" / "config").write_text(f"IdentityFile {sshd.key}\n")
    assert "the gateway 127.0.0.1 cannot reach 127.0.0.1 port 1" in refusal(target)


def test_proxy_command(sshd: Sshd, no_user_configuration: Path) -> None:
    """A ProxyCommand of ~/.ssh/config is used."""
    relay = no_user_configuration / "relay.py"
    relay.write_text(
        "import os, socket, sys, threading\n"
        "s = socket.create_connection((sys.argv[1], int(sys.argv[2])))\n"
        "def up():\n"
        "    while d := os.read(0, 65536): s.sendall(d)\n"
        "    s.shutdown(1)\n"
        "threading.Thread(target=up, daemon=True).start()\n"
        "while d := s.recv(65536): os.write(1, d)\n"
    )
    (no_user_configuration / ".ssh" / "config").write_text(
        f"Host 127.0.0.1\n ProxyCommand {sys.executable} {relay} %h %p\n"
    )
    assert enters(sshd.target())


def test_proxy_command_that_fails(sshd: Sshd, no_user_configuration: Path) -> None:
    """A ProxyCommand that ends at once is named."""
    (no_user_configuration / ".ssh" / "config").write_text("Host 127.0.0.1\n ProxyCommand false %h\n")
    assert "the ProxyCommand 'false 127.0.0.1'" in refusal(sshd.target())


# -- no connection at all ------------------------------------------------------------------------------


def test_name_that_does_not_resolve(sshd: Sshd) -> None:
    """A name nobody knows is told as that."""
    told = refusal(sshd.target(address="no-such-host.invalid"))
    assert "no-such-host.invalid does not resolve" in told


def test_refused_port(sshd: Sshd) -> None:
    """Nobody listens there: told at once, with the port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        assert f"port {port} of 127.0.0.1 refused the connection" in refusal(sshd.target(port=port))


def test_black_hole(sshd: Sshd) -> None:
    """A host that swallows packets is given up after connect_timeout. (A full backlog drops them too.)"""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as silent:
        port = silent.getsockname()[1]
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        told = refusal(sshd.target(port=port, connect_timeout=0.4))
        for filler in fillers:
            filler.close()
    assert f"no answer from 127.0.0.1 port {port} within 0.4 s" in told


@contextmanager
def listener(answer: bytes | None) -> Iterator[tuple[int, list[int]]]:
    """Something that is not sshd: says `answer` and hangs up; None: says nothing, and stays. Counts the calls."""
    calls: list[int] = []
    kept: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    caller, _ = server.accept()
                except OSError:
                    return
                calls.append(1)
                if answer is None:
                    kept.append(caller)
                    continue
                caller.sendall(answer)
                caller.close()

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1], calls
        server.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.0 400 Bad Request\r\n\r\n", b"Exceeded MaxStartups\r\n"])
def test_no_banner(sshd: Sshd, answer: bytes) -> None:
    """Something that drops the connection before it speaks SSH is tried three times, then told as that."""
    with listener(answer) as (port, calls):
        told = refusal(sshd.target(port=port))
        assert len(calls) == 3
    assert "does not speak SSH" in told
    assert "MaxStartups" in told


def test_recovers_from_dropped_connections(sshd: Sshd) -> None:
    """A busy sshd that drops the first connection is entered by the next."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def serve() -> None:
            server.accept()[0].close()
            caller, _ = server.accept()
            inner = socket.create_connection(("127.0.0.1", sshd.port))
            for source, sink in ((caller, inner), (inner, caller)):
                threading.Thread(target=_copy, args=(source, sink), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        known = sshd.known(f"{host_label('127.0.0.1', port)} {{key}}")
        assert enters(sshd.target(port=port, known_hosts=known))


def _copy(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)


def test_no_retry_after_a_refused_login(sshd: Sshd) -> None:
    """A refused key is shown once: trying again could lock the account."""
    log = sshd.folder / "sshd.log"
    before = log.read_text().count("Connection closed by authenticating user root")
    refusal(sshd.target(identity_file=sshd.folder / "host_rsa"), LoginRefused)
    for _ in range(100):
        if log.read_text().count("Connection closed by authenticating user root") > before:
            break
        threading.Event().wait(0.02)
    assert log.read_text().count("Connection closed by authenticating user root") == before + 1


def test_account_without_a_shell(sshd_factory: Callable[..., Sshd]) -> None:
    """A refused forced command is told with the words it left."""
    forced = sshd_factory("ForceCommand echo no shells here; exit 1")
    with pytest.raises(BecomeError, match="no shells here"), session(forced.target()) as opened:
        opened.ask([sh("echo")], deadline=5)


def test_known_hosts_are_read_once(sshd: Sshd) -> None:
    """The parsed file is shared between hosts, and read again when it changes."""
    file = sshd.known()
    hosts = KnownHosts([file])
    assert len(hosts.lookup("127.0.0.1", sshd.port)) == 1
    file.write_text("# gone\n")
    assert hosts.lookup("127.0.0.1", sshd.port) == []
