"""Connecting to a real sshd: host keys, login keys, gateways, and the message of each failure."""

from __future__ import annotations

import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import fabric  # type: ignore[import-untyped]
import pytest

from provision.errors import BecomeError, HostKeyError, LoginRefused, Unreachable
from provision.shell import sh
from provision.ssh import Target, connect
from provision.ssh.connection import HostConnection, resolve
from provision.ssh.host_keys import KnownHosts, fingerprint, known_hosts_name
from provision.ssh.shell_session import ShellSession
from tests.support.waiting import wait_for
from tests.unit.ssh.conftest import proxy_command, ssh_agent
from tests.unit.ssh.test_wire import silent

pytestmark = pytest.mark.slow

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


def connects(target: Target) -> bool:
    """Whether a session on the target runs a command."""
    with session(target) as opened:
        return opened.ask([sh("echo ok")], deadline=10)[0].text == "ok\n"


def refusal(target: Target, kind: type[Unreachable] = Unreachable) -> str:
    """The message of the error that connecting to the target raises."""
    with pytest.raises(kind) as raised, session(target):
        pass
    assert raised.value.hint, "each error has a hint"
    return str(raised.value)


# -- host keys ---------------------------------------------------------------------------------------


def printed_fingerprint(sshd: Sshd, kind: str = "ed25519") -> str:
    """The fingerprint that ssh-keygen prints for the host's key."""
    printed = subprocess.run(["ssh-keygen", "-lf", sshd.folder / f"host_{kind}.pub"], capture_output=True, text=True)
    return printed.stdout.split()[1]


def test_a_known_host_is_accepted(sshd: Sshd) -> None:
    """A host that known_hosts contains with its port is accepted."""
    assert connects(sshd.target())


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_the_recorded_key_type_is_requested(sshd: Sshd, kind: str) -> None:
    """If known_hosts contains one of the host's keys, that type is requested from it."""
    assert connects(sshd.target(known_hosts=sshd.known("{at} " + sshd.public(kind))))


def test_an_unknown_host_is_refused(sshd: Sshd) -> None:
    """An unknown host is refused, naming its fingerprint, before a login key is offered to it."""
    message = refusal(sshd.target(known_hosts=sshd.known("# empty")), HostKeyError)
    assert printed_fingerprint(sshd) in message
    assert f"ssh-keyscan -t ed25519 -p {sshd.port} 127.0.0.1" in message
    assert "web1" in message


def test_a_changed_host_key_is_refused(sshd: Sshd) -> None:
    """A changed key is refused under both policies, naming its fingerprint and the line of known_hosts."""
    other = (sshd.folder / "user_key.pub").read_text().split()[1]
    known = sshd.known(f"{{at}} ssh-ed25519 {other}")
    for policy in ("strict", "accept-new"):
        message = refusal(sshd.target(known_hosts=known, host_keys=policy), HostKeyError)
        assert printed_fingerprint(sshd) in message
        assert "known_" in message
        assert "line 1" in message


def test_a_revoked_host_key_is_refused(sshd: Sshd) -> None:
    """@revoked lines are respected, which paramiko alone does not do."""
    known = sshd.known("{at} {key}", "@revoked * {key}")
    assert "revoked" in refusal(sshd.target(known_hosts=known), HostKeyError)


def test_accept_new_records_the_host_key(sshd: Sshd) -> None:
    """The key of a new host is recorded once, and the host is known afterwards."""
    known = sshd.known("# empty")
    assert connects(sshd.target(known_hosts=known, host_keys="accept-new"))
    assert known.read_text() == f"# empty\n{known_hosts_name('127.0.0.1', sshd.port)} {sshd.public()}\n"
    assert connects(sshd.target(known_hosts=known))


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
@pytest.mark.parametrize("whole", [True, False])
def test_a_pinned_host_key_is_accepted(sshd: Sshd, kind: str, whole: bool) -> None:
    """A pin of any key type, as a public key or a fingerprint, is enough without a known_hosts line."""
    pin = sshd.public(kind) if whole else printed_fingerprint(sshd, kind)
    assert connects(sshd.target(known_hosts=sshd.known("# empty"), host_key=pin))


def test_a_host_with_another_key_than_the_pinned_one_is_refused(sshd: Sshd) -> None:
    """The pin decides, although known_hosts contains the presented key."""
    wanted = fingerprint(b"another key")
    message = refusal(sshd.target(host_key=wanted), HostKeyError)
    assert wanted in message
    assert printed_fingerprint(sshd) in message
    assert "[hosts.web1]" in message


