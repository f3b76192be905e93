"""How a host's tasks reach GitLab's API, and which host keeps the records of what was set there."""

from __future__ import annotations

from provision.errors import UsageError
from provision.gitlab.api import Api
from provision.inventory import Host
from provision.inventory.tables.gitlab import Gitlab
from provision.inventory.tables.registry import Registry
from provision.secret import Secret
from provision.url import Url


def api_at(host: Host, url: Url) -> Api:
    """The API at `url`, with gitlab.api_token where there is one."""
    gitlab, registry = host.settings.get(Gitlab), host.settings.get(Registry)
    token = gitlab.api_token.resolve() if gitlab and gitlab.api_token else Secret("")
    ca = registry.certificate.ca if registry and registry.certificate else None
    first = host.estate.first("gitlab")
    own = gitlab is not None and url.origin == gitlab.external_url.origin
    address = gitlab.api_address if gitlab and own else None
    return Api(url, token, ca, first.address if first else "", address or "")


def required_api(host: Host, what: str) -> Api:
    """The API of gitlab.external_url. Raises UsageError, about `what`, when the inventory has no GitLab or no token."""
    gitlab = host.settings.get(Gitlab)
    if gitlab is None or gitlab.api_token is None:
        raise UsageError(
            f"{what}: this needs GitLab's API, and gitlab.{'external_url' if gitlab is None else 'api_token'} is missing",
            hint='give [gitlab] external_url and api_token = { env = "GITLAB_TOKEN" }, with scope api',
        )
    return api_at(host, gitlab.external_url)


def keeps_records(host: Host) -> bool:
    """Whether this host's state.json records what was set through the API.

    That is the first host of the group gitlab, else of runners, else of the inventory.
    """
    first = host.estate.first("gitlab", "runners", "all")
    return first is None or first.name == host.name
