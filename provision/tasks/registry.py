"""The task `registry`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from provision.inventory import Host, resolve
from provision.inventory.tables.gitlab import Gitlab
from provision.inventory.tables.registry import Registry
from provision.resources import Packages, RegistryEndpoint, RegistryStorage, Resource, RubySettings, S3Bucket
from provision.tasks.base import task
from provision.tasks.certificates import certificate_settings
from provision.tasks.gitlab import listen_settings, realm, reconfigure_handler


@task(on="gitlab", settings=Registry, uses=(Gitlab,))
def registry(host: Host, wanted: Registry) -> Iterator[Resource]:
    """Set up the container registry at its URL, with its certificate and storage."""
    yield Packages(("curl", "ca-certificates"))
    settings: dict[tuple[str, ...], Any] = {("registry_external_url",): str(wanted.external_url)}
    settings |= certificate_settings(host)
    settings |= listen_settings(host, wanted.external_url, "registry_nginx", ("registry", "nginx"))
    if wanted.s3 is not None:
        driver = resolve(wanted.s3.parameters)
        yield RegistryStorage(driver, wanted.migrate == "acknowledged")
        if driver.get("accesskey") and driver.get("secretkey"):
            yield S3Bucket(
                driver["bucket"],
                driver["region"],
                wanted.s3.regionendpoint,
                driver["accesskey"],
                driver["secretkey"],
                driver.get("sessiontoken") or "",
            )
        storage: dict[str, Any] = {"s3": driver}
        if not wanted.redirect:
            storage["redirect"] = {"disable": True}
        settings[("registry", "storage")] = storage
    handler = reconfigure_handler(host)
    yield RubySettings(settings, notify=(handler,))
    yield RegistryEndpoint(wanted.external_url, realm(host), handler)
