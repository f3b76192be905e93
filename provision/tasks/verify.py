"""The task `verify`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from provision.host.image_registry import own_token_hosts
from provision.inventory import Host
from provision.inventory.tables.gitlab import Gitlab
from provision.inventory.tables.registry import Registry
from provision.resources import ImageCheck, Packages, Resource
from provision.tasks.base import task


def _has_login(host: Host) -> bool:
    wanted = host.settings.get(Registry)
    return wanted is not None and wanted.login is not None


@task(on="runners", settings=Registry, uses=(Gitlab,), where=_has_login)
def verify(host: Host, wanted: Registry) -> Iterator[Resource]:
    """Verify that this host can push an image to the registry, pull it and delete it."""
    if wanted.login is None:
        return
    yield Packages(("curl", "ca-certificates"))
    storage = wanted.s3.parameters if wanted.s3 else {}
    authority = hashlib.sha256(wanted.ca).hexdigest()
    yield ImageCheck(
        wanted.external_url,
        wanted.login.username,
        wanted.login.password.resolve(),
        wanted.login.image,
        f"{wanted.certs_folder}/ca.crt",
        context=f"{storage.get('bucket')} {storage.get('regionendpoint')} {authority}",
        token_hosts=own_token_hosts(host),
    )
