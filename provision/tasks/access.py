"""The tasks `access` and `accounts`: the token for GitLab's API and root's password, and the users, groups and projects."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from provision.gitlab.access import api_at, keeps_records, keeps_token, required_api, token_scopes
from provision.inventory import Host
from provision.inventory.tables.base import Table
from provision.inventory.tables.gitlab import Gitlab
from provision.inventory.tables.projects import Project
from provision.inventory.tables.registry import Registry
from provision.inventory.tables.runners import Runner
from provision.resources import Resource
from provision.tasks.base import task


def _needs_access(host: Host) -> bool:
    gitlab, first = host.settings.get(Gitlab), host.estate.first("gitlab")
    if gitlab is None or first is None or first.name != host.name:
        return False
    return gitlab.root_password is not None or keeps_token(host)


@task(on="gitlab", settings=Gitlab, uses=(Project, Runner, Registry), where=_needs_access)
def access(host: Host, wanted: Gitlab) -> Iterator[Resource]:
    """Make the token for GitLab's API that the inventory does not give, renew it, and set root's first password."""
    from provision.resources import ApiToken

    scopes = token_scopes(host) if keeps_token(host) else ()
    password = wanted.root_password.resolve() if wanted.root_password else None
    yield ApiToken(scopes, api_at(host, wanted.external_url), password)


def _has_accounts(host: Host) -> bool:
    gitlab = host.settings.get(Gitlab)
    projects = host.settings.named(Project).values()
    wanted = bool(gitlab and (gitlab.users or gitlab.groups)) or any(one.has_settings for one in projects)
    return wanted and keeps_records(host)


@task(on="all", uses=(Project, Gitlab, Registry), where=_has_accounts)
def accounts(host: Host) -> Iterator[Resource]:
    """Create the users, groups and projects that GitLab lacks, and set their members and settings."""
    from provision.resources import GitlabGroup, GitlabProject, GitlabUser  # not every inventory has accounts

    gitlab = host.settings.get(Gitlab)
    for name, user in (gitlab.users if gitlab else {}).items():
        settings = _given(user, name="name", email="email", admin="is_admin", external="external")
        password = user.password.resolve() if user.password else None
        yield GitlabUser(name, required_api(host, f"gitlab.users.{name}"), settings, password)
    # A group before those in it.
    for path, group in sorted((gitlab.groups if gitlab else {}).items(), key=lambda one: one[0].count("/")):
        settings = _given(group, visibility="visibility", description="description")
        yield GitlabGroup(path, required_api(host, f'gitlab.groups."{path}"'), settings, group.members)
    for path, one in host.settings.named(Project).items():
        if one.has_settings:
            settings = _given(one, visibility="visibility", description="description", default_branch="default_branch")
            api = required_api(host, f'projects."{path}"')
            yield GitlabProject(path, api, settings, one.members, create=one.create)


def _given(table: Table, **names: str) -> dict[str, Any]:
    """The settings that the inventory has, by the API's names."""
    return {there: value for here, there in names.items() if (value := getattr(table, here)) is not None}
