"""How a host's tasks reach GitLab's API, and which host keeps the records of what was set there."""

from __future__ import annotations

from provision.errors import UsageError
from provision.gitlab.api import Api
from provision.inventory import Host, SecretSource, Settings
from provision.inventory.tables.gitlab import READY_SECONDS, Gitlab, Server
from provision.inventory.tables.registry import Registry
from provision.secret import Secret
from provision.url import Url


def is_own(host: Host, url: Url) -> bool:
    """Whether `url` is at the server of gitlab.external_url: the same scheme, host and port."""
    gitlab = host.settings.get(Gitlab)
    return gitlab is not None and gitlab.external_url.origin == url.origin


def has_token(host: Host, url: Url) -> bool:
    """Whether the inventory has a token for the API at `url`."""
    return _token(host, url) is not None


def server_ca(host: Host, url: Url) -> bytes:
    """The private CA of the server at `url`; b"" without one. Raises UsageError when its file cannot be read.

    An inventory without [gitlab] has only the registry to tell which server its CA is for: it is the same host.
    """
    gitlab, registry = host.settings.get(Gitlab), host.settings.get(Registry)
    if is_own(host, url) or (gitlab is None and registry is not None and registry.external_url.host == url.host):
        return registry.ca if registry else b""
    other = _other(host, url)
    return other.ca_text if other else b""


def api_at(host: Host, url: Url) -> Api:
    """The API at `url`, with the token and the CA that the inventory has for this server.

    gitlab.api_token and registry.certificate.ca are for gitlab.external_url's scheme, host and port only. Other servers
    are in gitlab.servers.
    """
    source = _token(host, url)
    token = source.resolve() if source else Secret("")
    if not is_own(host, url):
        other = _other(host, url)
        return Api(url, token, other.ca if other and other.ca_text else None)
    gitlab, registry, first = host.settings[Gitlab], host.settings.get(Registry), host.estate.first("gitlab")
    ca = registry.certificate.ca if registry and registry.certificate and registry.ca else None
    return Api(url, token, ca, first.address if first else "", gitlab.api_address or "")


def _token(host: Host, url: Url) -> SecretSource | None:
    server = host.settings.get(Gitlab) if is_own(host, url) else _other(host, url)
    return server.api_token if server else None


def _other(host: Host, url: Url) -> Server | None:
    """What the inventory has about another server than gitlab.external_url's, in gitlab.servers."""
    gitlab = host.settings.get(Gitlab)
    return gitlab.server(url) if gitlab else None


def required_api(host: Host, what: str) -> Api:
    """The API of gitlab.external_url. Raises UsageError, about `what`, when the inventory has no GitLab or no token."""
    gitlab = host.settings.get(Gitlab)
    if gitlab is None or gitlab.api_token is None:
        raise UsageError(
            f"{what}: this needs GitLab's API, and gitlab.{'external_url' if gitlab is None else 'api_token'} is missing",
            hint='give [gitlab] external_url and api_token = { env = "GITLAB_TOKEN" }, with scope api',
        )
    return api_at(host, gitlab.external_url)


def ready_timeout(settings: Settings) -> int:
    """Seconds to wait for GitLab while it starts: those of [gitlab], where the inventory has it."""
    gitlab = settings.get(Gitlab) if Gitlab in settings else None
    return gitlab.ready_timeout if gitlab else READY_SECONDS


def keeps_records(host: Host) -> bool:
    """Whether this host's state.json records what was set through the API.

    That is the first host of the group gitlab, else of runners, else of the inventory.
    """
    first = host.estate.first("gitlab", "runners", "all")
    return first is None or first.name == host.name
