"""The task `runner`."""

from __future__ import annotations

from collections.abc import Iterator

from provision.host.docker import start_runner, wait_for_ci_jobs
from provision.host.releases import RUNNER
from provision.inventory import Host
from provision.inventory.tables.apt import GITLAB_KEY, Apt, repository
from provision.inventory.tables.base import package_glob
from provision.inventory.tables.proxy import Proxy
from provision.inventory.tables.runners import RunnerProgram
from provision.resources import AptSource, Packages, Resource, Service
from provision.resources.runner.entries import RESTART
from provision.resources.system.proxy import apt_proxy, service_proxy
from provision.tasks.base import task

_URL = "https://packages.gitlab.com/runner/gitlab-runner/{id}/"
# Since 17.7.1 the runner depends on helper images of exactly its version: both change in one transaction.
_PACKAGES = ("gitlab-runner", "gitlab-runner-helper-images")


@task(on="runners", settings=RunnerProgram, uses=(Apt, Proxy))
def runner(host: Host, wanted: RunnerProgram) -> Iterator[Resource]:
    """Install gitlab-runner with its helper images from GitLab's repository, and start it."""
    yield apt_proxy(host.settings)
    source = repository(host.settings[Apt].runner, _URL)
    yield AptSource(
        "gitlab-runner",
        uri=source.uri,
        suite=source.suite,
        component="main",
        key=source.key,
        key_url=GITLAB_KEY.url,
        fingerprints=GITLAB_KEY.fingerprints,
        pin=_PACKAGES,
        publisher=RUNNER.behind(host.settings[Apt].runner),
    )
    yield Packages(
        _PACKAGES,
        version=package_glob(wanted.version),
        hold=bool(wanted.version),
        origin=source.origin,
        environment=("NO_DOCKER_PRUNE=1",),
        downgrade=True,
        # Replacing gitlab-runner restarts it, and a restart cancels its jobs.
        first=wait_for_ci_jobs(),
        last=start_runner(),
    )
    yield from service_proxy("gitlab-runner", host.settings.get(Proxy), RESTART)
    yield Service("gitlab-runner")
