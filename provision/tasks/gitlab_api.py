"""Where GitLab's API is and what opens it, and which host remembers what was agreed on with it."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from provision.errors import UsageError
from provision.gitlab.api import Api
from provision.secret import Secret
from provision.tasks.base import Host
from provision.url import Url


def connection(host: Host, url: Url) -> Api:
    """The API at `url`, with gitlab.api_token where there is one."""
    gitlab, registry = host.settings.gitlab, host.settings.registry
    token = gitlab.api_token.resolve() if gitlab and gitlab.api_token else Secret("")
    ca = registry.certificate.ca if registry and registry.certificate else None
    return _client(url, token, ca, next(iter(host.peers.get("gitlab", ())), ""))


@cache
def _client(url: Url, token: Secret, ca: Path | None, fallback: str) -> Api:
    """One client for each server: a server that does not answer is waited for once, whatever the number of hosts."""
    return Api(url, token, ca, fallback)


def required(host: Host, what: str) -> Api:
    """The same. Raises UsageError when the inventory names no GitLab or no token."""
    gitlab = host.settings.gitlab
    if gitlab is None or gitlab.api_token is None:
        raise UsageError(
            f"{what}: this is done through GitLab's API, and gitlab.{'external_url' if gitlab is None else 'api_token'} is not given",
            hint='give [gitlab] external_url and api_token = { env = "GITLAB_TOKEN" }, with scope api',
        )
    return connection(host, gitlab.external_url)


def remembers(host: Host) -> bool:
    """Whether this host's state.json keeps what was agreed on: the first one of gitlab, else of runners, else of all."""
    groups = (host.members.get(group, ()) for group in ("gitlab", "runners", "all"))
    return host.name == next((group[0] for group in groups if group), host.name)
