"""In which registry an image of the inventory is, and how a host logs in there."""

from __future__ import annotations

from provision.errors import UsageError
from provision.host import docker
from provision.host.docker import api_url
from provision.image_name import HUB, Reference
from provision.inventory import Host
from provision.inventory.tables.images import RegistryLogin
from provision.inventory.tables.registry import Registry
from provision.secret import Secret
from provision.url import Url


def full_reference(host: Host, reference: Reference, what: str, *, required: bool) -> Reference:
    """The reference, in the estate's own registry where it names none.

    Raises UsageError, about `what`, when a registry is `required` and there is none.
    """
    own = _own(host)
    if required and not reference.domain and own is None:
        raise UsageError(
            f"{what}: {reference} names no registry, and the inventory has none",
            hint=f'give [registry], or write "docker.io/USER/NAME" or "HOST:PORT/{reference.path}"',
        )
    return reference.at(own.authority if own else "")


def access_to(
    host: Host, reference: Reference, login: RegistryLogin | None, what: str, *, writes: bool
) -> docker.Registry:
    """How the host reaches the registry of a full reference. Without `login`, registry.login is used for the own one.

    Raises UsageError, about `what`, when it `writes` to the own registry or to Docker Hub and there is no login.
    """
    own, registry = _own(host), host.settings.get(Registry)
    is_own = own is not None and reference.domain == own.authority
    user, password = (login.username, login.password) if login else ("", None)
    if login is None and is_own and registry is not None and registry.login is not None:
        user, password = registry.login.username, registry.login.password
    if writes and password is None and (is_own or reference.domain == HUB):
        raise UsageError(
            f"{what}: no login to push to {reference.domain} with",
            hint="give it a login, or registry.login for the own registry",
        )
    return docker.Registry(api_url(reference, own), user, password.resolve() if password is not None else Secret(""))


def _own(host: Host) -> Url | None:
    registry = host.settings.get(Registry)
    return registry.external_url if registry else None
