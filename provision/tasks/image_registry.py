"""Whose registry an image is in, and who logs in there: what `image` and `deploy` derive from the inventory."""

from __future__ import annotations

from provision.errors import UsageError
from provision.host.docker import Registry, api_url
from provision.image_name import Reference
from provision.inventory.tables.images import RegistryLogin
from provision.secret import Secret
from provision.tasks.base import Host


def full(host: Host, reference: Reference, what: str, *, needed: bool) -> Reference:
    """The reference with the own registry where it names none. Raises UsageError where one is needed and there is none."""
    registry = host.settings.registry
    own = registry.external_url.authority if registry else ""
    if needed and not reference.domain and not own:
        raise UsageError(
            f"{what}: {reference} names no registry, and the inventory has none",
            hint=f'give [registry], or write "docker.io/USER/NAME" or "HOST:PORT/{reference.path}"',
        )
    return reference.at(own)


def registry_of(host: Host, reference: Reference, login: RegistryLogin | None, what: str, *, writes: bool) -> Registry:
    """Where it answers, and with whose login; `writes` takes one in the own registry and on Docker Hub."""
    settings = host.settings.registry
    own = settings.external_url.authority if settings else ""
    user, password = (login.username, login.password) if login else ("", None)
    if login is None and reference.domain == own and settings is not None and settings.login is not None:
        user, password = settings.login.username, settings.login.password
    if writes and password is None and reference.domain in (own, "docker.io"):
        raise UsageError(
            f"{what}: no login to push to {reference.domain} with",
            hint="give it a login, or registry.login for the own registry",
        )
    url = api_url(reference, settings.external_url if settings else None)
    return Registry(url, user, password.resolve() if password is not None else Secret(""))
