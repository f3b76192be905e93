"""The tasks `gitlab`, `access` and `accounts`: GitLab itself, the token for its API, its users, groups and projects.

Also the reconfigure that every edit of gitlab.rb needs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from provision.gitlab.access import api_at, keeps_records, keeps_token, ready_timeout, required_api, token_scopes
from provision.host.releases import GITLAB
from provision.inventory import Host, resolve
from provision.inventory.tables.apt import GITLAB_KEY, Apt
from provision.inventory.tables.base import Table, package_glob
from provision.inventory.tables.gitlab import Gitlab
from provision.inventory.tables.projects import Project
from provision.inventory.tables.proxy import Proxy
from provision.inventory.tables.registry import Registry
from provision.inventory.tables.runners import Runner
from provision.resources import AptSource, Handler, Packages, Resource, RubySettings
from provision.resources.gitlab.gitlab_rb import ready, reconfigure
from provision.resources.gitlab.registry import UpgradePath
from provision.resources.system.proxy import apt_proxy
from provision.tasks.base import task
from provision.url import Url

_URL = "https://packages.gitlab.com/gitlab/gitlab-{edition}/{{id}}/{{codename}}"
_LISTEN = "listen_addresses"


def reconfigure_handler(host: Host) -> Handler:
    """The reconfigure that an edit of gitlab.rb needs, and what must answer after it."""
    registry, gitlab = host.settings.get(Registry), host.settings.get(Gitlab)
    return reconfigure(
        registry.external_url if registry else None,
        realm(host),
        gitlab.external_url if gitlab else None,
        ready=ready_timeout(host.settings),
    )


def realm(host: Host) -> str:
    """The URL that the registry sends clients to for a token; "" if the inventory has no [gitlab]."""
    gitlab = host.settings.get(Gitlab)
    return f"{gitlab.external_url}/jwt/auth" if gitlab else ""


def listen_settings(host: Host, url: Url, table: str, newer: tuple[str, str]) -> dict[tuple[str, ...], Any]:
    """What gitlab.rb needs so that nginx answers at a URL with an IPv6 address: by default it listens on IPv4 only.

    Nothing where [gitlab.settings] has `listen_addresses` itself. `table` holds nginx's settings in gitlab.rb, `newer` is
    its other name since GitLab 19.2.
    Source: docs.gitlab.com/omnibus/settings/nginx, "Set the NGINX listen address or addresses".
    """
    gitlab = host.settings.get(Gitlab)
    own = dict(_by_path(gitlab.settings)) if gitlab else {}
    nested = own.get(newer)
    given = (table, _LISTEN) in own or (*newer, _LISTEN) in own or (isinstance(nested, Mapping) and _LISTEN in nested)
    if not url.is_ipv6 or given:
        return {}
    return {(table, _LISTEN): ["*", "[::]"]}


@task(on="gitlab", settings=Gitlab, uses=(Apt, Proxy, Registry))
def gitlab(host: Host, wanted: Gitlab) -> Iterator[Resource]:
    """Install GitLab, and apply its external URL and gitlab.rb settings."""
    yield apt_proxy(host.settings)
    yield Packages(("curl", "ca-certificates", "openssl"))
    if wanted.install:
        package = f"gitlab-{wanted.edition}"
        publisher = GITLAB._replace(package=package, pinned=wanted.version or "")
        mirror, url = host.settings[Apt].gitlab, _URL.format(edition=wanted.edition)
        source = AptSource.published("gitlab", mirror, url, GITLAB_KEY, publisher, pin=(package,))
        yield source
        yield UpgradePath(package_glob(wanted.version))
        yield Packages(
            (package,),
            version=package_glob(wanted.version),
            hold=bool(wanted.version),
            origin=source.origin,
            notify=(ready(wanted.external_url, wanted.ready_timeout),) if wanted.ready_timeout else (),
        )
    settings: dict[tuple[str, ...], Any] = dict(_by_path(resolve(wanted.settings)))
    settings[("external_url",)] = str(wanted.external_url)
    settings |= _proxy_settings(host.settings.get(Proxy), settings)
    settings |= listen_settings(host, wanted.external_url, "nginx", ("gitlab_rails", "nginx"))
    yield RubySettings(settings, notify=(reconfigure_handler(host),), generated=wanted.root_password is None)


def _proxy_settings(proxy: Proxy | None, own: Mapping[tuple[str, ...], Any]) -> dict[tuple[str, ...], Any]:
    """The variables of GitLab's programs that fetch from the internet; those of [gitlab.settings] win.

    Source: docs.gitlab.com/omnibus/settings/environment-variables.
    """
    if proxy is None or not proxy.is_set:
        return {}
    paths = [(name, "env") for name in ("gitlab_rails", "gitlab_workhorse", "gitaly", "registry")]
    return {path: {**proxy.variables(), **(own.get(path) or {})} for path in paths}


def _by_path(settings: Mapping[str, Any], top: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The settings by path: `gitlab_rails.time_zone = "UTC"` is gitlab_rails['time_zone'].

    A table without further tables is the value of its key, a hash. The keys of other tables are settings of their own:
    `gitlab_rails.object_store.connection` does not touch the other keys of object_store.
    """
    for key, value in settings.items():
        if isinstance(value, Mapping) and (not top or any(isinstance(one, Mapping) for one in value.values())):
            yield from _by_path(value, (*top, key))
        else:
            yield (*top, key), value


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