def test_the_users_known_hosts_file_is_the_default(sshd: Sshd, empty_home: Path) -> None:
    """Without known_hosts in the inventory, ~/.ssh/known_hosts is read."""
    assert "not known" in refusal(sshd.target(known_hosts=None), HostKeyError)
    own = empty_home / ".ssh" / "known_hosts"
    own.write_bytes(sshd.known().read_bytes())
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", own], check=True, capture_output=True)
    assert connects(sshd.target(known_hosts=None))


# -- login keys --------------------------------------------------------------------------------------------


def test_a_refused_login_names_user_host_and_key(sshd: Sshd) -> None:
    """The host accepts none of the keys: the message names user, host, key and the next step."""
    message = refusal(sshd.target(identity_file=sshd.folder / "host_ed25519"), LoginRefused)
    for part in ("web1", "root", str(sshd.folder / "host_ed25519"), "authorized_keys"):
        assert part in message


def test_a_login_without_any_key_is_reported(sshd: Sshd) -> None:
    """Neither a key file nor an agent exists."""
    assert "refused the login of root (no key to try)" in refusal(sshd.target(identity_file=None), LoginRefused)


def test_a_missing_key_file_is_reported(sshd: Sshd) -> None:
    """An identity_file that does not exist is named."""
    assert "the key file /nowhere/key does not exist" in refusal(
        sshd.target(identity_file="/nowhere/key"), LoginRefused
    )


def test_default_key_files_are_tried(sshd: Sshd, empty_home: Path) -> None:
    """Without an identity_file, ~/.ssh/id_* is offered."""
    (empty_home / ".ssh" / "id_ed25519").write_bytes(sshd.key.read_bytes())
    assert connects(sshd.target(identity_file=None))


@contextmanager
def agent(monkeypatch: pytest.MonkeyPatch, folder: Path, *keys: Path) -> Iterator[None]:
    """An ssh-agent that holds these keys, named by SSH_AUTH_SOCK."""
    with ssh_agent(folder, *keys) as path:
        monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
        yield


