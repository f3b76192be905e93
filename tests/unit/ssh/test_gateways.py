"""Gateways: the hosts behind one share a connection, and a failed host leaves nothing open."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from provision.errors import HostKeyError, LoginRefused, Unreachable
from provision.shell import sh
from provision.ssh import Target, connect
from provision.ssh.connection import HostConnection, resolve
from tests.support.waiting import wait_for
from tests.unit.ssh.conftest import proxy_command
from tests.unit.ssh.test_wire import silent

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from tests.unit.ssh.conftest import Sshd


@pytest.fixture
def bastion(sshd_factory: Callable[..., Sshd], empty_home: Path) -> Sshd:
    """A second sshd, the gateway `bastion` of ~/.ssh/config."""
    started = sshd_factory("LogLevel VERBOSE")
    (empty_home / ".ssh" / "config").write_text(
        f"Host bastion\n HostName 127.0.0.1\n Port {started.port}\n User root\n IdentityFile {started.key}\n"
    )
    return started


def behind(bastion: Sshd, sshd: Sshd, **changes: object) -> Target:
    """A host behind the bastion; both are known."""
    known = sshd.known("{at} {key}", f"[127.0.0.1]:{bastion.port} {bastion.public()}")
    return sshd.target(proxy_jump="bastion", known_hosts=known, **changes)


def logins(bastion: Sshd) -> int:
    """How many logins the bastion has accepted."""
    return (bastion.folder / "sshd.log").read_text().count("Accepted publickey")


def connections(bastion: Sshd) -> int:
    """How many connections to the bastion are open."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return sum(line.split()[1].endswith(f":{bastion.port:04X}") and line.split()[3] == "01" for line in lines)


def test_twenty_hosts_behind_a_bastion_share_one_connection(bastion: Sshd, sshd: Sshd) -> None:
    """One login on the bastion, twenty sessions through it (more than MaxSessions, which does not count them)."""
    together = threading.Barrier(20)
    target = behind(bastion, sshd)

    def work(number: int) -> str:
        session = connect(target._replace(name=f"web{number}"), lock=False, who="test")
        try:
            together.wait(60)  # all are open at the same time
            return session.ask([sh("echo %s", number)], deadline=30)[0].text
        finally:
            session.close()

    with ThreadPoolExecutor(20) as pool:
        assert list(pool.map(work, range(20))) == [f"{number}\n" for number in range(20)]
    assert logins(bastion) == 1
    wait_for(lambda: connections(bastion) == 0, "no connection to the bastion")


def test_the_last_host_closes_the_gateway(bastion: Sshd, sshd: Sshd) -> None:
    """Hosts may end in any order, also by an abort; a later host opens the gateway again."""
    target = behind(bastion, sshd)
    first, second = (connect(target, lock=False, who="test") for _ in range(2))
    first.abort()
    first.close()
    assert second.ask([sh("echo ok")], deadline=10)[0].text == "ok\n"
    assert connections(bastion) == 1
    second.close()
    second.close()
    wait_for(lambda: connections(bastion) == 0, "no connection to the bastion")
    third = connect(target, lock=False, who="test")
    assert third.ask([sh("echo ok")], deadline=10)[0].text == "ok\n"
    third.close()
    wait_for(lambda: connections(bastion) == 0, "no connection to the bastion")
    assert logins(bastion) == 2


@pytest.mark.parametrize("failure", ["host key", "login", "port"])
def test_a_failed_host_leaves_no_connection_to_its_gateway(bastion: Sshd, sshd: Sshd, failure: str) -> None:
    """The key, the login or the port of the host behind the gateway is wrong."""
    changes: dict[str, object] = {
        "host key": {"host_key": "SHA256:" + "A" * 43},
        "login": {"identity_file": sshd.folder / "host_rsa"},
        "port": {"port": 1},
    }[failure]
    connection = resolve(behind(bastion, sshd, **changes))
    with pytest.raises(Unreachable) as raised:
        connection.open()
    assert "gateway" in str(raised.value) or isinstance(raised.value, HostKeyError | LoginRefused)
    assert logins(bastion) == 1
    wait_for(lambda: connections(bastion) == 0, "no connection to the bastion")


def test_a_failed_host_does_not_close_the_gateway_of_others(bastion: Sshd, sshd: Sshd) -> None:
    """The others go on through the shared connection."""
    target = behind(bastion, sshd)
    good = connect(target, lock=False, who="test")
    with pytest.raises(Unreachable):
        connect(target._replace(port=1), lock=False, who="test")
    assert good.ask([sh("echo ok")], deadline=10)[0].text == "ok\n"
    good.close()
    wait_for(lambda: connections(bastion) == 0, "no connection to the bastion")


def test_a_dead_gateway_costs_one_time_limit(sshd: Sshd, empty_home: Path) -> None:
    """Twenty hosts wait for one attempt, not one after the other; each is told its own name."""
    with silent() as port:
        (empty_home / ".ssh" / "config").write_text(f"Host bastion\n HostName 127.0.0.1\n Port {port}\n")
        target = sshd.target(proxy_jump="bastion", connect_timeout=1.0)

        def message(number: int) -> str:
            with pytest.raises(Unreachable) as raised:
                connect(target._replace(name=f"web{number}"), lock=False, who="test")
            return str(raised.value)

        started = time.monotonic()
        with ThreadPoolExecutor(20) as pool:
            messages = list(pool.map(message, range(20)))
        assert time.monotonic() - started < 4
    for number, text in enumerate(messages):
        assert text.startswith(f"web{number}: the gateway 127.0.0.1 port {port}: no answer")


def test_a_silent_host_behind_a_gateway_times_out(bastion: Sshd, sshd: Sshd) -> None:
    """connect_timeout counts for the gateway's attempt too, and it is made once."""
    with silent() as port:
        started = time.monotonic()
        with pytest.raises(Unreachable, match=f"the gateway 127.0.0.1 got no answer from 127.0.0.1 port {port}"):
            connect(behind(bastion, sshd, port=port, connect_timeout=1.0), lock=False, who="test")
        assert time.monotonic() - started < 4
    wait_for(lambda: connections(bastion) == 0, "no connection to the bastion")


def test_a_lost_gateway_is_opened_again(bastion: Sshd, sshd: Sshd) -> None:
    """A host that connects after the gateway's connection broke gets a new one."""
    target = behind(bastion, sshd)
    first = connect(target, lock=False, who="test")
    gateway = resolve(target).gateway
    assert isinstance(gateway, HostConnection)
    assert gateway.is_open
    gateway.wire.close()
    wait_for(lambda: not gateway.is_open, "the connection is lost")
    second = connect(target, lock=False, who="test")
    assert second.ask([sh("echo ok")], deadline=10)[0].text == "ok\n"
    first.abort()
    assert second.ask([sh("echo ok")], deadline=10)[0].text == "ok\n"
    second.close()
    wait_for(lambda: connections(bastion) == 0, "no connection to the bastion")
    assert logins(bastion) == 2


def test_the_first_gateway_may_have_a_proxy_command(bastion: Sshd, sshd: Sshd, empty_home: Path) -> None:
    """ProxyCommand of the gateway's own entry in ~/.ssh/config, as ssh uses it."""
    config = empty_home / ".ssh" / "config"
    config.write_text(config.read_text() + f" ProxyCommand {proxy_command(empty_home)}\n")
    session = connect(behind(bastion, sshd), lock=False, who="test")
    assert session.ask([sh("echo ok")], deadline=10)[0].text == "ok\n"
    session.close()
    assert (empty_home / "used").exists()
