"""`provision lab`: throwaway hosts on this machine, to rehearse on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from provision_lab import Lab

_NAME = click.option("--name", metavar="LAB", help="The lab's name. Default: lab, or the inventory file's name.")


@click.group("lab")
def lab() -> None:
    """Throwaway systemd hosts on this machine, to rehearse on before you touch production."""


@lab.command("up")
@click.option(
    "-i",
    "--inventory",
    "inventories",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Boot this inventory's hosts. Default: the three of inventories/lab.toml.",
)
@_NAME
@click.option("--ubuntu", is_flag=True, help="Hosts say that they are Ubuntu 24.04; they are still the base image's.")
@click.option("--real", is_flag=True, help="Hosts reach the internet: real packages, no stand-ins. Needs --inventory.")
@click.option("--suite", default="bookworm", show_default=True, help="The base image's suite.")
@click.option("--mirror", default="", help="The base image's archive. Default: Debian's.")
def up(inventories: tuple[Path, ...], name: str | None, ubuntu: bool, real: bool, suite: str, mirror: str) -> None:
    """Boots the hosts, with an apt repository, S3 and a certificate authority around them."""
    from provision.errors import UsageError
    from provision_lab import INVENTORY, Lab, rehearsal
    from provision_lab.image import Image
    from provision_lab.run import write_private

    if real and not inventories:
        raise UsageError("--real goes with --inventory", hint="inventories/lab.toml names the lab's own repositories")
    paths = inventories or (INVENTORY,)
    called = name or ("lab" if not inventories else _called(inventories[0]))
    hosts, server = rehearsal.plan(paths, ubuntu=ubuntu)
    there = Lab(called, hosts, server=server, image=Image(suite, mirror), internet=real)
    fresh = there.up(lambda step: click.echo(f"  {step} …", err=True))
    click.echo(f"lab {there.name} is up{'' if fresh else ' already'}:")
    _show(there)
    files = " ".join(f"-i {_short(path)}" for path in paths)
    if called != "lab" or inventories or ubuntu:
        import tomlkit

        overlay = there.folder / "overlay.toml"
        write_private(overlay, tomlkit.dumps(rehearsal.overlay(there, paths)))
        files += f" -i {overlay}"
    click.echo(f"next:\n  provision all {files} --check\n  provision all {files}")
    click.echo(f"  provision lab ssh {there.hosts[0].name}{_named(called)}\n  provision lab down{_named(called)}")


@lab.command("down")
@_NAME
@click.option("--all", "everything", is_flag=True, help="All labs of this machine, but those that tests own.")
def down(name: str | None, everything: bool) -> None:
    """Ends the hosts and removes all that was made for them; the base image is kept for the next time."""
    from provision_lab import Lab, state
    from provision_lab.lab import sweep

    swept = sweep()
    for called in swept:
        click.echo(f"lab {called}, whose owner is gone, is removed")
    chosen = [one for one in state.names() if not _owned(one)] if everything else [name or "lab"]
    for called in chosen:
        if found := Lab.find(called):
            found.down()
            click.echo(f"lab {called} is down: no process, mount, bridge or file of it is left")
        elif called not in swept:
            click.echo(f"there is no lab {called}{_others()}")


@lab.command("status")
def status() -> None:
    """Lists labs, their hosts, addresses and what state they are in."""
    from provision_lab import Lab, state

    for name in state.names():
        found = Lab.find(name)
        if found and found.complete:
            click.echo(f"lab {name}{' (owned by a running test)' if found.throwaway else ''}:")
            _show(found)
        else:
            click.echo(f"lab {name}: half made; provision lab down{_named(name)}")
    if not state.names():
        click.echo("there is no lab; provision lab up")


@lab.command("ssh", context_settings={"ignore_unknown_options": True})
@click.argument("host")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@_NAME
def ssh(host: str, command: tuple[str, ...], name: str | None) -> None:
    """Logs in on HOST, or runs COMMAND there."""
    import os

    from provision.errors import UsageError
    from provision_lab import Lab

    found = Lab.find(name or "lab")
    if found is None or not found.complete:
        raise UsageError(f"there is no lab {name or 'lab'}{_others()}", hint="provision lab up")
    argv = found.ssh_command(host)
    os.execvp(argv[0], [*argv, *command])


def _show(there: Lab) -> None:
    """One line a host, and one for each service."""
    width = max(len(host.name) for host in there.hosts)
    for machine in there.machines:
        state = "answers" if machine.answers else "does not answer"
        click.echo(f"  {machine.host.name:<{width}}  {machine.host.address:<15}  {state}")
    click.echo(f"  {'apt':<{width}}  {there.apt_url}\n  {'s3':<{width}}  {there.s3_url}  bucket {there.server.bucket}")


def _called(path: Path) -> str:
    """A lab's name after a file's."""
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

    return f"; there are: {', '.join(state.names())}" if state.names() else ""


def _short(path: Path) -> Path:
    """The path as the user would type it in the current folder."""
    linked = Path("inventories", path.name)
    if linked.exists() and linked.samefile(path):  # a checkout's link to the lab's own inventory
        return linked
    return path.resolve().relative_to(Path.cwd()) if path.resolve().is_relative_to(Path.cwd()) else path
