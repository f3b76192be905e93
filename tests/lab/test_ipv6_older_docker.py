"""Hosts of Debian 12 with IPv6 addresses only: Docker 20.10 refuses an IPv6 address in image names, so the registry has a name.

They also show that `--suite bookworm` works. Docker 26 takes such names: test_bare_hosts.py.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from provision_lab import LabHost
from provision_lab.harness import Harness
from provision_lab.image import Image
from tests.support.runs import applied, refused, unchanged, without_s3

BOTH = ["*", "[::]"]  # nginx listens on IPv4 only by default


@pytest.fixture(scope="module")
def by_name(harness_factory: Callable[..., Harness]) -> Harness:
    """Hosts that are found by name."""
    harness = without_s3(harness_factory(LabHost("gitlab"), LabHost("runner-1"), ipv6=True, image=Image("bookworm")))
    harness.inventory["gitlab"]["settings"]["nginx"]["listen_addresses"] = BOTH
    harness.inventory["gitlab"]["settings"]["registry_nginx"] = {"listen_addresses": BOTH}
    return harness


def test_by_name_with_an_older_docker(by_name: Harness) -> None:
    """The name has an IPv6 address only. nginx's settings are those of the inventory."""
    assert by_name.host("gitlab").check_output("getent ahostsv4 gitlab.lab.test || :") == ""
    done = applied(by_name, "all")
    assert [one for one in done.of("message", task="verify") if "pull" in one["text"]]
    unchanged(by_name, "all")


def test_an_older_docker_refuses_the_address(by_name: Harness) -> None:
    """In image names; `verify` says so, and what to do."""
    url = f"https://[{by_name.lab.machine('gitlab').host.address}]:5555"
    done = refused(by_name, "docker", "verify", changes={"registry": {"external_url": url}})
    (error,) = done.of("error", task="verify")
    assert "Docker 20.10.24" in error["text"]
    assert "refuses image names with an IPv6 address" in error["text"]
    assert "give the registry a DNS name (registry.external_url)" in error["text"]
