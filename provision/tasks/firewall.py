"""The task `firewall`."""

from __future__ import annotations

from collections.abc import Iterator

from provision.inventory import Host
from provision.inventory.tables import firewall as tables
from provision.inventory.tables.apt import Apt
from provision.inventory.tables.proxy import Proxy
from provision.inventory.tables.registry import Registry
from provision.resources import Firewall, Packages, Resource, Rule
from provision.resources.system.proxy import apt_proxy
from provision.tasks.base import task


@task(on="gitlab", settings=tables.Firewall, uses=(Apt, Proxy, Registry))
def firewall(host: Host, wanted: tables.Firewall) -> Iterator[Resource]:
    """Allow the ports of SSH, the registry and the inventory in ufw."""
    registry = host.settings.get(Registry)
    rules = []
    if registry is not None and "gitlab" in host.groups:
        rules.append(Rule(registry.external_url.port, comment="provision: registry"))
    rules += [
        Rule(allowed.ports, allowed.protocol or "any", source, "provision")
        for allowed in wanted.allow
        for source in allowed.sources or ("any",)
    ]
    if wanted.enable:
        yield apt_proxy(host.settings)
        yield Packages(("ufw",))
    yield Firewall(rules, enable=wanted.enable)
