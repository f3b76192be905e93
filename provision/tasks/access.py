"""The task `access`."""

from __future__ import annotations

from collections.abc import Iterator

from provision.gitlab.access import api_at, keeps_token, token_scopes
from provision.inventory import Host
from provision.inventory.tables.gitlab import Gitlab
from provision.inventory.tables.projects import Project
from provision.inventory.tables.registry import Registry
from provision.inventory.tables.runners import Runner
from provision.resources import Resource
from provision.tasks.base import task


def _is_needed(host: Host) -> bool:
    gitlab, first = host.settings.get(Gitlab), host.estate.first("gitlab")
    if gitlab is None or first is None or first.name != host.name:
        return False
    return gitlab.root_password is not None or keeps_token(host)


@task(on="gitlab", settings=Gitlab, uses=(Project, Runner, Registry), where=_is_needed)
def access(host: Host, wanted: Gitlab) -> Iterator[Resource]:
    """Make the token for GitLab's API that the inventory does not give, renew it, and set root's first password."""
    from provision.resources import ApiToken

    scopes = token_scopes(host) if keeps_token(host) else ()
    password = wanted.root_password.resolve() if wanted.root_password else None
    yield ApiToken(scopes, api_at(host, wanted.external_url), password)