def test_keys_of_the_agent_are_tried(sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The agent's keys are offered in turn; each refused key costs one more round trip."""
    with agent(monkeypatch, tmp_path, sshd.key), session(sshd.target(identity_file=None)) as direct:
        first = direct.traffic.round_trips
    two = agent(monkeypatch, tmp_path, sshd.folder / "host_rsa", sshd.key)
    with two, session(sshd.target(identity_file=None)) as second:
        assert second.traffic.round_trips == first + 1


def test_a_key_with_a_passphrase_is_used_through_the_agent(
    sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key with a passphrase is used through the agent; without the agent the message explains how to add it."""
    locked = tmp_path / "locked"
    for name in ("locked", "locked.pub"):
        source = sshd.folder / name.replace("locked", "user_key")
        (tmp_path / name).write_bytes(source.read_bytes())
        (tmp_path / name).chmod(0o600)
    subprocess.run(["ssh-keygen", "-q", "-p", "-N", "secret words", "-f", locked], check=True, capture_output=True)
    assert f"ssh-add {locked}" in refusal(sshd.target(identity_file=locked), LoginRefused)
    with agent(monkeypatch, tmp_path, sshd.key):
        assert connects(sshd.target(identity_file=locked))


# -- ~/.ssh/config and gateways ------------------------------------------------------------------------


def test_the_inventory_overrides_ssh_config(sshd: Sshd, empty_home: Path) -> None:
    """Name, port, user and key may come from ~/.ssh/config; the inventory's user overrides its user."""
    (empty_home / ".ssh" / "config").write_text(
        f"Host web1\n HostName 127.0.0.1\n Port {sshd.port}\n User unknown-user\n IdentityFile {sshd.key}\n"
    )
    bare = Target("web1", "web1", known_hosts=sshd.known(), become=False)
    assert "unknown-user" in refusal(bare, LoginRefused)
    assert connects(Target("web1", "web1", user="root", known_hosts=sshd.known(), become=False))


def test_user_known_hosts_file_of_ssh_config_is_used(sshd: Sshd, empty_home: Path) -> None:
    """UserKnownHostsFile is read when the inventory names no file."""
    (empty_home / ".ssh" / "config").write_text(f"UserKnownHostsFile {sshd.known()}\n")
    assert connects(sshd.target(known_hosts=None))


def test_connections_share_fabrics_configuration_and_write_nothing_into_it(sshd: Sshd) -> None:
    """Hosts connect at the same time. What is set for one connection has no effect on the others."""
    first, second = (resolve(target) for target in (sshd.target(), sshd.target(user="nobody")))
    config = first._connection.config
    assert second._connection.config is config
    before = str(config)
    first.open()
    try:
        assert str(config) == before
        assert config.connect_kwargs == {}
        assert (first.user, second.user) == ("root", "nobody")
        assert first._connection.connect_kwargs != second._connection.connect_kwargs
        assert set(vars(first._connection)) >= {"host", "user", "port", "client", "transport", "connect_timeout"}
    finally:
        first.close()


def test_an_attribute_that_fabric_sets_is_one_of_its_class() -> None:
    """Otherwise fabric would write it into the configuration, and our class into the connection."""
    plain = fabric.Connection("web1", user="root", port=22, config=fabric.Config(lazy=True))
    assert set(vars(plain)) <= set(dir(fabric.Connection)) | {
        "_config",
        "command_prefixes",
        "command_cwds",
    }


@pytest.mark.parametrize("inventory", [True, False])
@pytest.mark.parametrize("hops", [1, 2])
def test_gateways_are_used(sshd: Sshd, empty_home: Path, inventory: bool, hops: int) -> None:
    """ProxyJump from the inventory or from ~/.ssh/config, with one gateway or two."""
    jump = ",".join(["root@bastion"] * hops)
    own = f"Host bastion\n HostName 127.0.0.1\n Port {sshd.port}\n IdentityFile {sshd.key}\n"
    own += "" if inventory else f"Host 127.0.0.1\n ProxyJump {jump}\n"
    (empty_home / ".ssh" / "config").write_text(own)
    with session(sshd.target(proxy_jump=jump if inventory else None)) as opened:
        (result,) = opened.ask([sh("ps -o args= -e | grep -c 'sshd: roo[t]'")], deadline=10)
        assert int(result.text) >= hops + 1
        assert opened.traffic.round_trips > 8, "the gateway's handshake counts too"


@pytest.mark.parametrize(
    ("jump", "host", "port", "user"),
    [
        ("[2001:db8::1]", "2001:db8::1", 22, ""),
        ("ops@[2001:db8::1]:2222", "2001:db8::1", 2222, "ops"),
        ("ssh://ops@[2001:db8::1]", "2001:db8::1", 22, "ops"),
        ("2001:db8::1", "2001:db8::1", 22, ""),
        ("ops@bastion:2222", "bastion", 2222, "ops"),
    ],
)
def test_a_gateway_may_have_an_ipv6_address(sshd: Sshd, jump: str, host: str, port: int, user: str) -> None:
    """In brackets when a port follows, as OpenSSH has it."""
    gateway = resolve(sshd.target(proxy_jump=jump)).gateway
    assert isinstance(gateway, HostConnection)
    assert (gateway.host, gateway.port) == (host, port)
    assert not user or gateway.user == user


def test_the_host_key_of_a_gateway_is_checked(sshd: Sshd, empty_home: Path) -> None:
    """An unknown gateway is refused, and the message names it as the gateway."""
    (empty_home / ".ssh" / "config").write_text(
        f"Host bastion\n HostName localhost\n Port {sshd.port}\n IdentityFile {sshd.key}\n User root\n"
    )
    message = refusal(sshd.target(proxy_jump="bastion"), HostKeyError)
    assert "the gateway localhost" in message


def test_a_gateway_that_cannot_reach_the_host_is_named(sshd: Sshd, empty_home: Path) -> None:
    """The message names the gateway, and the address that it could not reach."""
    (empty_home / ".ssh" / "config").write_text(f"Host bastion\n IdentityFile {sshd.key}\n")
    target = sshd.target(port=1, proxy_jump=f"root@127.0.0.1:{sshd.port}")
    (empty_home / ".ssh" / "config").write_text(f"IdentityFile {sshd.key}\n")
    assert "the gateway 127.0.0.1 cannot reach 127.0.0.1 port 1" in refusal(target)


def test_a_proxy_command_is_used(sshd: Sshd, empty_home: Path) -> None:
    """The ProxyCommand of ~/.ssh/config opens the connection."""
    (empty_home / ".ssh" / "config").write_text(f"Host 127.0.0.1\n ProxyCommand {proxy_command(empty_home)}\n")
    assert connects(sshd.target())
    assert (empty_home / "used").exists()


def test_a_proxy_command_that_fails_is_named(sshd: Sshd, empty_home: Path) -> None:
    """A ProxyCommand that ends at once is named in the message."""
    (empty_home / ".ssh" / "config").write_text("Host 127.0.0.1\n ProxyCommand false %h\n")
    assert "the ProxyCommand 'false 127.0.0.1'" in refusal(sshd.target())


# -- no connection ------------------------------------------------------------------------------


def test_a_name_that_does_not_resolve_is_reported(sshd: Sshd) -> None:
    """The message names the address that DNS does not know."""
    message = refusal(sshd.target(address="no-such-host.invalid"))
    assert "no-such-host.invalid does not resolve" in message


def test_a_refused_port_is_reported(sshd: Sshd) -> None:
    """Nothing listens on the port: the message names it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        assert f"port {port} of 127.0.0.1 refused the connection" in refusal(sshd.target(port=port))


def test_a_host_that_drops_packets_times_out(sshd: Sshd) -> None:
    """The attempt ends after connect_timeout."""
    with silent() as port:
        message = refusal(sshd.target(port=port, connect_timeout=0.4))
    assert f"no answer from 127.0.0.1 port {port} within 0.4 s" in message


@contextmanager
def listener(answer: bytes | None) -> Iterator[tuple[int, list[int]]]:
    """A server that is not sshd: sends `answer` and closes; with None it sends nothing and stays. Counts connections."""
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
def test_a_server_without_an_ssh_banner_is_tried_three_times(sshd: Sshd, answer: bytes) -> None:
    """A server that closes the connection before its SSH banner is tried three times, then reported."""
    with listener(answer) as (port, calls):
        message = refusal(sshd.target(port=port))
        assert len(calls) == 3
    assert "accepts TCP connections but sends no SSH banner" in message
    assert "MaxStartups" in message


def test_a_dropped_connection_is_retried(sshd: Sshd) -> None:
    """A busy sshd drops the first connection and accepts the next."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def serve() -> None:
            server.accept()[0].close()
            caller, _ = server.accept()
            inner = socket.create_connection(("127.0.0.1", sshd.port))
            for source, sink in ((caller, inner), (inner, caller)):
                threading.Thread(target=_copy, args=(source, sink), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        known = sshd.known(f"{known_hosts_name('127.0.0.1', port)} {{key}}")
        assert connects(sshd.target(port=port, known_hosts=known))


def _copy(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)


def test_no_retry_after_a_refused_login(sshd: Sshd) -> None:
    """A refused key is offered once: repeating it could lock the account."""

    def refused_logins() -> int:
        return (sshd.folder / "sshd.log").read_text().count("Connection closed by authenticating user root")

    before = refused_logins()
    refusal(sshd.target(identity_file=sshd.folder / "host_rsa"), LoginRefused)
    wait_for(lambda: refused_logins() > before, "sshd logs the refused login")
    assert refused_logins() == before + 1


def test_the_output_of_an_account_without_a_shell_is_reported(sshd_factory: Callable[..., Sshd]) -> None:
    """A forced command that ends at once is reported with its output."""
    forced = sshd_factory("ForceCommand echo no shells here; exit 1")
    with pytest.raises(BecomeError, match="no shells here"), session(forced.target()) as opened:
        opened.ask([sh("echo")], deadline=5)


def test_a_changed_known_hosts_file_is_read_again(sshd: Sshd) -> None:
    """The parsed file is cached for all hosts until it changes."""
    file = sshd.known()
    hosts = KnownHosts([file])
    assert len(hosts.lookup("127.0.0.1", sshd.port)) == 1
    file.write_text("# gone\n")
    assert hosts.lookup("127.0.0.1", sshd.port) == []


# -- algorithms --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "only", "kind"),
    [
        ("Ciphers", "chacha20-poly1305@openssh.com", "cipher"),
        ("KexAlgorithms", "sntrup761x25519-sha512@openssh.com", "key exchange method"),
        ("MACs", "umac-128-etm@openssh.com", "MAC"),
    ],
)
def test_a_host_without_a_common_algorithm(
    sshd_factory: Callable[..., Sshd], option: str, only: str, kind: str
) -> None:
    """The message names what the host has and what is supported, and does not call a hardened sshd old."""
    hardened = sshd_factory(f"{option} {only}", *(["Ciphers aes256-ctr"] if option == "MACs" else []))
    message = refusal(hardened.target())
    assert f"no {kind} in common: sshd on the host accepts only {only}; paramiko supports" in message
    assert f"{option} in the host's sshd_config" in message
    assert "update sshd" not in message
