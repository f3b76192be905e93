"""The task `deploy`."""

from __future__ import annotations

from collections.abc import Iterator

from provision.errors import UsageError, did_you_mean
from provision.host.image_registry import access_to, full_reference
from provision.image_name import parse
from provision.inventory import Host
from provision.inventory.tables.apps import App
from provision.inventory.tables.gitlab import Gitlab
from provision.inventory.tables.registry import Registry
from provision.resources import AppCheck, Deployment, DroppedApps, Packages, Resource
from provision.secret import Secret, reveal
from provision.tasks.base import task


def apps_of(host: Host) -> list[App]:
    """The apps that run on a host. Raises UsageError for an app on an unknown group or host."""
    apps = host.settings.all(App)
    known = {*host.estate.groups, *host.estate.names("all"), host.name} if apps else set()
    for one in apps:
        if one.on not in known:
            raise UsageError(f"app {one.name}: no group or host has the name {one.on!r}{did_you_mean(one.on, known)}")
    return [one for one in apps if one.runs_on(host)]


def may_have_apps(host: Host) -> bool:
    """Whether an app runs on the host, or may have run there before it was removed from the inventory."""
    return bool(apps_of(host)) or "runners" in host.groups


@task(on="all", uses=(App, Registry, Gitlab), where=may_have_apps, serial=True)
def deploy(host: Host) -> Iterator[Resource]:
    """Run each app in its container, from the image that its tag refers to."""
    apps = apps_of(host)
    _check_ports(host, apps)
    if apps:
        yield Packages(("curl", "ca-certificates"))
    # Before the others, to release ports and names.
    yield DroppedApps(tuple(one.name for one in apps))
    for one in apps:
        what = f"app {one.name}"
        image = full_reference(host, parse(one.image), what, required=one.pull)
        if not image.tag and not image.digest:
            image = image.tagged("latest")
        yield Deployment(
            one.name,
            image,
            access_to(host, image, one.login, what, writes=False, token_server=one.token_server),
            _options(one),
            one.command,
            _environment(one),
            one.published,
            _check(one),
            one.pull,
        )


def _check_ports(host: Host, apps: list[App]) -> None:
    holders: dict[tuple[int, str], tuple[App, str]] = {}
    for one in apps:
        for port in one.published:
            other, address = holders.setdefault((port.host, port.protocol), (one, port.address))
            if other is not one and (not address or not port.address or address == port.address):
                raise UsageError(
                    f"{host.name}: the apps {other.name} and {one.name} both publish port {port.host}",
                    hint="give one of them another port, or another host",
                )


def _options(one: App) -> tuple[str, ...]:
    options = ["--restart", one.restart]
    for port in one.ports:
        options += ["-p", port]
    for volume in one.volumes:
        options += ["-v", volume]
    if one.health:
        options += ["--health-cmd", one.health.command]
        for name in ("interval", "timeout", "start_period", "retries"):
            value = getattr(one.health, name)
            options += [f"--health-{name.replace('_', '-')}", str(value)] if value is not None else []
    return tuple(options)


def _environment(one: App) -> dict[str, str | Secret]:
    found: dict[str, str | Secret] = {}
    for name, value in one.environment.items():
        resolved = value if isinstance(value, str) else value.resolve()
        if "\n" in reveal(resolved) or "\0" in reveal(resolved):
            raise UsageError(
                f"app {one.name}: the secret for {name} has several lines; Docker's env files allow only one",
                hint="write it to a file on the host, and mount that file with volumes",
            )
        found[name] = resolved
    return found


def _check(one: App) -> AppCheck:
    check = one.check
    if check is None:
        return AppCheck()
    url = check.url.text if check.url else ""
    return AppCheck(url, check.status, check.contains or "", check.command or (), check.seconds)
