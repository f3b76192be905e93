"""The task `gitlab`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from provision.inventory import resolve
from provision.resources import AptSource, Handler, Packages, Resource, RubySettings
from provision.resources.gitlab.gitlab_rb import reconfigure
from provision.tasks.apt import address, key_text
from provision.tasks.base import Host, task

_URL = "https://packages.gitlab.com/gitlab/gitlab-{edition}/{{id}}/{{codename}}"
_KEY = "https://packages.gitlab.com/gpgkey/gpg.key"


def owed(host: Host) -> Handler:
    """The reconfigure that every edit of gitlab.rb owes, with what must answer after it."""
    registry = host.settings.registry
    return reconfigure(registry.external_url if registry else None, realm(host))


def realm(host: Host) -> str:
    """Where the registry sends clients for a token; "" when the inventory does not name GitLab."""
    gitlab = host.settings.gitlab
    return f"{gitlab.external_url}/jwt/auth" if gitlab else ""


@task(on="gitlab")
def gitlab(host: Host) -> Iterator[Resource]:
    """GitLab is installed, and its external URL and settings are in force."""
    wanted = host.settings.gitlab
    if wanted is None:
        return
    yield Packages(("curl", "ca-certificates", "openssl"))
    if wanted.install:
        mirror = host.settings.apt.gitlab
        package = f"gitlab-{wanted.edition}"
        yield AptSource(
            "gitlab",
            uri=address(mirror, _URL.format(edition=wanted.edition)),
            suite=(mirror.suite if mirror else "") or "{codename}",
            component="main",
            key=key_text(mirror),
            key_url=_KEY,
            pin=(package,),
        )
        yield Packages(
            (package,),
            version=_glob(wanted.version),
            hold=bool(wanted.version),
            origin=_start(address(mirror, _URL.format(edition=wanted.edition))),
        )
    settings: dict[tuple[str, ...], Any] = dict(_flat(resolve(wanted.settings)))
    settings[("external_url",)] = str(wanted.external_url)
    yield RubySettings(settings, notify=(owed(host),))


def _glob(version: str | None) -> str:
    """An exact `19.3.0` means any packaging of it: `19.3.0-ce.0`."""
    if not version:
        return ""
    return version if any(one in version for one in "*?[") or "-" in version else f"{version}-*"


def _start(uri: str) -> str:
    """The part of a repository's address that is the same for every host."""
    return uri.partition("{")[0]


def _flat(settings: Mapping[str, Any], top: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    # `gitlab_rails.time_zone = "UTC"` is gitlab_rails['time_zone']; what is deeper is that key's value, a hash.
    for key, value in settings.items():
        if isinstance(value, Mapping) and not top:
            yield from _flat(value, (key,))
        else:
            yield (*top, key), value
