"""The task `gitlab`, and the reconfigure that every edit of gitlab.rb needs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from provision.gitlab.access import ready_timeout
from provision.host.releases import GITLAB
from provision.inventory import Host, resolve
from provision.inventory.tables.apt import GITLAB_KEY, Apt
from provision.inventory.tables.base import package_glob
from provision.inventory.tables.gitlab import Gitlab
from provision.inventory.tables.proxy import Proxy
from provision.inventory.tables.registry import Registry
from provision.resources import AptSource, Handler, Packages, Resource, RubySettings
from provision.resources.gitlab.gitlab_rb import ready, reconfigure
from provision.resources.gitlab.upgrade_path import UpgradePath
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
