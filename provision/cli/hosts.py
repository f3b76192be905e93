"""The verbs `status` and `images`: what runs on the hosts, what GitLab knows, and what the registry holds.

They change nothing. Each host is asked once, over a session without the host's lock; GitLab through its API.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from provision.cli.verbs import catalogue_of, inventory_option, report_unused, set_option, verbose_option

if TYPE_CHECKING:
    from provision.engine.assemble import Opener
    from provision.gitlab.api import Api
    from provision.inventory import Host
    from provision.report.status import EndpointStatus, HostStatus, RunnerStatus, StoredImage
    from provision.url import Url

T = TypeVar("T")
U = TypeVar("U")
_REQUESTS_AT_ONCE = 8
_UNITS = {"gitlab": ("gitlab-runsvdir",), "runners": ("docker", "gitlab-runner")}
_TIMEOUT = 60.0  # seconds for one command on a host


@click.command("status")
@inventory_option(required=True)
@set_option
@click.option("-l", "--limit", metavar="PATTERN", help="Hosts and groups, as for a run.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@verbose_option
def status(
    inventory: tuple[Path, ...], settings: tuple[str, ...], limit: str | None, as_json: bool, verbose: int
) -> int:
    """Print hosts, services, runners, registry, certificates and apps, and what is wrong.

    Nothing is changed. The exit code is 1 if something is wrong.
    """
    import json

    from provision.errors import ProvisionError
    from provision.report.status import EstateStatus, print_status

    hosts, opener = selected(inventory, settings, limit, verbose)
    found, interrupted = _observed(hosts, opener)
    if interrupted:
        return 130
    runners: list[RunnerStatus] = []
    error = ""
    with reading_tokens(opener):
        try:
            api = api_of(hosts)
            runners = _runners(hosts, api) if api else []
        except ProvisionError as problem:
            error = problem.text
    whole = EstateStatus(found, runners, _endpoints(hosts), error)
    if as_json:
        click.echo(json.dumps(whole.as_dict(), indent=2, ensure_ascii=False))
    else:
        print_status(whole, console())
    return 0 if whole.is_good else 1


@click.command("images")
@click.argument("projects", nargs=-1, metavar="[PROJECT...]")
@inventory_option(required=True)
@set_option
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@verbose_option
def images(
    projects: tuple[str, ...], inventory: tuple[Path, ...], settings: tuple[str, ...], as_json: bool, verbose: int
) -> int:
    """Print what the registry holds for each PROJECT: tags, digests, sizes, ages, and which app runs them.

    Without PROJECT, those of the inventory. Nothing is changed.
    """
    import json
    from dataclasses import asdict

    from provision.errors import UsageError
    from provision.inventory.tables.apps import App
    from provision.report.status import print_images

    hosts, opener = selected(inventory, settings, None, verbose)
    wanted = projects or projects_of(hosts)
    with reading_tokens(opener):
        api = api_of(hosts)
        if api is None:
            raise UsageError(
                "images are asked from GitLab's API, and gitlab.external_url or gitlab.api_token is missing"
            )
        if not wanted:
            raise UsageError("the inventory has no project", hint="name one: provision images group/name -i …")
        tags = [one for project in wanted for one in _tags(api, project)]
    with_apps = [host for host in hosts if any(app.runs_on(host) for app in host.settings.all(App))]
    found, interrupted = _observed(with_apps, opener)
    if interrupted:
        return 130
    listed = _with_apps(tags, found)
    for host in found:
        if host.error:
            click.echo(f"{host.name}: {host.error}", err=True)
    if as_json:
        click.echo(json.dumps({"schema": 1, "images": [asdict(one) for one in listed]}, indent=2, ensure_ascii=False))
    elif listed:
        print_images(listed, console())
    else:
        click.echo(f"no images in the registry for {', '.join(wanted)}")
    return 0


def selected(
    inventory: tuple[Path, ...], settings: tuple[str, ...], limit: str | None, verbose: int
) -> tuple[Sequence[Host], Opener]:
    from provision.engine.assemble import opener

    catalogue = catalogue_of(inventory)
    report_unused(catalogue, verbose=bool(verbose))
    loaded = catalogue.load(inventory, settings)
    return loaded.select(limit), opener(loaded.hosts)


def console() -> Any:
    """A console for standard output."""
    from provision.report.console import open_console

    return open_console(sys.stdout)


def _observed(hosts: Sequence[Host], opener: Opener) -> tuple[list[HostStatus], bool]:
    """What the hosts answered, and whether Ctrl-C ended it."""
    from provision.engine.each_host import EachHost
    from provision.errors import ProvisionError
    from provision.host.docker import APP_LABEL, IMAGE_LABEL
    from provision.host.scripts import script
    from provision.shell import Result

    units = {
        host.name: tuple(dict.fromkeys(unit for group in host.groups for unit in _UNITS.get(group, ())))
        for host in hosts
    }
    form = f'{{{{.Names}}}}|{{{{.State}}}}|{{{{.Status}}}}|{{{{.Label "{IMAGE_LABEL}"}}}}|{{{{.Image}}}}'
    everywhere = EachHost(
        opener,
        lambda name: script("observe_status", form, APP_LABEL, *units[name]),
        deadline=_TIMEOUT,
        on_line=lambda *_: None,
        on_error=lambda *_: None,
    )
    outcomes = everywhere.run([host.name for host in hosts])
    found = []
    for host in hosts:
        outcome = outcomes[host.name]
        if isinstance(outcome, Result):
            found.append(read_status(host.name, tuple(host.groups), outcome.text))
        else:
            found.append(_failed(host, outcome.text if isinstance(outcome, ProvisionError) else str(outcome)))
    return found, everywhere.interrupted


def _failed(host: Host, error: str) -> HostStatus:
    from provision.report.status import HostStatus

    return HostStatus(host.name, tuple(host.groups), error or "no answer")


def read_status(name: str, groups: tuple[str, ...], text: str) -> HostStatus:
    """The answer of observe_status.sh. A line that it does not print is ignored: a host may send anything."""
    from provision.report.status import HostStatus, RunningApp

    found, down = HostStatus(name, groups), []
    for line in text.splitlines():
        kind, _, rest = line.partition(" ")
        words = rest.split(" ")
        try:
            if kind == "unit":
                found.units[words[0]] = words[1]
            elif kind == "version":
                found.versions[words[0]] = words[1]
            elif kind == "disk":
                found.disks[words[2]] = (int(words[0]), int(words[1]) * 1024)
            elif kind == "load":
                found.load = float(words[0])
            elif kind == "last":
                found.last_run = max(int(words[0]), 0)
            elif kind == "pending":
                found.pending = int(words[0])
            elif kind == "service":
                found.services += 1
                down += [words[0]] if words[1] != "run" else []
            elif kind == "app" and rest.count("|") >= 4:
                app, state, status, digest, image = rest.split("|", 4)
                found.apps.append(RunningApp(name, app, state, status, image, digest))
            elif kind == "app":
                found.units["docker"] = "no answer"
        except (ValueError, IndexError):
            continue
    found.services_down = tuple(down)
    return found


@contextmanager
def reading_tokens(opener: Opener) -> Iterator[None]:
    """Requests within the block read a token that is kept on the GitLab host."""
    from provision.gitlab.access import KeptTokens

    with KeptTokens(lambda name: opener(name, lock=False)).used():
        yield


def api_of(hosts: Sequence[Host]) -> Api | None:
    """GitLab's API; None if the inventory has none, or no token for it."""
    from provision.gitlab.access import api_at, has_token
    from provision.inventory.tables.gitlab import Gitlab

    for host in hosts:
        gitlab = host.settings.get(Gitlab)
        if gitlab is not None and has_token(host, gitlab.external_url):
            return api_at(host, gitlab.external_url)
    return None


