"""Ports that Docker publishes are open in spite of ufw: reported with their containers while ufw is enabled."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest

from provision_lab import LabHost
from provision_lab.harness import Harness
from tests.support.runs import applied, unchanged
from tests.support.waiting import wait_for

NOTE = "Docker publishes ports that ufw does not filter: "
IMAGE = "tar -C / -c bin/busybox | docker import --change 'ENTRYPOINT [\"/bin/busybox\"]' - lab/busybox >/dev/null"
RUN = "docker run -d --name {} {} lab/busybox httpd -f -p 8000"


@pytest.fixture(scope="module")
def harness(harness_factory: Callable[..., Harness]) -> Harness:
    """A GitLab host with Docker, ufw enabled, and containers: one published to the world, one to the host."""
    harness = harness_factory(LabHost("gitlab", prepared="runner"))
    harness.inventory["hosts"]["gitlab"]["groups"] = ["gitlab", "runners"]
    applied(harness, "firewall")
    harness.lab.inside("gitlab", IMAGE)
    harness.lab.inside("gitlab", RUN.format("quiet", ""))
    harness.lab.inside("gitlab", RUN.format("inner", "-p 127.0.0.1:8001:8000 -p '[::1]:8001:8000'"))
    return harness


def test_nothing_is_published(harness: Harness) -> None:
    """A container without ports, and one whose port is bound to the host itself, are not reported."""
    assert NOTE not in unchanged(harness, "firewall").messages()


def test_published_ports_are_reported(harness: Harness) -> None:
    """Each with its container, once for IPv4 and IPv6; the port is open, although no rule allows it."""
    harness.lab.inside("gitlab", RUN.format("web", "-p 8088:8000 -p 9000-9001:9000-9001/udp"))
    (note,) = [one for one in unchanged(harness, "firewall").messages().splitlines() if one.startswith(NOTE)]
    assert note.removeprefix(NOTE).startswith(
        "8088/tcp (container web), 9000-9001/udp (container web); bind them to 127.0.0.1"
    )
    address = harness.lab.machine("gitlab").host.address
    wait_for(lambda: is_open(address, 8088), "the container answers")
    assert not is_open(address, 8001)


def is_open(address: str, port: int) -> bool:
    """Whether the port answers."""
    try:
        socket.create_connection((address, port), timeout=3).close()
    except OSError:
        return False
    return True


def test_ufw_or_docker_disabled(harness: Harness) -> None:
    """Not reported with ufw disabled; a stopped Docker is not started for it."""
    harness.lab.inside("gitlab", "ufw --force disable")
    assert (
        NOTE
        not in unchanged(harness, "firewall", changes={"hosts": {"gitlab": {"firewall": {"enable": False}}}}).messages()
    )
    harness.lab.inside("gitlab", "systemctl stop docker")
    applied(harness, "firewall")
    assert NOTE not in unchanged(harness, "firewall").messages()
    assert harness.lab.inside("gitlab", "systemctl is-active docker || true").strip() == "inactive"
