"""The task `registry`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from provision.inventory import resolve
from provision.resources import RegistryEndpoint, RegistryStorage, Resource, RubySettings, S3Bucket
from provision.tasks.base import Host, task
from provision.tasks.certificates import certificate_settings
from provision.tasks.gitlab import owed, realm


@task(on="gitlab")
def registry(host: Host) -> Iterator[Resource]:
    """The container registry is served at its URL, with its certificate and its storage."""
    wanted = host.settings.registry
    if wanted is None:
        return
    settings: dict[tuple[str, ...], Any] = {("registry_external_url",): str(wanted.external_url)}
    settings |= certificate_settings(host)
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
    yield RubySettings(settings, notify=(owed(host),))
    yield RegistryEndpoint(wanted.external_url, realm(host), owed(host))
