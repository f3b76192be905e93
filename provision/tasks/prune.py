"""The task `prune`."""

from __future__ import annotations

from collections.abc import Iterator

from provision.image_name import parse, parse_name
from provision.resources import PruneTimer, Resource, UnusedImages
from provision.tasks.base import Host, task
from provision.tasks.deploy import apps_of, concerns
from provision.tasks.image import builds
from provision.tasks.image_registry import full


@task(on="all", where=lambda host: concerns(host) or builds(host))
def prune(host: Host) -> Iterator[Resource]:
    """Stopped containers and images that no app and no container uses are gone, once they are old enough."""
    wanted = host.settings.prune
    keep = _keep(host)
    yield UnusedImages(wanted.days, keep)
    yield PruneTimer(wanted.timer, wanted.days, keep)


def _keep(host: Host) -> tuple[str, ...]:
    """The images of its apps, and those that are nowhere else."""
    references = [full(host, parse(one.image), f"app {one.name}", needed=one.pull) for one in apps_of(host)]
    for one in host.settings.images:
        if not one.push:
            name = full(host, parse_name(one.name), f"image {one.name}", needed=False)
            references += [name.tagged(tag) for tag in one.tags]
    return tuple(dict.fromkeys(map(str, references)))
