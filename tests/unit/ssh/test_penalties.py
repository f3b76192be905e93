"""Connections that end without a login: how many of them one run makes, and what is reported when sshd penalises them.

OpenSSH 9.8 and newer penalise the address for each one: 1 s, or 5 s after a refused login; once more than 15 s are
outstanding, connections are refused (sshd_config(5), PerSourcePenalties).
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from provision.errors import HostKeyError, Locked, LoginRefused, Unreachable
from provision.shell import sh
from provision.ssh import Target, connect
from tests.support.waiting import wait_for
from tests.unit.ssh.conftest import refusal_of
from tests.unit.ssh.test_connection import listener

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from tests.unit.ssh.conftest import Sshd

Start = Callable[..., "Sshd"]


def log(sshd: Sshd) -> str:
    """What this sshd has logged."""
    return (sshd.folder / "sshd.log").read_text()


def without_login(sshd: Sshd) -> int:
    """How many connections have ended or will end without a login."""
    probe = 1  # `start_sshd` waits until the port accepts a connection
    return log(sshd).count("Connection from ") - log(sshd).count("Accepted publickey") - probe


def unknown(sshd: Sshd) -> Target:
    """A target whose host key is not known."""
    return sshd.target(known_hosts=sshd.folder / "none")


def changed(sshd: Sshd) -> Target:
    """A target that is known by another key."""
    other = (sshd.folder / "user_key.pub").read_text().split()[1]
    return sshd.target(known_hosts=sshd.known(f"{{at}} ssh-ed25519 {other}"))


def pinned(sshd: Sshd) -> Target:
    """A target whose pinned fingerprint belongs to no key of the host: one attempt for each type of key that it has."""
    return sshd.target(host_key="SHA256:" + "A" * 43)


def wrong_key(sshd: Sshd) -> Target:
    """A target that does not accept this key."""
    return sshd.target(identity_file=sshd.folder / "host_ed25519")


@pytest.mark.parametrize(
    ("target", "error", "count"),
    [(unknown, HostKeyError, 1), (changed, HostKeyError, 1), (pinned, HostKeyError, 2), (wrong_key, LoginRefused, 1)],
)
def test_a_refusal_costs_one_connection(
    sshd_factory: Start, target: Callable[[Sshd], Target], error: type[Unreachable], count: int
) -> None:
    """A host key or a login that is refused is not tried again."""
    sshd = sshd_factory("LogLevel VERBOSE")
    wait_for(lambda: without_login(sshd) == 0, "the log of the probe")
    assert refusal_of(error, target(sshd))
    assert without_login(sshd) == count


def test_a_locked_host_costs_none(sshd_factory: Start) -> None:
    """A run that finds the host's lock held has logged in."""
    sshd = sshd_factory("LogLevel VERBOSE")
    first, second = (connect(sshd.target(), lock=True, who="test") for _ in range(2))
    first.ask([sh("true")], deadline=10)
    with pytest.raises(Locked):
        second.ask([sh("true")], deadline=10)
    first.close()
    second.close()
    assert (without_login(sshd), log(sshd).count("Accepted publickey")) == (0, 2)


@pytest.mark.parametrize("failure", ["host key", "login"])
def test_a_gateway_that_refuses_costs_one(sshd_factory: Start, sshd: Sshd, empty_home: Path, failure: str) -> None:
    """All hosts behind it share the refusal, those too that connect later; each is reported with its own name."""
    bastion = sshd_factory("LogLevel VERBOSE")
    key = sshd.folder / "host_ed25519" if failure == "login" else bastion.key
    (empty_home / ".ssh" / "config").write_text(
        f"Host bastion\n HostName 127.0.0.1\n Port {bastion.port}\n User root\n IdentityFile {key}\n"
    )
    known = sshd.known("{at} {key}", *([f"[127.0.0.1]:{bastion.port} {bastion.public()}"] * (failure == "login")))
    target = sshd.target(proxy_jump="bastion", known_hosts=known)
    wait_for(lambda: without_login(bastion) == 0, "the log of the probe")

    def message(number: int) -> str:
        return refusal_of(Unreachable, target._replace(name=f"web{number}"))

    with ThreadPoolExecutor(3) as pool:
        messages = list(pool.map(message, range(12)))
    assert without_login(bastion) == 1
    for number, text in enumerate(messages):
        assert text.startswith(f"web{number}: the gateway 127.0.0.1 port {bastion.port}")


def test_a_penalised_address_is_reported(sshd: Sshd) -> None:
    """sshd's sentence in place of a banner: the error names the setting and what to do."""
    with listener(b"Not allowed at this time\r\n") as (port, _), pytest.raises(Unreachable) as caught:
        connect(sshd.target(port=port), lock=False, who="test")
    assert f"127.0.0.1 port {port} refuses connections from this machine for now" in caught.value.text
    assert "without a login" in caught.value.hint
    for name in ("PerSourcePenalties", "PerSourcePenaltyExemptList", "MaxStartups", "--forks"):
        assert name in caught.value.hint


def test_a_penalty_that_ends_meanwhile_is_no_failure(sshd: Sshd) -> None:
    """A refused connection is not penalised, so it is tried again like any that is dropped before the login."""
    with listener(b"Not allowed at this time\r\n") as (port, calls), suppress(Unreachable):
        connect(sshd.target(port=port), lock=False, who="test")
    assert len(calls) == 3
