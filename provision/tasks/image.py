"""The task `image`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from provision.errors import UsageError, did_you_mean
from provision.host.image_registry import access_to, full_reference
from provision.image_name import parse_name
from provision.inventory import Host
from provision.inventory.tables.gitlab import Gitlab
from provision.inventory.tables.images import Image
from provision.inventory.tables.registry import Registry
from provision.resources import Packages, Resource
from provision.tasks.base import task
from provision.templating import names, names_in, render

if TYPE_CHECKING:
    from provision.formats.build_context import Context

_ENDING = ".Dockerfile.j2"


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
