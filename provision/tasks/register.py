"""The task `register`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from provision.errors import UsageError
from provision.gitlab.runners import RunnerCreator
from provision.inventory import resolve
from provision.inventory.tables.runners import Runner
from provision.resources import File, Resource, RunnerEntries, RunnerEntry, RunnerSettings
from provision.resources.runner.settings import settings_fingerprint
from provision.tasks import gitlab_api
from provision.tasks.base import Host, task
from provision.url import Url

_KEPT_BY_GITLAB = ("run_untagged", "locked", "paused", "access_level", "maximum_timeout")


@task(on="runners")
def register(host: Host) -> Iterator[Resource]:
    """Each runner of the inventory is in config.toml with a token that GitLab accepts; nothing restarts."""
    gitlab = host.settings.gitlab
    entries: list[RunnerEntry] = []
    urls: list[Url] = []
    for one in host.settings.runners:
        url = one.url or (gitlab.external_url if gitlab else None)
        if url is None:
            raise UsageError(
                f"runner {one.name}: no GitLab to register it with",
                hint="give gitlab.external_url, or the runner's url",
            )
        token = one.token.resolve() if one.token else None
        fingerprint = settings_fingerprint(_kept(one))
        urls.append(url)
        entries.append(
            RunnerEntry(one.name, str(url), resolve(one.config), token, _creator(host, one, url), fingerprint)
        )
    registry = host.settings.registry
    ca = registry.ca if registry else b""
    # gitlab-runner looks there by itself for a server's authority. It cuts the name at the first colon, in an IPv6
    # address too.  Source: gitlab-runner's network/client.go, strings.Split(url.Host, ":")[0]
    for name in dict.fromkeys(url.bracketed_host.partition(":")[0] for url in urls) if ca else ():
        yield File(f"/etc/gitlab-runner/certs/{name}.crt", ca)
    written = RunnerEntries(tuple(entries), resolve(host.settings.runner.config))
    yield written
    if gitlab is not None and gitlab.api_token is not None:
        for one, entry, url in zip(host.settings.runners, entries, urls, strict=True):
            yield RunnerSettings(one.name, gitlab_api.connection(host, url), _kept(one), entry.token, written.recorded)


def _creator(host: Host, one: Runner, url: Url) -> RunnerCreator | None:
    gitlab = host.settings.gitlab
    if one.token is not None or gitlab is None or not (gitlab.api_token or one.registration_token):
        return None
    fields: dict[str, Any] = {name: getattr(one, name) for name in _KEPT_BY_GITLAB}
    fields["description"] = one.name
    fields["tag_list"] = ",".join(one.tags) or None
    fields["maintenance_note"] = one.maintenance_note
    if one.run_untagged is None:
        fields["run_untagged"] = not one.tags
    return RunnerCreator(
        gitlab_api.connection(host, url),
        fields,
        one.scope,
        one.project if one.project is not None else one.group,
        one.registration_token.resolve() if one.registration_token else None,
        marker=f"made by provision for {host.name}: {one.name}",
    )


def _kept(one: Runner) -> dict[str, Any]:
    """What GitLab keeps of a runner, as far as the inventory says it."""
    fields = {name: value for name in _KEPT_BY_GITLAB if (value := getattr(one, name)) is not None}
    fields["description"] = one.name
    if one.tags:
        fields["tag_list"] = list(one.tags)
    return fields