def at_once(work: Callable[[T], U], items: Iterable[T]) -> list[U]:
    """The results of requests, some at a time, in order. The context (the kept token) is that of the caller."""
    from concurrent.futures import ThreadPoolExecutor
    from contextvars import copy_context

    with ThreadPoolExecutor(_REQUESTS_AT_ONCE) as pool:
        return [job.result() for job in [pool.submit(copy_context().run, work, one) for one in items]]


def _runners(hosts: Sequence[Host], api: Api) -> list[RunnerStatus]:
    """The runners of the inventory as GitLab sees them. Raises ApiFailed."""
    from provision.errors import ApiFailed
    from provision.inventory.tables.runners import Runner
    from provision.report.status import RunnerStatus

    names = {one.name for host in hosts for one in host.settings.all(Runner)}
    if not names:
        return []
    try:
        listed = api.get_list("/runners/all", {"per_page": 100})
    except ApiFailed as error:
        if error.status != 403:
            raise
        listed = api.get_list("/runners", {"per_page": 100})
    ours = [one for one in listed if one.get("description") in names]

    def details(one: dict[str, Any]) -> RunnerStatus:
        found = api.find(f"/runners/{one['id']}") or one
        paused, version = bool(found.get("paused")), str(found.get("version") or "")
        state = str(found.get("status") or "unknown")
        return RunnerStatus(
            int(one["id"]), str(one["description"]), state, paused, version, _age(found.get("contacted_at"))
        )

    return sorted(at_once(details, ours), key=lambda one: (one.name, one.id))


