"""The task `firewall`."""

from __future__ import annotations

from collections.abc import Iterator

from provision.resources import Firewall, Packages, Resource, Rule
from provision.tasks.base import Host, task


@task(on="gitlab")
def firewall(host: Host) -> Iterator[Resource]:
    """ufw lets in SSH's own port, the registry's and the allowed ones."""
    wanted = host.settings.firewall
    rules: dict[Rule, str] = {}
    registry = host.settings.registry
    if registry is not None and "gitlab" in host.groups:
        rules[Rule(str(registry.external_url.port))] = "provision: registry"
    for allowed in wanted.allow:
        for source in allowed.sources or ("any",):
            rules.setdefault(Rule(allowed.ports, allowed.protocol or "any", _as_ufw(source)), "provision")
    if wanted.enable:
        yield Packages(("ufw",))
    yield Firewall(tuple(rules.items()), enable=wanted.enable)


def _as_ufw(source: str) -> str:
    """ufw drops the length of a single address's network."""
    return source.removesuffix("/128" if ":" in source else "/32")
