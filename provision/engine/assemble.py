"""From what was typed to a run: inventory, hosts, plays, and how each host is reached."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from pathlib import Path

from provision.engine.catalogue import Catalogue, folders_beside
from provision.engine.run import HostPlay, Run
from provision.errors import UsageError
from provision.inventory import Host as InventoryHost
from provision.inventory import Inventory, load
from provision.secret import Secret
from provision.ssh.session import Session
from provision.ssh.target import Target
from provision.tasks.base import Host, Play
from provision.templating import use_templates_of
from provision.values import dataclass


@dataclass(frozen=True)
class Wishes:
    """What was typed. `become_password` came from -K."""

    names: tuple[str, ...]
    inventories: tuple[Path, ...]
    settings: tuple[str, ...] = ()
    limit: str | None = None
    check: bool = False
    forks: int = 32
    become_password: str | None = None


def assemble(wishes: Wishes) -> tuple[Run, Sequence[str]]:
    """The run, and warnings to show first. Raises UsageError and InventoryError; nothing is contacted."""
    inventory = load(wishes.inventories, wishes.settings)
    use_templates_of(_template_folders(wishes.inventories))
    catalogue = Catalogue.of(folders_beside(wishes.inventories))
    plays = catalogue.plays(wishes.names)
    chosen = inventory.select(wishes.limit)
    chosen_plays = [HostPlay(one.tasks, _names(one, chosen)) for one in plays]
    busy = {name for one in chosen_plays for name in one.hosts}
    if not busy:
        groups = ", ".join(dict.fromkeys(repr(one.on) for one in plays))
        raise UsageError(
            f"no host to run {' '.join(wishes.names)} on: none of the chosen hosts is in {groups}",
            hint="look at groups in the inventory (provision inventory -i …), and at --limit",
        )
    hosts = {one.name: one for one in chosen if one.name in busy}
    peers = {group: tuple(one.address for one in members) for group, members in inventory.groups.items()}
    named = frozenset(wishes.names)
    password = Secret(wishes.become_password) if wishes.become_password is not None else None
    targets = {name: _target(one, password) for name, one in hosts.items()}

    def connect(host: Host) -> Session:
        from provision.ssh import connect as open_session

        return open_session(targets[host.name], lock=not wishes.check, who=_who())

    def login(host: Host) -> Session:
        from provision.ssh import connect as open_session

        return open_session(targets[host.name], lock=False, who=_who())

    run = Run(
        wishes.names,
        [Host(one.name, one.address, one.groups, one.settings, named, peers=peers) for one in hosts.values()],
        chosen_plays,
        connect,
        listeners=(),
        check=wishes.check,
        forks=wishes.forks,
        login=login,
    )
    return run, [*inventory.warnings, *_unmatched(plays, inventory)]


def _names(one: Play, chosen: Sequence[InventoryHost]) -> tuple[str, ...]:
    return tuple(host.name for host in chosen if one.on == "all" or one.on in host.groups or one.on == host.name)


def _unmatched(plays: Sequence[Play], inventory: Inventory) -> list[str]:
    known = {"all", *inventory.groups, *(host.name for host in inventory.hosts)}
    return [
        f"no host of the inventory is in group {group!r}: its tasks are left out"
        for group in dict.fromkeys(one.on for one in plays)
        if group not in known
    ]


def _template_folders(inventories: Sequence[Path]) -> list[Path]:
    candidates = [*(one.resolve().parent / "templates" for one in inventories), Path.cwd() / "templates"]
    return [one for one in dict.fromkeys(candidates) if one.is_dir()]


def _target(host: InventoryHost, password: Secret | None) -> Target:
    ssh = host.settings.ssh
    if password is None and ssh.become and ssh.become_password is not None:
        # Fetched before anything is contacted: a missing secret is bad input, not a failed host.
        password = ssh.become_password.resolve()
    return Target(
        name=host.name,
        address=host.address,
        port=ssh.port,
        user=ssh.user,
        identity_file=ssh.identity_file,
        proxy_jump=ssh.proxy_jump,
        known_hosts=ssh.known_hosts,
        connect_timeout=ssh.connect_timeout,
        host_keys=ssh.host_keys,
        host_key=host.host_key,
        become=ssh.become,
        become_password=(lambda: password) if password is not None else None,
    )


def _who() -> str:
    import getpass

    return f"{getpass.getuser()}@{socket.gethostname()}, process {os.getpid()}"
