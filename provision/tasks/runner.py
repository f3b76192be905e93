"""The task `runner`."""

from __future__ import annotations

from collections.abc import Iterator

from provision.resources import AptSource, Packages, Resource, Service
from provision.tasks.apt import address, key_text
from provision.tasks.base import Host, task

_URL = "https://packages.gitlab.com/runner/gitlab-runner/{id}/"
_KEY = "https://packages.gitlab.com/gpgkey/gpg.key"
# From 17.7.1 on the runner depends on helper images of exactly its version: both move together or not at all.
_PACKAGES = ("gitlab-runner", "gitlab-runner-helper-images")


@task(on="runners")
def runner(host: Host) -> Iterator[Resource]:
    """gitlab-runner and its helper images are installed from GitLab's repository, and it runs."""
    mirror = host.settings.apt.runner
    uri = address(mirror, _URL)
    yield AptSource(
        "gitlab-runner",
        uri=uri,
        suite=(mirror.suite if mirror else "") or "{codename}",
        component="main",
        key=key_text(mirror),
        key_url=_KEY,
        pin=_PACKAGES,
    )
    yield Packages(
        _PACKAGES,
        version=_glob(host.settings.runner.version),
        hold=bool(host.settings.runner.version),
        origin=uri.partition("{")[0],
        environment=("NO_DOCKER_PRUNE=1",),
        downgrade=True,
    )
    yield Service("gitlab-runner")


def _glob(version: str | None) -> str:
    """An exact `19.3.0` means any packaging of it: `19.3.0-1`."""
    if not version:
        return ""
    return version if any(one in version for one in "*?[") or "-" in version else f"{version}-*"
