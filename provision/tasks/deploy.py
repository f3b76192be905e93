"""The task `deploy`."""

from __future__ import annotations

from collections.abc import Iterator

from provision.errors import UsageError, did_you_mean
from provision.image_name import parse
from provision.inventory.tables.apps import App
from provision.resources import AppCheck, Deployment, DroppedApps, Resource
from provision.secret import Secret, reveal
from provision.tasks.base import Host, task
from provision.tasks.image_registry import full, registry_of


def apps_of(host: Host) -> list[App]:
    """The apps that run on a host. Raises UsageError for an app on a group or host that there is not."""
    places = {*host.members, *host.members.get("all", (host.name,))}
    for one in host.settings.apps:
        if one.on not in places:
            raise UsageError(f"app {one.name}: no group or host is called {one.on!r}" + did_you_mean(one.on, places))
    return [one for one in host.settings.apps if one.on in ("all", host.name, *host.groups)]


def concerns(host: Host) -> bool:
    """Runner hosts, where an app that was dropped may have run, and whoever an app is on."""
    return bool(apps_of(host)) or "runners" in host.groups


@task(on="all", where=concerns, serial=True)
def deploy(host: Host) -> Iterator[Resource]:
    """Each app of the inventory runs in its container, of the image that its tag stands for."""
    apps = apps_of(host)
    _check_ports(host, apps)
    # First, so that a port or a name is free again.
    yield DroppedApps(tuple(one.name for one in apps))
    for one in apps:
        what = f"app {one.name}"
        image = full(host, parse(one.image), what, needed=one.pull)
        if not image.tag and not image.digest:
            image = image.tagged("latest")
        yield Deployment(
            one.name,
            image,
            registry_of(host, image, one.login, what, writes=False),
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
                f"app {one.name}: the secret for {name} has several lines, and Docker's env files hold one",
                hint="give it to the host as a file, and mount that in volumes",
            )
        found[name] = resolved
    return found


def _check(one: App) -> AppCheck:
    check = one.check
    if check is None:
        return AppCheck()
    return AppCheck(
        check.url.text if check.url else "", check.status, check.contains or "", check.command or (), check.seconds
    )