def _age(moment: Any) -> int | None:
    """The seconds since a time in GitLab's format."""
    import datetime

    if not moment:
        return None
    then = datetime.datetime.fromisoformat(str(moment))
    return max(int((datetime.datetime.now(datetime.UTC) - then).total_seconds()), 0)


def _endpoints(hosts: Sequence[Host]) -> list[EndpointStatus]:
    """GitLab and its registry as this machine reaches them."""
    from provision.inventory.tables.gitlab import Gitlab
    from provision.inventory.tables.registry import Registry

    found: dict[tuple[str, str], EndpointStatus] = {}
    for host in hosts:
        gitlab, registry = host.settings.get(Gitlab), host.settings.get(Registry)
        first = host.estate.first("gitlab")
        address = (gitlab.api_address if gitlab else "") or ""
        ca = registry.certificate.ca if registry and registry.certificate and registry.ca else None
        wanted: list[tuple[str, Url, str, int]] = []
        if gitlab is not None:
            wanted.append(("GitLab", gitlab.external_url, "/users/sign_in", 200))
        if registry is not None:
            wanted.append(("registry", registry.external_url, "/v2/", 401))
        for name, url, path, good in wanted:
            if (name, str(url)) not in found:
                found[name, str(url)] = _endpoint(name, url, path, good, ca, address, first.address if first else "")
    return list(found.values())


def _endpoint(
    name: str, url: Url, path: str, good: int, ca: Path | None, address: str, fallback: str
) -> EndpointStatus:
    import requests

    from provision.errors import ProvisionError
    from provision.gitlab.api import Api, innermost_reason
    from provision.gitlab.session import days_left, session_for
    from provision.report.status import EndpointStatus
    from provision.secret import Secret

    connected = Api(url, Secret(""), ca, fallback, address).connected_address
    try:
        with session_for(url, ca, connected) as session:
            answer = session.get(f"{url}{path}", timeout=10, stream=True)
            days = days_left(answer)
    except requests.RequestException as error:
        return EndpointStatus(name, str(url), error=innermost_reason(error))
    except (ProvisionError, OSError) as error:
        return EndpointStatus(name, str(url), error=str(error))
    wrong = "" if answer.status_code == good else f"answers {answer.status_code}, expected {good}"
    return EndpointStatus(name, str(url), f"answers {answer.status_code}", days, wrong)


def projects_of(hosts: Sequence[Host]) -> tuple[str, ...]:
    """The projects of the inventory, and the one that `verify` pushes to."""
    from provision.inventory.tables.projects import Project
    from provision.inventory.tables.registry import Registry

    found: dict[str, None] = {}
    for host in hosts:
        found |= dict.fromkeys(host.settings.named(Project))
        registry = host.settings.get(Registry)
        if registry and registry.login and registry.login.image:
            found.setdefault(registry.login.image)
    return tuple(found)


def _tags(api: Api, project: str) -> list[StoredImage]:
    """The tags of a project's repositories. Raises ApiFailed.  Source: GitLab's API, container registry."""
    from urllib.parse import quote

    from provision.gitlab.api import project_address
    from provision.report.status import StoredImage

    place = f"{project_address(project)}/registry/repositories"
    listed = []
    for repository in api.get_list(place, {"per_page": 100}):
        tags = api.get_list(f"{place}/{repository['id']}/tags", {"per_page": 100})
        listed += [(repository, str(one["name"])) for one in tags]

    def details(one: tuple[dict[str, Any], str]) -> StoredImage | None:
        repository, tag = one
        found = api.find(f"{place}/{repository['id']}/tags/{quote(tag, safe='')}")
        if found is None:  # deleted in the meantime
            return None
        size, digest = int(found.get("total_size") or 0), str(found.get("digest") or "")
        return StoredImage(str(repository["path"]), tag, digest, size, _age(found.get("created_at")))

    return [one for one in at_once(details, listed) if one is not None]


def _with_apps(tags: Sequence[StoredImage], hosts: Sequence[HostStatus]) -> list[StoredImage]:
    from dataclasses import replace

    from provision.report.folding import fold_names

    where: dict[tuple[str, str], list[str]] = {}
    for host in hosts:
        for app in host.apps:
            where.setdefault((app.digest.rpartition("@")[2], app.name), []).append(host.name)
    listed = []
    for one in tags:
        runs = [
            f"{app} on {fold_names(names, limit=4)}"
            for (digest, app), names in sorted(where.items())
            if digest and digest == one.digest
        ]
        listed.append(replace(one, runs=tuple(runs)))
    return listed
