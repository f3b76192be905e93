"""The task `firewall`."""

from __future__ import annotations

from collections.abc import Iterator

from provision.inventory import Host
from provision.inventory.tables import firewall as tables
from provision.inventory.tables.apt import Apt
from provision.inventory.tables.gitlab import Gitlab
from provision.inventory.tables.proxy import Proxy
from provision.inventory.tables.registry import Registry
from provision.resources import Firewall, Packages, Resource, Rule
from provision.resources.system.proxy import apt_proxy
from provision.tasks.base import task
from provision.tasks.registry import may_use_acme

_CHALLENGE = 80  # the authority connects to this port. Source: RFC 8555, 8.3


def _is_concerned(host: Host) -> bool:
    """Every GitLab host, because a ufw that is on must allow the registry; runner hosts that have a [firewall]."""
    return "gitlab" in host.groups or ("runners" in host.groups and host.settings.get(tables.Firewall) is not None)


@task(on="all", uses=(tables.Firewall, Apt, Proxy, Gitlab, Registry), where=_is_concerned)
def firewall(host: Host) -> Iterator[Resource]:
    """Allow the ports of SSH, the registry, ACME certificates and the inventory in ufw."""
    wanted = host.settings.get(tables.Firewall) or tables.Firewall()
    rules: list[Rule] = []
    if "gitlab" in host.groups:
        rules += _server_rules(host, wanted)
    rules += [
        Rule(allowed.ports, allowed.protocol or "any", source, "provision")
        for allowed in wanted.allow
        for source in allowed.sources or ("any",)
    ]
    if wanted.enable:
        yield apt_proxy(host.settings)
        yield Packages(("ufw",))
    yield Firewall(rules, enable=wanted.enable)


def _server_rules(host: Host, wanted: tables.Firewall) -> Iterator[Rule]:
    """The ports of the registry, and of a certificate by ACME: 80 for the challenge, and GitLab's own.

    A port that the inventory allows is left to it: `{ port = "443/tcp", from = ["10.0.0.0/8"] }` must not be widened.
    """
    registry, gitlab = host.settings.get(Registry), host.settings.get(Gitlab)
    if registry is not None:
        yield Rule(registry.external_url.port, comment="provision: registry")
    if not may_use_acme(host):
        return
    taken = {registry.external_url.port} if registry is not None else set()
    for port in dict.fromkeys((_CHALLENGE, *([gitlab.external_url.port] if gitlab else []))):
        if port not in taken and not any(one.covers(port) for one in wanted.allow):
            yield Rule(port, comment="provision: certificate")
