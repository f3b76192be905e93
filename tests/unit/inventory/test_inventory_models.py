"""What the tables offer to tasks beside their fields."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from provision.inventory import Inventory, Tables
from provision.inventory.tables.firewall import Allow
from provision.inventory.tables.registry import Registry
from provision.inventory.tables.runners import Runner, RunnerProgram

URLS = [
    ("https://g.example.com:5555", "g.example.com", 5555, "g.example.com:5555"),
    ("https://g.example.com", "g.example.com", 443, "g.example.com"),
    ("https://g.example.com:443/", "g.example.com", 443, "g.example.com"),
    ("http://g.example.com", "g.example.com", 80, "g.example.com"),
    ("https://[2001:db8::1]:5555", "2001:db8::1", 5555, "[2001:db8::1]:5555"),
    ("https://[2001:db8::1]", "2001:db8::1", 443, "[2001:db8::1]"),
]


@pytest.mark.parametrize(("url", "host", "port", "name"), URLS)
def test_registry_address(url: str, host: str, port: int, name: str) -> None:
    """Host, port, and the name in image references and in the path of certs.d."""
    registry = Tables([Registry]).settings({"registry": {"external_url": url}})[0].get(Registry)
    assert registry is not None
    parsed = registry.external_url
    assert (parsed.host, parsed.port, parsed.authority) == (host, port, name)
    assert registry.certs_folder == f"/etc/docker/certs.d/{name}"
    assert not str(parsed).endswith("/")


ALLOWED = [
    ("80/tcp", Allow("80", "tcp"), "80/tcp"),
    ("53", Allow("53"), "53"),
    (53, Allow("53"), "53"),
    ("6000:6007/udp", Allow("6000:6007", "udp"), "6000:6007/udp"),
    ({"port": 9100, "from": ["10.0.0.0/8", "::1"]}, Allow("9100", None, ("10.0.0.0/8", "::1/128")), "9100"),
    ({"port": "9/tcp", "from": "10.0.0.1"}, Allow("9", "tcp", ("10.0.0.1/32",)), "9/tcp"),
]


@pytest.mark.parametrize(("written", "allow", "text"), ALLOWED)
def test_allow(written: object, allow: Allow, text: str) -> None:
    """An entry of firewall.allow is parsed into ports, protocol and sources, and printed as ufw writes it."""
    parsed = Allow.parse(written)
    assert parsed == allow
    assert str(parsed) == text


def test_runner_config_has_the_files_own_keys(estate: Callable[..., Inventory]) -> None:
    """`config` has the keys of config.toml, and none of the registration."""
    settings = (
        estate(
            "[runner]\nversion='19.3.0'\nconcurrent=4\nlog_level='warn'\n"
            "[[runners]]\nname='r'\nexecutor='docker'\ntoken={env='T'}\ntags=['docker']\nlocked=true\nenvironment=['A=b']\n"
            "tls-ca-file='/ca'\n[runners.docker]\nprivileged=true\nimage='docker:28'\n"
        )
        .hosts[0]
        .settings
    )
    assert settings[RunnerProgram].config == {"concurrent": 4, "log_level": "warn"}
    (runner,) = settings.all(Runner)
    assert runner.config == {
        "name": "r",
        "executor": "docker",
        "tls-ca-file": "/ca",
        "environment": ["A=b"],
        "docker": {"privileged": True, "image": "docker:28"},
    }
    assert list(runner.config["docker"]) == ["privileged", "image"], "as the user wrote it"
    assert (runner.tags, runner.locked, runner.paused, runner.scope) == (("docker",), True, None, "instance_type")


SCOPES = [
    ({}, "instance_type"),
    ({"project": "a/b"}, "project_type"),
    ({"group": 7}, "group_type"),
    ({"group": 7, "runner_type": "group_type"}, "group_type"),
]


@pytest.mark.parametrize(("keys", "scope"), SCOPES)
def test_runner_scope(keys: dict[str, object], scope: str) -> None:
    """The runner's type follows from project and group."""
    tree = {"runners": [{"name": "r", "executor": "shell", **keys}]}
    settings, problems = Tables([Runner]).settings(tree)
    assert ([one.scope for one in settings.all(Runner)], problems) == ([scope], [])


def test_s3_parameters(estate: Callable[..., Inventory]) -> None:
    """The driver gets the given keys, without defaults."""
    registry = (
        estate(
            "[registry]\nexternal_url='https://g'\n[registry.s3]\nregion='r'\nbucket='b'\npathstyle=true\nsecretkey={env='S'}\n"
            "accesskey={env='A'}\n"
        )
        .hosts[0]
        .settings.get(Registry)
    )
    assert registry is not None
    assert registry.s3 is not None
    assert list(registry.s3.parameters) == ["bucket", "region", "accesskey", "secretkey", "pathstyle"]
