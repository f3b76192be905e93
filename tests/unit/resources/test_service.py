"""`Service` and `GroupMember`: bare, half done, converged, broken."""

from __future__ import annotations

import pytest

from provision.errors import ProbeFailed, Refused
from provision.resources import GroupMember, Result, Service
from provision.shell import sh
from provision.testing import observe, planned

DOCKER = Service("docker")
START = sh("systemctl reset-failed -- docker 2>/dev/null; systemctl start -- docker")


def unit(active: str, file: str, load: str = "loaded") -> str:
    """What `systemctl show` prints, in an order of its own."""
    return f"UnitFileState={file}\nLoadState={load}\nActiveState={active}\n"


@pytest.mark.parametrize(
    ("active", "file", "summaries"),
    [
        ("active", "enabled", []),
        ("reloading", "static", []),
        ("active", "generated", []),
        ("active", "enabled-runtime", []),
        ("active", "disabled", ["enable docker at boot"]),
        ("active", "masked", ["enable docker at boot"]),
        ("inactive", "enabled", ["start docker"]),
        ("failed", "enabled", ["start docker"]),
        ("activating", "enabled", ["start docker"]),
        ("inactive", "disabled", ["enable docker at boot", "start docker"]),
        ("inactive", "", ["enable docker at boot", "start docker"]),
    ],
)
def test_service(active: str, file: str, summaries: list[str]) -> None:
    """Each state of a unit, and what it takes."""
    changes = planned(DOCKER, observe(DOCKER, unit(active, file)))
    assert [one.summary for one in changes] == summaries
    commands = {"enable docker at boot": sh("systemctl enable -- docker"), "start docker": START}
    assert [one.run for one in changes] == [commands[one] for one in summaries]


@pytest.mark.parametrize(
    ("service", "summaries"),
    [
        (Service("docker", running=False), ["enable docker at boot"]),
        (Service("docker", enabled=False), ["start docker"]),
        (Service("docker", running=False, enabled=False), []),
    ],
)
def test_only_what_is_wanted(service: Service, summaries: list[str]) -> None:
    """Running and starting at boot are asked for apart."""
    assert [one.summary for one in planned(service, observe(service, unit("inactive", "disabled")))] == summaries


def test_no_systemd() -> None:
    """Broken: what does not answer is not taken for stopped."""
    seen = observe(DOCKER, Result(b"", b"System has not been booted with systemd\n", 1))
    with pytest.raises(ProbeFailed, match="does not answer for docker: System has not been booted"):
        planned(DOCKER, seen)


def test_a_unit_that_looks_like_an_option_is_an_argument() -> None:
    """Names are quoted, and stand behind `--` where something is changed."""
    odd = Service("-x; reboot")
    (change,) = planned(odd, observe(odd, unit("active", "disabled")))
    assert change.run == sh("systemctl enable -- %s", "-x; reboot")


MEMBER = GroupMember("ubuntu", "docker")


@pytest.mark.parametrize(
    ("groups", "summaries"), [("ubuntu adm docker\n", []), ("ubuntu adm\n", ["add"]), ("docker2 dock\n", ["add"])]
)
def test_group_member(groups: str, summaries: list[str]) -> None:
    """Whole names of groups are compared; other groups are kept."""
    changes = planned(MEMBER, observe(MEMBER, groups))
    assert [one.summary for one in changes] == [f"{one} ubuntu to group docker" for one in summaries]
    assert [one.run for one in changes] == [sh("usermod -aG docker -- ubuntu")] * len(summaries)


def test_a_user_that_is_not_there_is_refused() -> None:
    """Nobody is created by the way."""
    with pytest.raises(Refused, match="user 'ubuntu' does not exist on the host"):
        planned(MEMBER, observe(MEMBER, Result(b"", b"id: 'ubuntu': no such user\n", 1)))
