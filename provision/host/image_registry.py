"""In which registry an image of the inventory is, and how a host logs in there."""

from __future__ import annotations

from typing import Final

from provision.errors import UsageError
from provision.host import docker
from provision.host.docker import api_url
from provision.image_name import HUB, Reference
from provision.inventory import Host
from provision.inventory.tables.gitlab import Gitlab
from provision.inventory.tables.images import RegistryLogin
from provision.inventory.tables.registry import Registry
from provision.secret import Secret
from provision.url import Url

# Public registries whose tokens come from another host, by their domain in image names (seen in their WWW-Authenticate).
_TOKEN_HOSTS: Final = {
    HUB: ("auth.docker.io",),
    "registry.gitlab.com": ("gitlab.com",),
    "docker.elastic.co": ("docker-auth.elastic.co",),
}


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
    host: Host,
    reference: Reference,
    login: RegistryLogin | None,
    what: str,
    *,
    writes: bool,
    token_server: Url | None = None,
) -> docker.Registry:
    """How the host reaches the registry of a full reference. Without `login`, registry.login is used for the own one.

    token_server  the server that gives the registry's tokens, if it is not a known one

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
    if token_server is not None:
        token_hosts: tuple[str, ...] = (token_server.bracketed_host.lower(),)
    else:
        token_hosts = own_token_hosts(host) if is_own else _TOKEN_HOSTS.get(reference.domain, ())
    secret = password.resolve() if password is not None else Secret("")
    return docker.Registry(api_url(reference, own), user, secret, token_hosts, is_own)


def own_token_hosts(host: Host) -> tuple[str, ...]:
    """The host that gives tokens for the own registry: GitLab's."""
    gitlab = host.settings.get(Gitlab)
    return (gitlab.external_url.bracketed_host,) if gitlab else ()


def _own(host: Host) -> Url | None:
    registry = host.settings.get(Registry)
    return registry.external_url if registry else None
