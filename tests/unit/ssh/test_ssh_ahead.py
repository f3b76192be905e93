"""Dialling ahead: only where the way is certain, and never twice."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from provision.errors import Unreachable
from provision.ssh import Target
from provision.ssh.ahead import dial_ahead


@pytest.fixture
def port() -> Iterator[int]:
    """Of somebody who listens here."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_the_connection_is_handed_out_once(port: int) -> None:
    """A second try dials anew."""
    ahead = dial_ahead(Target("web1", "127.0.0.1", port=port))
    assert ahead is not None
    wire = ahead.take("127.0.0.1", port)
    assert wire is not None
    assert wire.traffic.round_trips == 1
    assert ahead.take("127.0.0.1", port) is None
    wire.close()


def test_a_connection_to_somewhere_else_is_closed(port: int) -> None:
    """The address turned out to be another one."""
    ahead = dial_ahead(Target("web1", "127.0.0.1", port=port))
    assert ahead is not None
    assert ahead.take("127.0.0.2", port) is None
    assert ahead.take("127.0.0.1", port) is None


def test_a_host_that_does_not_answer_is_told_when_it_is_asked_for(port: int) -> None:
    """In the same words as without it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        free = server.getsockname()[1]
    ahead = dial_ahead(Target("web1", "127.0.0.1", port=free))
    assert ahead is not None
    assert ahead.take("127.0.0.1", port) is None
    ahead = dial_ahead(Target("web1", "127.0.0.1", port=free))
    assert ahead is not None
    with pytest.raises(Unreachable, match=rf"web1 \(127.0.0.1 port {free}\): port {free} of .* refused the connection"):
        ahead.take("127.0.0.1", free)


@pytest.mark.parametrize(
    "line",
    ["HostName 198.51.100.1", "  port=2222", "ProxyJump bastion", 'Match exec "true"', "CanonicalizeHostname yes"],
)
def test_where_ssh_config_may_say_the_way_nothing_is_dialled(no_user_configuration: Path, port: int, line: str) -> None:
    """Whichever host the line is for."""
    (no_user_configuration / ".ssh" / "config").write_text(f"Host other\n{line}\n")
    assert dial_ahead(Target("web1", "127.0.0.1", port=port)) is None


def test_through_a_gateway_nothing_is_dialled(port: int) -> None:
    """The host may be out of reach from here."""
    assert dial_ahead(Target("web1", "127.0.0.1", port=port, proxy_jump="bastion")) is None


def test_other_settings_do_not_matter(no_user_configuration: Path, port: int) -> None:
    """A user's name says nothing of the way."""
    (no_user_configuration / ".ssh" / "config").write_text("Host *\n  User me\n  ServerAliveInterval 5\n")
    ahead = dial_ahead(Target("web1", "127.0.0.1", port=port))
    assert ahead is not None
    wire = ahead.take("127.0.0.1", port)
    assert wire is not None
    wire.close()
