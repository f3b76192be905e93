"""The tasks `runner`, which installs gitlab-runner, and `register`, which configures its runners."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from provision.errors import UsageError
from provision.gitlab.access import api_at, has_token, server_ca
from provision.gitlab.runners import RunnerCreator
from provision.host.docker import start_runner, wait_for_ci_jobs
from provision.host.releases import RUNNER
from provision.inventory import Host, resolve
from provision.inventory.tables.apt import GITLAB_KEY, Apt
from provision.inventory.tables.base import package_glob
from provision.inventory.tables.gitlab import Gitlab
from provision.inventory.tables.proxy import Proxy
from provision.inventory.tables.registry import Registry
from provision.inventory.tables.runners import Runner, RunnerProgram
from provision.resources import AptSource, File, Packages, Resource, RunnerEntries, RunnerEntry, RunnerSettings, Service
from provision.resources.runner.entries import RESTART, settings_fingerprint
from provision.resources.system.proxy import apt_proxy, service_proxy
from provision.tasks.base import task
from provision.url import Url

_URL = "https://packages.gitlab.com/runner/gitlab-runner/{id}/"
# Since 17.7.1 the runner depends on helper images of exactly its version: both change in one transaction.
_PACKAGES = ("gitlab-runner", "gitlab-runner-helper-images")


@task(on="runners", settings=RunnerProgram, uses=(Apt, Proxy))
def runner(host: Host, wanted: RunnerProgram) -> Iterator[Resource]:
    """Install gitlab-runner with its helper images from GitLab's repository, and start it."""
    yield apt_proxy(host.settings)
    mirror = host.settings[Apt].runner
    source = AptSource.published("gitlab-runner", mirror, _URL, GITLAB_KEY, RUNNER, pin=_PACKAGES)
    yield source
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


_STORED_BY_GITLAB = ("run_untagged", "locked", "paused", "access_level", "maximum_timeout")


def _is_configured(host: Host) -> bool:
    return bool(host.settings.all(Runner) or host.settings[RunnerProgram].model_fields_set)


# Without settings it still removes the entries of earlier runs, on hosts that are contacted anyway.
@task(on="runners", settings=RunnerProgram, uses=(Runner, Gitlab, Registry), where=_is_configured, leftovers=True)
def register(host: Host, wanted: RunnerProgram) -> Iterator[Resource]:
    """Register each runner in GitLab and configure it in config.toml, without a restart."""
    gitlab, runners = host.settings.get(Gitlab), host.settings.all(Runner)
    entries: list[RunnerEntry] = []
    urls: list[Url] = []
    for one in runners:
        url = one.url or (gitlab.external_url if gitlab else None)
        if url is None:
            raise UsageError(
                f"runner {one.name}: no GitLab to register it in",
                hint="give gitlab.external_url, or the runner's url",
            )
        token = one.token.resolve() if one.token else None
        fingerprint = settings_fingerprint(_stored(one))
        urls.append(url)
        entries.append(
            RunnerEntry(one.name, str(url), resolve(one.config), token, _creator(host, one, url), fingerprint)
        )
    if runners:
        yield Packages(("curl", "ca-certificates"))
    for name, ca in _authorities(host, urls).items():
        yield File(f"/etc/gitlab-runner/certs/{name}.crt", ca)
    written = RunnerEntries(tuple(entries), resolve(wanted.config))
    yield written
    for one, entry, url in zip(runners, entries, urls, strict=True):
        if has_token(host, url) or (gitlab is not None and gitlab.api_token is not None):
            yield RunnerSettings(one.name, api_at(host, url), _stored(one), entry.token, written.recorded)


def _authorities(host: Host, urls: Sequence[Url]) -> dict[str, bytes]:
    """The CA certificates of the runners' servers, by the name that gitlab-runner reads them under.

    The name ends at the first colon, even in an IPv6 address, so servers on several ports of a host share one file.
    Source: gitlab-runner's network/client.go, strings.Split(url.Host, ":")[0]
    """
    found: dict[str, bytes] = {}
    for url in urls:
        name, ca = url.bracketed_host.partition(":")[0], server_ca(host, url)
        before = found.get(name, b"")
        if ca and ca not in before:
            found[name] = b"\n".join([before.rstrip(b"\n"), ca]) if before else ca
    return found


def _creator(host: Host, one: Runner, url: Url) -> RunnerCreator | None:
    if one.token is not None or not (has_token(host, url) or one.registration_token):
        return None
    fields: dict[str, Any] = {name: getattr(one, name) for name in _STORED_BY_GITLAB}
    fields["description"] = one.name
    fields["tag_list"] = ",".join(one.tags) or None
    fields["maintenance_note"] = one.maintenance_note
    if one.run_untagged is None:
        fields["run_untagged"] = not one.tags
    return RunnerCreator(
        api_at(host, url),
        fields,
        one.scope,
        one.project if one.project is not None else one.group,
        one.registration_token.resolve() if one.registration_token else None,
        marker=f"made by provision for {host.name}: {one.name}",
    )


def _stored(one: Runner) -> dict[str, Any]:
    """The settings of a runner that GitLab stores, if the inventory has them."""
    fields = {name: value for name in _STORED_BY_GITLAB if (value := getattr(one, name)) is not None}
    fields["description"] = one.name
    if one.tags:
        fields["tag_list"] = list(one.tags)
    return fields
