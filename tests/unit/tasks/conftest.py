"""The resources of a task, by inventory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from provision.engine.catalogue import load_inventory as load
from provision.resources import Packages, Resource
from provision.resources.system.proxy import ProxyFile
from provision.tasks import SHIPPED
from provision_lab.standins.gitlab_ce.loopback import serve as gitlab
from tests.support.estate import SEED, Estate

ESTATE = """
[hosts.gitlab]
address = "203.0.113.10"
groups = ["gitlab"]
[hosts.runner-1]
groups = ["runners"]
[gitlab]
external_url = "https://gitlab.example.com"
"""
_TOOLS = (("curl", "ca-certificates"), ("curl", "openssl"), ("ca-certificates",))
Wants = Callable[..., Any]


def is_tool(one: Resource) -> bool:
    """Whether it is a program that a task installs for itself, or removes a proxy."""
    if isinstance(one, ProxyFile):
        return one.content is None
    return isinstance(one, Packages) and one.names in _TOOLS


@pytest.fixture
def wants(tmp_path: Path) -> Wants:
    """`wants("docker", toml)` → the resources of a task, on the first host of its group that it concerns, or on `host`.

    The programs that a task installs for itself are left out, and what removes a proxy, unless `tools` is set.
    """
    tasks = {one.name: one for one in SHIPPED}

    def resources(
        name: str, text: str = "", base: str = ESTATE, tools: bool = False, host: str = ""
    ) -> tuple[Resource, ...]:
        file = tmp_path / "inventory.toml"
        file.write_text(base + text)
        file.chmod(0o600)
        inventory = load((file,), ())
        task = tasks[name]
        hosts = [one for one in inventory.hosts if task.on in (*one.groups, "all") and one.name.startswith(host)]
        found = task.resources(next((one for one in hosts if task.concerns(one)), hosts[0]))
        return tuple(one for one in found if tools or not is_tool(one))

    return resources


@pytest.fixture
def estate(tmp_path: Path, serve: Callable[..., Any]) -> Iterator[Estate]:
    """GitLab on loopback, and a host with a state.json."""
    (tmp_path / "gitlab").mkdir()
    with gitlab(tmp_path / "gitlab", SEED) as behind:
        yield Estate(tmp_path, behind, serve)
