"""The task `verify`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from provision.resources import ImageCheck, Resource
from provision.tasks.base import Host, task


@task(on="runners")
def verify(host: Host) -> Iterator[Resource]:
    """An image can be pushed to the registry and pulled from it, from here."""
    registry = host.settings.registry
    if registry is None or registry.login is None:
        return
    login = registry.login
    storage = registry.s3.parameters if registry.s3 else {}
    context = f"{storage.get('bucket')} {storage.get('regionendpoint')} {hashlib.sha256(registry.ca).hexdigest()}"
    yield ImageCheck(
        registry.external_url,
        login.username,
        login.password.resolve(),
        login.image,
        f"{registry.certs_folder}/ca.crt",
        context=context,
    )
