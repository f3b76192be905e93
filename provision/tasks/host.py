"""The tasks `firewall` and `docker`: what a host has before GitLab and its runners."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from provision.host import releases
from provision.host.docker import start_runner, wait_for_ci_jobs
from provision.host.scripts import body
from provision.inventory import Host, resolve
from provision.inventory.tables import firewall as tables
from provision.inventory.tables.apt import DOCKER_KEY, Apt
from provision.inventory.tables.base import local_certificates, local_file
from provision.inventory.tables.docker import Docker, RegistryTrust
from provision.inventory.tables.gitlab import Gitlab
from provision.inventory.tables.proxy import Proxy
from provision.inventory.tables.registry import Registry
from provision.resources import (
    AptSource,
    File,
    Firewall,
    GroupMember,
    JsonSettings,
    Packages,
    Resource,
    Rule,
    Service,
    TrustedCa,
)
from provision.resources.docker import DAEMON_JSON, RELOAD, RELOADED, ROLLBACK, restart
from provision.resources.system.proxy import apt_proxy, service_proxy
from provision.secret import Secret
from provision.tasks.base import task
from provision.tasks.registry import may_use_acme

_CHALLENGE = 80  # the authority connects to this port. Source: RFC 8555, 8.3
_URL = "https://download.docker.com/linux/{id}"
_PACKAGES = ("docker-ce", "docker-ce-cli", "containerd.io", "docker-buildx-plugin", "docker-compose-plugin")
# Only these two have Docker's own version number; the others have numbers of their own.
_VERSIONED = ("docker-ce", "docker-ce-cli")
# docker-buildx and docker-compose of the distributions have files with the names of Docker's plug-ins, but do not say so.
_CONFLICTING = (
    "docker.io",
    "docker-cli",
    "docker-buildx",
    "docker-compose",
    "docker-compose-v2",
    "docker-doc",
    "podman-docker",
    "containerd",
    "runc",
)


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


@task(on="runners", settings=Docker, uses=(Apt, Proxy, Registry))
def docker(host: Host, wanted: Docker) -> Iterator[Resource]:
    """Install Docker Engine and start it; configure its daemon, users and trusted registries."""
    at_once = wanted.restart == "now"
    # Replacing Docker restarts it, and a restart ends running jobs.
    first, last = ("", "") if at_once else (wait_for_ci_jobs(), start_runner())
    yield apt_proxy(host.settings)
    if wanted.source == "docker.com":
        mirror = host.settings[Apt].docker
        yield AptSource.published("docker", mirror, _URL, DOCKER_KEY, releases.DOCKER, component="stable")
        yield Packages(
            _PACKAGES,
            version=wanted.version or "",
            versioned=_VERSIONED,
            hold=bool(wanted.version),
            conflicting=_CONFLICTING,
            downgrade=True,
            first=first,
            last=last,
        )
    else:
        from provision.resources.docker import DistributionDocker  # not every inventory wants it

        yield DistributionDocker(
            ("docker.io",),
            version=wanted.version or "",
            hold=bool(wanted.version),
            conflicting=_PACKAGES,
            downgrade=True,
            first=first,
            last=last,
        )
    yield from service_proxy("docker", host.settings.get(Proxy), restart(now=at_once))
    yield JsonSettings(
        DAEMON_JSON,
        resolve(wanted.daemon or {}),
        check=body("check_daemon_json"),
        notify=(restart(now=at_once),),
        rollback=ROLLBACK,
        reload=RELOAD,
        reloaded=RELOADED,
    )
    if wanted.buildkit is not None:
        yield File("/etc/buildkit/buildkitd.toml", _toml(resolve(wanted.buildkit)))
    registry = host.settings.get(Registry)
    ca = registry.ca if registry else b""
    if registry and ca:
        yield Packages(("ca-certificates",))
        yield File(f"{registry.certs_folder}/ca.crt", ca)
    yield TrustedCa("registry", ca)
    for name, trust in wanted.registries.items():
        yield from _trusted(name, trust)
    yield Service("docker")
    for user in wanted.users:
        yield GroupMember(user, "docker")


def _trusted(name: str, trust: RegistryTrust) -> Iterator[Resource]:
    folder, key = f"/etc/docker/certs.d/{name}", f'docker.registries."{name}"'
    if trust.ca:
        yield File(f"{folder}/ca.crt", local_certificates(trust.ca, f"{key}.ca"))
    if trust.cert and trust.key:
        yield File(f"{folder}/client.cert", local_certificates(trust.cert, f"{key}.cert"))
        private = Secret(local_file(trust.key, f"{key}.key").decode())
        yield File(f"{folder}/client.key", private, mode="0600")


def _toml(table: dict[str, Any]) -> str:
    import tomlkit  # few inventories configure BuildKit

    return tomlkit.dumps(table)
