"""The task `image`."""

from __future__ import annotations

from collections.abc import Iterator

from provision.errors import UsageError, did_you_mean
from provision.formats.build_context import Context
from provision.image_name import parse_name
from provision.inventory.tables.images import Image
from provision.resources import BuiltImage, Resource
from provision.tasks.base import Host, task
from provision.tasks.image_registry import full, registry_of
from provision.templating import names, names_in, render

_ENDING = ".Dockerfile.j2"


def builds(host: Host) -> bool:
    """Whether any image is built on this host."""
    return any(_builder(host, one) == host.name for one in host.settings.images)


@task(on="all", where=builds)
def image(host: Host) -> Iterator[Resource]:
    """Each image of the inventory is built from its folder, and stands under its tags in the registry."""
    for one in host.settings.images:
        if _builder(host, one) != host.name:
            continue
        what = f"image {one.name}"
        name = full(host, parse_name(one.name), what, needed=one.push)
        context = _context(one)
        yield BuiltImage(
            name,
            one.tags,
            context,
            context.digest(),
            registry_of(host, name, one.login, what, writes=one.push),
            one.push,
            one.build_args,
            one.target or "",
        )


def _builder(host: Host, one: Image) -> str:
    if one.host is None:
        first = next(iter(host.members.get("runners", ())), "")
        if not first:
            raise UsageError(
                f"image {one.name}: no host to build it on", hint="name one in host, or give a group runners"
            )
        return first
    names = host.members.get("all", (host.name,))
    if one.host not in names:
        raise UsageError(f"image {one.name}: no host is called {one.host!r}" + did_you_mean(one.host, names))
    return one.host


def _context(one: Image) -> Context:
    if one.template is None:
        return Context(one.context, one.dockerfile or "Dockerfile")
    path = f"dockerfiles/{one.template}{_ENDING}"
    shipped = [name.removesuffix(_ENDING) for name in names("dockerfiles", _ENDING)]
    if one.template not in shipped:
        raise UsageError(
            f"image {one.name}: no template is called {one.template!r}{did_you_mean(one.template, shipped)}",
            hint="your own are templates/dockerfiles/NAME.Dockerfile.j2 beside the inventory",
        )
    known = names_in(path)
    for option in one.options:
        if option not in known:
            raise UsageError(
                f"image {one.name}: the template {one.template} has no option {option!r}{did_you_mean(option, known)}",
                hint=f"the first lines of templates/{path} tell them",
            )
    return Context(one.context, "Dockerfile", render(path, **one.options).encode())
