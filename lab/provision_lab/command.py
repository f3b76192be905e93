"""`provision lab`: throwaway hosts on this machine, for rehearsals."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from provision_lab.flavours import FLAVOURS

if TYPE_CHECKING:
    from provision_lab import Lab

_NAME = click.option("--name", metavar="LAB", help="The lab's name. Default: lab, or the inventory file's name.")


@click.group("lab")
def lab() -> None:
    """Boot throwaway systemd hosts on this machine, to rehearse an inventory.

    GitLab and gitlab-runner are stand-ins there; systemd, SSH, apt, Docker and ufw are real.
    """


@lab.command("up")
@click.option(
    "-i",
    "--inventory",
    "inventories",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Boot this inventory's hosts. Default: three hosts, inventories/lab.toml.",
)
@_NAME
@click.option("--ubuntu", is_flag=True, help="Give hosts an os-release of Ubuntu 24.04. They still run the base image.")
@click.option("--like", type=click.Choice(sorted(FLAVOURS)), help="Make hosts like this system. They still run Debian.")
@click.option(
    "--real", is_flag=True, help="Give hosts internet access: real packages, no stand-ins. Needs --inventory."
)
@click.option("--suite", help="The base image's suite. Default: trixie.")
@click.option("--mirror", default="", help="The base image's archive. Default: Debian's.")
def up(
    inventories: tuple[Path, ...],
    name: str | None,
    ubuntu: bool,
    like: str | None,
    real: bool,
    suite: str | None,
    mirror: str,
) -> None:
    """Boot the hosts, with an apt repository, S3 and a certificate authority."""
    from provision.errors import UsageError
    from provision_lab import INVENTORY, Lab, rehearsal
    from provision_lab.image import DEFAULT_SUITE, Image
    from provision_lab.run import write_private

    if like and (ubuntu or real or suite or mirror):
        raise UsageError(
            "--like cannot be combined with --ubuntu, --suite, --mirror or --real: it sets suite and os-release,"
            " and packages of Ubuntu are not made for its hosts",
            hint=f"provision lab up --like {like}",
        )
    image = Image.like(like) if like else Image(suite or DEFAULT_SUITE, mirror)

    if real and not inventories:
        raise UsageError(
            "--real needs --inventory: the lab's own inventory names the lab's repositories",
            hint="provision lab up --real -i INVENTORY",
        )
    paths = inventories or (INVENTORY,)
    called = name or ("lab" if not inventories else _called(inventories[0]))
    hosts, server = rehearsal.plan(paths, ubuntu=ubuntu)
    there = Lab(
        called,
        hosts,
        server=server,
        image=image,
        internet=real,
        isolated=bool(inventories),
        forbidden=rehearsal.production(paths) if real else (),
    )
    fresh = there.up(lambda step: click.echo(f"  {step}", err=True))
    click.echo(f"lab {there.name} is {'up' if fresh else 'already up'}:")
    _show(there)
    files = " ".join(f"-i {_short(path)}" for path in paths)
    if called != "lab" or inventories or ubuntu or image != Image():
        import tomlkit

        overlay = there.folder / "overlay.toml"
        write_private(overlay, tomlkit.dumps(rehearsal.overlay(there, paths)))
        files += f" -i {overlay}"
    click.echo(f"next:\n  provision all {files} --check\n  provision all {files}")
    click.echo(f"  provision lab ssh {there.hosts[0].name}{_named(called)}\n  provision lab down{_named(called)}")


@lab.command("down")
@_NAME
@click.option("--all", "everything", is_flag=True, help="All labs of this machine, except those of running tests.")
def down(name: str | None, everything: bool) -> None:
    """End the hosts and remove everything of the lab. The base image stays in the cache."""
    from provision_lab import Lab, state
    from provision_lab.lab import sweep

    swept = sweep()
    for called in swept:
        click.echo(f"lab {called} is removed: its owner has ended")
    chosen = [one for one in state.names() if not _owned(one)] if everything else [name or "lab"]
    for called in chosen:
        if found := Lab.find(called):
            found.down()
            click.echo(f"lab {called} is removed: its processes, mounts, bridge and files")
        elif called not in swept:
            click.echo(f"there is no lab {called}{_others()}")


@lab.command("status")
def status() -> None:
    """List labs with their hosts, addresses and states."""
    from provision_lab import Lab, state

    for name in state.names():
        found = Lab.find(name)
        if found and found.complete:
            click.echo(f"lab {name}{' (owned by a running test)' if found.throwaway else ''}:")
            _show(found)
        else:
            click.echo(f"lab {name} is incomplete; to remove it: provision lab down{_named(name)}")
    if not state.names():
        click.echo("there is no lab; to boot one: provision lab up")


@lab.command("ssh", context_settings={"ignore_unknown_options": True})
@click.argument("host")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@_NAME
def ssh(host: str, command: tuple[str, ...], name: str | None) -> None:
    """Log in on HOST, or run COMMAND there."""
    import os

    from provision.errors import UsageError
    from provision_lab import Lab

    found = Lab.find(name or "lab")
    if found is None or not found.complete:
        raise UsageError(f"there is no lab {name or 'lab'}{_others()}", hint="provision lab up")
    argv = found.ssh_command(host)
    os.execvp(argv[0], [*argv, *command])


def _show(there: Lab) -> None:
    """Prints a line for each host and each service."""
    width = max(len(host.name) for host in there.hosts)
    for machine in there.machines:
        state = "answers" if machine.answers else "does not answer"
        click.echo(f"  {machine.host.name:<{width}}  {machine.host.address:<15}  {state}")
    click.echo(f"  {'apt':<{width}}  {there.apt_url}\n  {'s3':<{width}}  {there.s3_url}  bucket {there.server.bucket}")


def _called(path: Path) -> str:
    """A lab's name, made from a file's name."""
    letters = "".join(letter if letter.isalnum() and letter.isascii() else "-" for letter in path.stem.lower())
    return letters.strip("-")[:20].strip("-") or "rehearsal"


def _owned(name: str) -> bool:
    from provision_lab import Lab

    found = Lab.find(name)
    return found is not None and found.throwaway


def _named(name: str) -> str:
    return "" if name == "lab" else f" --name {name}"


def _others() -> str:
    from provision_lab import state

    return f"; existing labs: {', '.join(state.names())}" if state.names() else ""


def _short(path: Path) -> Path:
    """The path as the user would type it in the current folder."""
    linked = Path("inventories", path.name)
    if linked.exists() and linked.samefile(path):  # a checkout's link to the lab's own inventory
        return linked
    return path.resolve().relative_to(Path.cwd()) if path.resolve().is_relative_to(Path.cwd()) else path
