"""Ports that Docker publishes are open whatever ufw says: told with their containers, as long as ufw is on."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest

from provision_lab import LabHost
from provision_lab.harness import Harness
from tests.support.runs import applied, settled, wait_for

NOTE = "Docker publishes ports that ufw does not filter: "
IMAGE = "tar -C / -c bin/busybox | docker import --change 'ENTRYPOINT [\"/bin/busybox\"]' - lab/busybox >/dev/null"
RUN = "docker run -d --name {} {} lab/busybox httpd -f -p 8000"


@pytest.fixture(scope="module")
def harness(harness_factory: Callable[..., Harness]) -> Harness:
    """A GitLab host with Docker, ufw on, and containers of which one is published to the world and one to the host."""
    harness = harness_factory(LabHost("gitlab"))
    harness.inventory["hosts"]["gitlab"]["groups"] = ["gitlab", "runners"]
    applied(harness, "docker", "firewall")
    harness.lab.inside("gitlab", IMAGE)
    harness.lab.inside("gitlab", RUN.format("quiet", ""))
    harness.lab.inside("gitlab", RUN.format("inner", "-p 127.0.0.1:8001:8000 -p '[::1]:8001:8000'"))
    return harness


def test_nothing_is_published(harness: Harness) -> None:
    """A container without ports, and one whose port is bound to the host itself, are no news."""
    assert NOTE not in settled(harness, "firewall").messages()


def test_published_ports_are_told(harness: Harness) -> None:
    """Each with its container, once for IPv4 and IPv6; the port is really open, though no rule lets it in."""
    harness.lab.inside("gitlab", RUN.format("web", "-p 8088:8000 -p 9000-9001:9000-9001/udp"))
    (note,) = [one for one in settled(harness, "firewall").messages().splitlines() if one.startswith(NOTE)]
    assert note.removeprefix(NOTE).startswith(
        "8088/tcp (container web), 9000-9001/udp (container web); bind them to 127.0.0.1"
    )
    address = harness.lab.machine("gitlab").host.address
    wait_for(lambda: is_open(address, 8088), "the container answers")
    assert not is_open(address, 8001)


def is_open(address: str, port: int) -> bool:
    """Whether somebody answers there."""
    try:
        socket.create_connection((address, port), timeout=3).close()
    except OSError:
        return False
    return True


def test_ufw_off_or_docker_off(harness: Harness) -> None:
    """With ufw off every port is open anyway; a Docker that is stopped is not started to be asked."""
    harness.lab.inside("gitlab", "ufw --force disable")
    assert NOTE not in settled(harness, "firewall", changes={"firewall": {"enable": False}}).messages()
    harness.lab.inside("gitlab", "systemctl stop docker")
    applied(harness, "firewall")
    assert NOTE not in settled(harness, "firewall").messages()
    assert harness.lab.inside("gitlab", "systemctl is-active docker || true").strip() == "inactive"
