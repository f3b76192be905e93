"""The task `prune`, and the systemd timer that does the same every night.  Source: systemd.timer(5)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from provision.host.image_registry import full_reference
from provision.host.scripts import file_text
from provision.image_name import parse, parse_name
from provision.inventory import Host
from provision.inventory.tables.apps import App
from provision.inventory.tables.images import Image, Prune
from provision.inventory.tables.registry import Registry
from provision.resources import Absent, AbsentUnit, File, Resource, Unit
from provision.tasks.base import task
from provision.tasks.deploy import apps_of, may_have_apps
from provision.tasks.image import builds_images

_FOLDER: Final = "/usr/local/lib/provision"
_SCRIPT: Final = f"{_FOLDER}/prune"
_SERVICE: Final = "provision-prune.service"
_TIMER: Final = "provision-prune.timer"


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
