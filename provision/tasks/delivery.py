"""The tasks `image`, `deploy` and `prune`: images are built, run as apps, and removed when nothing uses them.

`prune` also installs a systemd timer that does the same every night.  Source: systemd.timer(5).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from provision.errors import UsageError, did_you_mean
from provision.host.docker import access_to, full_reference
from provision.host.scripts import file_text
from provision.image_name import Reference, parse, parse_name
from provision.inventory import Host
from provision.inventory.tables.apps import App
from provision.inventory.tables.gitlab import Gitlab
from provision.inventory.tables.images import Image, Prune
from provision.inventory.tables.projects import Project
from provision.inventory.tables.registry import Registry
from provision.resources import Absent, AbsentUnit, AppCheck, Deployment, DroppedApps, File, Packages, Resource, Unit
from provision.secret import Secret, reveal
from provision.tasks.base import task
from provision.tasks.project import held_projects
from provision.templating import names, names_in, render

if TYPE_CHECKING:
    from provision.formats.build_context import Context

_ENDING: Final = ".Dockerfile.j2"
_FOLDER: Final = "/usr/local/lib/provision"
_SCRIPT: Final = f"{_FOLDER}/prune"
_SERVICE: Final = "provision-prune.service"
_TIMER: Final = "provision-prune.timer"


def builds_images(host: Host) -> bool:
    """Whether any image is built on this host."""
    return any(_builder(host, one) == host.name for one in host.settings.all(Image))


@task(on="all", uses=(Image, Registry, Gitlab), where=builds_images)
def image(host: Host) -> Iterator[Resource]:
    """Build each image from its folder and push it under its tags."""
    from provision.resources import BuiltImage  # few inventories have images

    yield Packages(("curl", "ca-certificates"))
    for one in host.settings.all(Image):
        if _builder(host, one) != host.name:
            continue
        what = f"image {one.name}"
        name = full_reference(host, parse_name(one.name), what, required=one.push)
        context = _context(one)
        yield BuiltImage(
            name,
            one.tags,
            context,
            context.digest(),
            access_to(host, name, one.login, what, writes=one.push, token_server=one.token_server),
            one.push,
            one.build_args,
            one.target or "",
        )


def _builder(host: Host, one: Image) -> str:
    """The name of the host that builds an image."""
    if one.host is None:
        first = host.estate.first("runners")
        if first is None:
            raise UsageError(
                f"image {one.name}: no host to build it on", hint="name a host in host, or add one to the group runners"
            )
        return first.name
    known = host.estate.names("all") or (host.name,)
    if one.host not in known:
        raise UsageError(f"image {one.name}: no host has the name {one.host!r}{did_you_mean(one.host, known)}")
    return one.host


def _context(one: Image) -> Context:
    from provision.formats.build_context import Context

    if one.template is None:
        return Context(one.context, one.dockerfile or "Dockerfile")
    path = f"dockerfiles/{one.template}{_ENDING}"
    known = [name.removesuffix(_ENDING) for name in names("dockerfiles", _ENDING)]
    if one.template not in known:
        raise UsageError(
            f"image {one.name}: no template has the name {one.template!r}{did_you_mean(one.template, known)}",
            hint="your own are templates/dockerfiles/NAME.Dockerfile.j2 beside the inventory",
        )
    options = names_in(path)
    for option in one.options:
        if option not in options:
            raise UsageError(
                f"image {one.name}: the template {one.template} has no option {option!r}{did_you_mean(option, options)}",
                hint=f"the first lines of templates/{path} list them",
            )
    return Context(one.context, "Dockerfile", render(path, **one.options).encode())


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


@task(on="all", uses=(App, Project, Registry, Gitlab), where=may_have_apps, serial=True)
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
        reference = full_reference(host, parse(one.image), what, required=one.pull)
        if not reference.tag and not reference.digest:
            reference = reference.tagged("latest")
        yield Deployment(
            one.name,
            reference,
            access_to(host, reference, one.login, what, writes=False, token_server=one.token_server),
            _options(one),
            one.command,
            _environment(one),
            one.published,
            _check(one),
            one.pull,
            _released_by(host, reference),
            held_projects(host.estate),
        )


def _released_by(host: Host, image: Reference) -> str:
    """The project whose pipeline releases an image, if that pipeline is waited for; "" for none."""
    for path, one in host.settings.named(Project).items():
        if not one.wait:
            continue
        own = full_reference(host, Reference("", path.lower()), f"app of {image}", required=False).name
        released = one.pipeline.released(path, one.variables) if one.pipeline else None
        if f"{image.name}/".startswith(f"{own}/") or (released and released.domain and released.name == image.name):
            return path
    return ""


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


def _has_docker_work(host: Host) -> bool:
    return may_have_apps(host) or builds_images(host)


@task(on="all", settings=Prune, uses=(App, Image, Registry), where=_has_docker_work, removes=True)
def prune(host: Host, wanted: Prune) -> Iterator[Resource]:
    """Remove old stopped containers and unused images, except those of apps."""
    from provision.resources import UnusedImages  # no playbook has this task

    keep = _keep(host)
    yield UnusedImages(wanted.days, keep)
    if wanted.timer:
        command = " ".join([_SCRIPT, "remove", str(wanted.days), *keep])
        yield File(_SCRIPT, file_text("prune_docker"), mode="0755")
        yield Unit(_SERVICE, f"{_SERVICE}.j2", command=command, enabled=False, running=False)
        yield Unit(_TIMER, f"{_TIMER}.j2")
    else:
        yield AbsentUnit(_TIMER)
        yield AbsentUnit(_SERVICE)
        yield Absent(_SCRIPT)
        yield Absent(_FOLDER)


def _keep(host: Host) -> tuple[str, ...]:
    """The images to keep: those of the host's apps, and those that are in no registry."""
    references = [full_reference(host, parse(one.image), f"app {one.name}", required=one.pull) for one in apps_of(host)]
    for one in host.settings.all(Image):
        if not one.push:
            name = full_reference(host, parse_name(one.name), f"image {one.name}", required=False)
            references += [name.tagged(tag) for tag in one.tags]
    return tuple(dict.fromkeys(map(str, references)))
