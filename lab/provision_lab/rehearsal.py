"""Rehearses any inventory in the lab: the hosts that it needs, and an overlay that redirects it to the lab's hosts.

`provision all -i X.toml -i overlay.toml` then does on the lab's hosts what it would do on the real ones, with the same
names, settings and paths. The overlay replaces what leads out of the lab: see `redirect`.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from provision.url import is_ip
from provision_lab.hosts import LabHost, Server
from provision_lab.run import LabError

if TYPE_CHECKING:
    from provision.inventory import Host, Inventory, Settings
    from provision.inventory.tables.registry import Registry
    from provision_lab.lab import Lab
    from provision_lab.redirect import Redirect

_GITLAB = "gitlab"  # the group of hosts that the shipped playbooks install GitLab on


def plan(paths: Sequence[Path], *, ubuntu: bool = False) -> tuple[list[LabHost], Server]:
    """The hosts to boot and what the GitLab host has. Raises InventoryError for an invalid inventory."""
    from provision.engine.catalogue import load_inventory
    from provision.inventory.tables.host import Ssh

    inventory = load_inventory(paths)
    servers = [host for host in inventory.hosts if _GITLAB in host.groups]
    hosts = [
        LabHost(
            host.name,
            ubuntu=ubuntu,
            sshd_port=host.settings[Ssh].port or 22,
            gitlab=host in servers,
            names=() if host.address == host.name or is_ip(host.address) else (host.address,),
        )
        for host in inventory.hosts
    ]
    return hosts, server_of(servers[0].settings) if servers else Server()


def production(paths: Sequence[Path]) -> tuple[str, ...]:
    """The IPv4 addresses of production: of the hosts, and of all names that the settings contain, as far as they resolve.

    Package mirrors, proxies and Docker Hub are left out. Hosts of a lab with internet access must not reach these addresses.
    """
    from provision.engine.catalogue import load_inventory
    from provision_lab.redirect import hosts_named_in

    inventory = load_inventory(paths)
    names = {host.address for host in inventory.hosts}
    for settings in {id(host.settings): host.settings for host in inventory.hosts}.values():
        names |= hosts_named_in(settings)
    with ThreadPoolExecutor(16) as pool:
        found = {address for addresses in pool.map(_resolved, sorted(names)) for address in addresses}
    return tuple(sorted(address for address in found if not ipaddress.ip_address(address).is_loopback))


def _resolved(name: str) -> set[str]:
    try:
        return {str(entry[4][0]) for entry in socket.getaddrinfo(name, None, socket.AF_INET)}
    except (OSError, UnicodeError):
        return set()


def server_of(settings: Settings) -> Server:
    """What the GitLab host must have for these settings to be valid."""
    from provision.inventory.tables.gitlab import Gitlab
    from provision.inventory.tables.registry import Registry

    gitlab, registry = settings.get(Gitlab), settings.get(Registry)
    plain = Server(seeded=not _makes_its_token(settings))
    urls = [table.external_url for table in (gitlab, registry) if table]
    names = [url.host for url in urls if not url.is_ip] or list(plain.names)
    if registry is None:
        return Server(tuple(names), "", "", seeded=plain.seeded)
    certificate, login, s3 = registry.certificate, registry.login, registry.s3
    uploads = certificate is not None and certificate.local_fullchain is not None
    fullchain = (certificate and certificate.fullchain) or f"/etc/gitlab/ssl/{registry.external_url.bracketed_host}.crt"
    key = (certificate and certificate.key) or f"/etc/gitlab/ssl/{registry.external_url.bracketed_host}.key"
    return Server(
        tuple(dict.fromkeys(names)),
        "" if uploads else fullchain,
        "" if uploads else key,
        login.username if login else plain.username,
        login.image if login else plain.project,
        s3.bucket if s3 else plain.bucket,
        s3.region if s3 else plain.region,
        plain.seeded,
    )


def _makes_its_token(settings: Settings) -> bool:
    """Whether the inventory needs nothing of a GitLab that was there before: neither a token nor a registry login."""
    from provision.inventory.tables.gitlab import Gitlab
    from provision.inventory.tables.registry import Registry

    gitlab, registry = settings.get(Gitlab), settings.get(Registry)
    if gitlab is None or not gitlab.install or gitlab.api_token:
        return False
    return registry is None or registry.login is None


def overlay(lab: Lab, paths: Sequence[Path]) -> dict[str, Any]:
    """The tables of the overlay. All are below the inventory's hosts, where they override everything."""
    import tomllib

    from provision.engine.catalogue import load_inventory
    from provision.inventory.ranges import expand
    from provision.inventory.tree import merge, merge_all

    inventory = load_inventory(paths)
    by_name = {host.name: host for host in inventory.hosts}
    machines = {host.name: host for host in lab.hosts}
    keys = lab.host_keys
    redirect = _redirect(lab, inventory)
    hosts = {}
    tree = merge_all(tomllib.loads(path.read_text("utf-8")) for path in paths)
    for key in tree["hosts"]:
        names = expand(key)
        addresses = [machines[name].address for name in names]
        own: dict[str, Any] = {"address": _range(addresses)}
        if len(names) == 1:
            own["host_key"] = keys[names[0]]
        elif by_name[names[0]].host_key:
            raise LabError(
                f"{key}: cannot rehearse one host_key for {len(names)} hosts", hint="give each host a table of its own"
            )
        host = by_name[names[0]]
        tables = merge(redirect.changes(host.settings), _tables(lab, host, machines[host.name]))
        hosts[key] = own | tables
    return {"hosts": hosts}


