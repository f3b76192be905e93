"""Building a run from the user's options: inventory, hosts, plays, and the sessions to the hosts."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from provision.engine.catalogue import Catalogue
from provision.engine.desired_state import HostPlay
from provision.engine.run import Run
from provision.errors import UsageError
from provision.inventory import Host, Inventory
from provision.inventory.tables.host import Ssh
from provision.secret import Secret
from provision.ssh.session import Session, Target
from provision.tasks.base import Play
from provision.templating import use_templates_of


class Opener(Protocol):
    """Opens a session on a host, by its name. Raises Unreachable, BecomeError, Locked."""

    def __call__(self, name: str, /, *, lock: bool) -> Session: ...


def opener(hosts: Iterable[Host], password: Secret | None = None) -> Opener:
    """A function that opens sessions on these hosts. `password` is the sudo password of -K. Raises InventoryError."""
    targets = {one.name: _target(one, password) for one in hosts}

    def open_to(name: str, /, *, lock: bool) -> Session:
        from provision.ssh import connect

        return connect(targets[name], lock=lock, who=_who())

    return open_to


def _target(host: Host, password: Secret | None) -> Target:
    ssh = host.settings[Ssh]
    if password is None and ssh.become and ssh.become_password is not None:
        # Resolved before any host is contacted: a missing secret is bad input, not a failed host.
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


@dataclass(frozen=True)
class Options:
    """What the user wrote on the command line. `become_password` is the sudo password that -K prompted for."""

    names: tuple[str, ...]
    inventories: tuple[Path, ...]
    settings: tuple[str, ...] = ()
    limit: str | None = None
    check: bool = False
    forks: int = 32
    become_password: str | None = None


def assemble(options: Options) -> tuple[Run, Sequence[str]]:
    """The run, and warnings to print first. Raises UsageError and InventoryError; no host is contacted."""
    catalogue = Catalogue.beside(options.inventories)
    inventory = catalogue.load(options.inventories, options.settings)
    use_templates_of(_template_folders(options.inventories))
    plays = catalogue.plays(options.names)
    selected = inventory.select(options.limit)
    steps = [step for one in plays for step in _steps(one, selected)]
    with_tasks = {name for one in steps for name in one.tasks}
    if not with_tasks:
        raise _nothing_to_do(options.names, plays, selected)
    hosts = [one for one in selected if one.name in with_tasks]
    password = Secret(options.become_password) if options.become_password is not None else None
    open_to = opener(hosts, password)
    run = Run(
        options.names,
        hosts,
        steps,
        lambda host: open_to(host.name, lock=not options.check),
        listeners=(),
        check=options.check,
        forks=options.forks,
        login=lambda host: open_to(host.name, lock=False),
    )
    return run, [*inventory.warnings, *_unmatched(plays, inventory)]


def _steps(one: Play, hosts: Sequence[Host]) -> list[HostPlay]:
    tasks = {host.name: tuple(task for task in one.tasks if task.concerns(host)) for host in _matching(one, hosts)}
    concerned = {name: host_tasks for name, host_tasks in tasks.items() if host_tasks}
    if one.serial:
        chain = object()
        return [HostPlay({name: host_tasks}, chain) for name, host_tasks in concerned.items()]
    return [HostPlay(concerned)]


def _matching(one: Play, hosts: Sequence[Host]) -> list[Host]:
    return [host for host in hosts if one.on == "all" or one.on in host.groups or one.on == host.name]


def _nothing_to_do(names: Sequence[str], plays: Sequence[Play], hosts: Sequence[Host]) -> UsageError:
    if any(_matching(one, hosts) for one in plays):
        return UsageError(
            f"nothing to do for {' '.join(names)}: no settings for these tasks on the selected hosts",
            hint=f"`provision explain {names[0]}` names the tables that it reads; also check --limit",
        )
    groups = ", ".join(dict.fromkeys(repr(one.on) for one in plays))
    return UsageError(
        f"no host to run {' '.join(names)} on: none of the selected hosts is in {groups}",
        hint="check the groups in the inventory (provision inventory -i …), and --limit",
    )


def _unmatched(plays: Sequence[Play], inventory: Inventory) -> list[str]:
    known = {"all", *inventory.groups, *(host.name for host in inventory.hosts)}
    return [
        f"no host of the inventory is in group {group!r}: its tasks are not run"
        for group in dict.fromkeys(one.on for one in plays)
        if group not in known
    ]


def _template_folders(inventories: Sequence[Path]) -> list[Path]:
    candidates = [*(one.resolve().parent / "templates" for one in inventories), Path.cwd() / "templates"]
    return [one for one in dict.fromkeys(candidates) if one.is_dir()]
