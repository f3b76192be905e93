"""The task `docker`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from provision.errors import UsageError
from provision.host.docker import wait_for_ci_jobs
from provision.host.scripts import body
from provision.inventory import resolve
from provision.inventory.tables.docker import RegistryTrust
from provision.resources import AptSource, File, GroupMember, JsonSettings, Packages, Resource, Service, TrustedCa
from provision.resources.docker.daemon import DAEMON_JSON, RELOAD, RELOADED, ROLLBACK, restart
from provision.secret import Secret
from provision.tasks.apt import address, key_text
from provision.tasks.base import Host, task

_URL = "https://download.docker.com/linux/{id}"
_PACKAGES = ("docker-ce", "docker-ce-cli", "containerd.io", "docker-buildx-plugin", "docker-compose-plugin")
# Only these two carry Docker's own version number; the others have numbers of their own.
_VERSIONED = ("docker-ce", "docker-ce-cli")
_CONFLICTING = (
    "docker.io",
    "docker-compose",
    "docker-compose-v2",
    "docker-doc",
    "podman-docker",
    "containerd",
    "runc",
)


@task(on="runners")
def docker(host: Host) -> Iterator[Resource]:
    """Docker Engine runs, starts at boot, and trusts our registry."""
    wanted = host.settings.docker
    at_once = wanted.restart == "now"
    # Replacing Docker restarts it, and a restart ends the jobs that run.
    first = "" if at_once else wait_for_ci_jobs()
    if wanted.source == "docker.com":
        mirror = host.settings.apt.docker
        yield AptSource(
            "docker",
            uri=address(mirror, _URL),
            suite=(mirror.suite if mirror else "") or "{codename}",
            component="stable",
            key=key_text(mirror),
            key_url=f"{_URL}/gpg",
        )
        yield Packages(
            _PACKAGES,
            version=wanted.version or "",
            versioned=_VERSIONED,
            hold=bool(wanted.version),
            conflicting=_CONFLICTING,
            downgrade=True,
            first=first,
        )
    else:
        yield Packages(
            ("docker.io",),
            version=wanted.version or "",
            hold=bool(wanted.version),
            conflicting=_PACKAGES,
            downgrade=True,
            first=first,
        )
    daemon = resolve(wanted.daemon or {})
    yield JsonSettings(
        DAEMON_JSON,
        daemon,
        check=body("check_daemon_json"),
        notify=(restart(now=at_once),),
        rollback=ROLLBACK,
        reload=RELOAD,
        reloaded=RELOADED,
    )
    if wanted.buildkit is not None:
        yield File("/etc/buildkit/buildkitd.toml", _toml(resolve(wanted.buildkit)))
    registry = host.settings.registry
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
    folder = f"/etc/docker/certs.d/{name}"
    if trust.ca:
        yield File(f"{folder}/ca.crt", _read(trust.ca))
    if trust.cert and trust.key:
        yield File(f"{folder}/client.cert", _read(trust.cert))
        yield File(f"{folder}/client.key", Secret(_read(trust.key).decode()), mode="0600")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"docker.registries: {error}", hint="ca, cert and key are files on this machine") from error


def _toml(table: dict[str, Any]) -> str:
    import tomlkit  # few inventories say anything of BuildKit

    return tomlkit.dumps(table)
