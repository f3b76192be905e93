"""The tasks `registry`, on the GitLab host, and `verify`, on the hosts that use the registry."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

from provision.gitlab.access import has_token, required_api
from provision.host.docker import own_token_hosts
from provision.inventory import Host, resolve
from provision.inventory.tables.gitlab import Gitlab
from provision.inventory.tables.projects import Project
from provision.inventory.tables.proxy import Proxy
from provision.inventory.tables.registry import Registry
from provision.inventory.tables.runners import Runner
from provision.resources import (
    ImageCheck,
    Packages,
    ProjectBot,
    RegistryEndpoint,
    RegistryStorage,
    Resource,
    RubySettings,
    S3Bucket,
)
from provision.tasks.base import task
from provision.tasks.certificates import certificate_settings
from provision.tasks.gitlab import listen_settings, realm, reconfigure_handler

_STORAGE = ("registry", "storage")
# The registry refuses two drivers. Source: the distribution registry's configuration, "storage", and GitLab's s3_v2, azure_v2.
_OTHER_DRIVERS = ("filesystem", "s3_v2", "s3aws", "azure", "azure_v2", "gcs", "swift", "oss", "inmemory")


@task(on="gitlab", settings=Registry, uses=(Gitlab, Proxy))
def registry(host: Host, wanted: Registry) -> Iterator[Resource]:
    """Set up the container registry at its URL, with its certificate and storage."""
    yield Packages(("curl", "ca-certificates"))
    absent: tuple[tuple[str, ...], ...] = ()
    settings: dict[tuple[str, ...], Any] = {("registry_external_url",): str(wanted.external_url)}
    settings |= certificate_settings(host)
    settings |= listen_settings(host, wanted.external_url, "registry_nginx", ("registry", "nginx"))
    if wanted.s3 is not None:
        driver = resolve(wanted.s3.parameters)
        yield RegistryStorage(driver, wanted.migrate == "acknowledged")
        if driver.get("accesskey") and driver.get("secretkey"):
            proxy, endpoint = host.settings.get(Proxy), wanted.s3.regionendpoint
            yield S3Bucket(
                driver["bucket"],
                driver["region"],
                endpoint,
                driver["accesskey"],
                driver["secretkey"],
                driver.get("sessiontoken") or "",
                folder=driver.get("rootdirectory") or "",
                path_style=driver.get("pathstyle"),
                checksum_algorithm=""
                if driver.get("checksum_disabled")
                else driver.get("checksum_algorithm") or "CRC64NVME",
                insecure=bool(driver.get("skipverify")),
                **({"part_size": driver["chunksize"]} if "chunksize" in driver else {}),
                proxy=proxy.for_curl(endpoint.scheme if endpoint else "https") if proxy else "",
            )
        # We own the driver, and no other key of storage: maintenance, cache, delete, redirect.
        settings[(*_STORAGE, "s3")] = driver
        if not wanted.redirect:
            settings[(*_STORAGE, "redirect", "disable")] = True
        absent = tuple((*_STORAGE, other) for other in _OTHER_DRIVERS)
    handler = reconfigure_handler(host)
    yield RubySettings(settings, notify=(handler,), absent=absent)
    yield RegistryEndpoint(wanted.external_url, realm(host), handler)


def _can_log_in(host: Host) -> bool:
    wanted = host.settings.get(Registry)
    return wanted is not None and (wanted.login is not None or _project(host) is not None)


def _project(host: Host) -> str | None:
    """The first project that images can be pushed to, if there is a token for its API; None for none."""
    gitlab = host.settings.get(Gitlab)
    if gitlab is None or not has_token(host, gitlab.external_url):
        return None
    found = [path for path, one in host.settings.named(Project).items() if one.registry != "disabled"]
    return found[0] if found else None


@task(on="runners", settings=Registry, uses=(Gitlab, Project, Runner), where=_can_log_in)
def verify(host: Host, wanted: Registry) -> Iterator[Resource]:
    """Verify that this host can push an image to the registry, pull it and delete it."""
    project, login = _project(host), wanted.login
    yield Packages(("curl", "ca-certificates"))
    storage = wanted.s3.parameters if wanted.s3 else {}
    authority = hashlib.sha256(wanted.ca).hexdigest()
    bot = None
    if login is None:
        bot = ProjectBot(required_api(host, "verify"), str(project), f"provision: verify on {host.name}")
    yield ImageCheck(
        wanted.external_url,
        login.username if login else "provision",
        login.password.resolve() if login else None,
        # GitLab's names of images are in lower case, those of projects need not be.
        login.image if login else str(project).lower(),
        f"{wanted.certs_folder}/ca.crt",
        context=f"{storage.get('bucket')} {storage.get('regionendpoint')} {authority}",
        token_hosts=own_token_hosts(host),
        bot=bot,
    )