def _redirect(lab: Lab, inventory: Inventory) -> Redirect:
    from provision.inventory.tables.gitlab import Gitlab
    from provision.inventory.tables.registry import Registry
    from provision_lab.redirect import Redirect

    machines = {host.name: host for host in lab.hosts}
    addresses = {host.address: machines[host.name].address for host in inventory.hosts if is_ip(host.address)}
    names = {name for host in lab.hosts for name in (host.name, *host.names)}
    server = next((host for host in lab.hosts if host.is_gitlab), None)
    if server is not None:
        settings = next(host.settings for host in inventory.hosts if host.name == server.name)
        urls = [table.external_url for table in (settings.get(Gitlab), settings.get(Registry)) if table]
        addresses |= {url.host: server.address for url in urls if url.is_ip}
        names |= {url.host for url in urls} | {server.address}
    return Redirect(lab, addresses, frozenset(name.lower() for name in names), server is not None)


def _range(addresses: list[str]) -> str:
    if len(addresses) == 1:
        return addresses[0]
    network, _, first = addresses[0].rpartition(".")
    return f"{network}.[{first}:{addresses[-1].rpartition('.')[2]}]"


def _tables(lab: Lab, host: Host, machine: LabHost) -> dict[str, Any]:
    from provision.inventory.tables.gitlab import Gitlab
    from provision.inventory.tables.registry import Registry
    from provision.inventory.tree import merge
    from provision_lab.redirect import NOWHERE

    settings = host.settings
    tables: dict[str, Any] = {
        "ssh": {
            "user": lab.user,
            "port": machine.sshd_port,
            "identity_file": str(lab.identity_file),
            "known_hosts": str(lab.known_hosts),
            "proxy_jump": "none",
            "become": True,
        },
    }
    if settings.get(Gitlab):
        tables["gitlab"] = {"api_address": next((one.address for one in lab.hosts if one.is_gitlab), NOWHERE)}
        if not _makes_its_token(settings):
            tables["gitlab"]["api_token"] = lab.secret_source("api_token")
    if not lab.internet:
        tables = merge(tables, _stand_ins(lab, settings, lab.system(machine)))
    if registry := settings.get(Registry):
        tables["registry"] = _registry(lab, registry)
    return tables


def _stand_ins(lab: Lab, settings: Settings, system: str) -> dict[str, Any]:
    """The lab's repositories and its Docker Hub; a pinned version becomes whatever version they have."""
    from provision.inventory.tables.docker import Docker
    from provision.inventory.tables.gitlab import Gitlab
    from provision.inventory.tables.runners import RunnerProgram

    tables: dict[str, Any] = {"apt": lab.mirrors(system)}
    docker, runner, gitlab = settings.get(Docker), settings.get(RunnerProgram), settings.get(Gitlab)
    for name, table in (("docker", docker), ("runner", runner), ("gitlab", gitlab)):
        if table and table.version:
            tables[name] = {"version": "*"}
    if docker:
        tables.setdefault("docker", {})["daemon"] = lab.docker_hub
    if gitlab and gitlab.edition != "ce":
        tables.setdefault("gitlab", {})["edition"] = "ce"
    return tables


def _registry(lab: Lab, registry: Registry) -> dict[str, Any]:
    tables: dict[str, Any] = {"certificate": {"ca": str(lab.ca)}}
    if registry.certificate and registry.certificate.local_fullchain:
        pair = {"local_fullchain": "fullchain.pem", "local_key": "privkey.pem"}
        tables["certificate"] |= {key: str(lab.folder / name) for key, name in pair.items()}
    elif registry.external_url.is_ip and not (registry.certificate and registry.certificate.fullchain):
        # The default path contains the address, which is another one in the lab.
        tables["certificate"] |= {"fullchain": lab.server.fullchain, "key": lab.server.key}
    if registry.s3:
        tables["s3"] = {"regionendpoint": lab.s3_url, "pathstyle": True}
        tables["s3"] |= {
            "accesskey": lab.secret_source("s3_access_key"),
            "secretkey": lab.secret_source("s3_secret_key"),
        }
    if registry.login:
        tables["login"] = {"password": lab.secret_source("registry_password")}
    return tables
