"""Ports that Docker publishes are open whatever ufw says: told with their containers, as long as ufw is on."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest

from provision_lab import LabHost
from provision_lab.trial import Trial
from tests.support.runs import applied, settled, wait_for

NOTE = "Docker publishes ports past ufw, which does not govern them: "
IMAGE = "tar -C / -c bin/busybox | docker import --change 'ENTRYPOINT [\"/bin/busybox\"]' - lab/busybox >/dev/null"
RUN = "docker run -d --name {} {} lab/busybox httpd -f -p 8000"


@pytest.fixture(scope="module")
def trial(trial_factory: Callable[..., Trial]) -> Trial:
    """A GitLab host with Docker, ufw on, and containers of which one is published to the world and one to the host."""
    trial = trial_factory(LabHost("gitlab"))
    trial.inventory["hosts"]["gitlab"]["groups"] = ["gitlab", "runners"]
    applied(trial, "docker", "firewall")
    trial.lab.inside("gitlab", IMAGE)
    trial.lab.inside("gitlab", RUN.format("quiet", ""))
    trial.lab.inside("gitlab", RUN.format("inner", "-p 127.0.0.1:8001:8000 -p '[::1]:8001:8000'"))
    return trial


def test_nothing_is_published(trial: Trial) -> None:
    """A container without ports, and one whose port is bound to the host itself, are no news."""
    assert NOTE not in settled(trial, "firewall").messages()


def test_published_ports_are_told(trial: Trial) -> None:
    """Each with its container, once for IPv4 and IPv6; the port is really open, though no rule lets it in."""
    trial.lab.inside("gitlab", RUN.format("web", "-p 8088:8000 -p 9000-9001:9000-9001/udp"))
    (note,) = [one for one in settled(trial, "firewall").messages().splitlines() if one.startswith(NOTE)]
    assert note.removeprefix(NOTE).startswith(
        "8088/tcp (container web), 9000-9001/udp (container web); bind them to 127.0.0.1"
    )
    address = trial.lab.machine("gitlab").host.address
    wait_for(lambda: is_open(address, 8088), "the container answers")
    assert not is_open(address, 8001)


def is_open(address: str, port: int) -> bool:
    """Whether somebody answers there."""
    try:
        socket.create_connection((address, port), timeout=3).close()
    except OSError:
        return False
    return True


def test_ufw_off_or_docker_off(trial: Trial) -> None:
    """With ufw off every port is open anyway; a Docker that is stopped is not started to be asked."""
    trial.lab.inside("gitlab", "ufw --force disable")
    assert NOTE not in settled(trial, "firewall", changes={"firewall": {"enable": False}}).messages()
    trial.lab.inside("gitlab", "systemctl stop docker")
    applied(trial, "firewall")
    assert NOTE not in settled(trial, "firewall").messages()
    assert trial.lab.inside("gitlab", "systemctl is-active docker || true").strip() == "inactive"
