"""Building a run from the user's options: inventory, hosts, plays, and the sessions to the hosts."""

from __future__ import annotations

import os
import socket
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from provision.engine.catalogue import Catalogue
from provision.engine.desired_state import HostPlay
from provision.engine.own_files import trusted_folders
from provision.engine.run import Run
from provision.errors import UsageError, nearest, together
from provision.gitlab.access import KeptTokens, keeps_records, keeps_token
from provision.inventory import Host, Inventory
from provision.inventory.reading import current_folder
from provision.inventory.secrets import missing_secrets
from provision.inventory.tables.base import options_of
from provision.inventory.tables.host import Ssh
from provision.secret import Secret
from provision.ssh.dial import Dialler
from provision.ssh.session import Session, Target
from provision.tasks.base import Play, Task
from provision.templating import use_templates_of


class Opener(Protocol):
    """Opens a session on a host, by its name. Raises Unreachable, BecomeError, Locked."""

    def __call__(self, name: str, /, *, lock: bool) -> Session: ...


def opener(hosts: Iterable[Host], password: Secret | None = None, missing: list[UsageError] | None = None) -> Opener:
    """A function that opens sessions on these hosts. `password` is the sudo password of -K.

    Secrets that cannot be fetched are added to `missing`; without it they are raised as one InventoryError.
    """
    return _opener(_targets(hosts, password, missing))


def _targets(
    hosts: Iterable[Host], password: Secret | None, missing: list[UsageError] | None = None
) -> dict[str, Target]:
    with missing_secrets() as found:
        targets = {one.name: _target(one, password) for one in hosts}
    if missing is not None:
        missing += found
    elif found:
        raise together(found)
    return targets


def _opener(targets: Mapping[str, Target], dialler: Dialler | None = None) -> Opener:
    def open_to(name: str, /, *, lock: bool) -> Session:
        from provision.ssh import connect

        return connect(targets[name], lock=lock, who=_who(), dialler=dialler)

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


class Options(NamedTuple):
    """What the user wrote on the command line.

    forks            hosts at once; None: `usual_forks`
    become_password  the sudo password that -K prompted for
    own              the hosts of this process, if others run the rest; None: all
    """

    names: tuple[str, ...]
    inventories: tuple[Path, ...]
    settings: tuple[str, ...] = ()
    limit: str | None = None
    check: bool = False
    forks: int | None = None
    become_password: str | None = None
    own: frozenset[str] | None = None


_FEWEST_FORKS: Final = 32  # enough for all hosts of an estate of usual size
_MOST_FORKS: Final = 52  # 64 threads with the others: main, live view, dialler, its eight resolvers, idle connections
_FORKS_PER_CORE: Final = 16
_FILES_PER_FORK: Final = 4  # a socket, or the process and the pipes of a ProxyCommand
_OTHER_FILES: Final = 64  # inventory, logs, files to copy, libraries that are being loaded


def usual_forks() -> int:
    """How many hosts are worked on at once: 16 for each core, from 32 to 52; fewer where few files may be open.

    Python runs one thread at a time, so more threads help only where they mostly wait for hosts.
    """
    import resource  # not needed with --forks

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    wanted = min(max(_FORKS_PER_CORE * cores, _FEWEST_FORKS), _MOST_FORKS)
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if files == resource.RLIM_INFINITY:
        return wanted
    return max(min(wanted, (files - _OTHER_FILES) // _FILES_PER_FORK), 1)


def open_files(hosts: int, forks: int, *, stay: bool) -> int:
    """Raise the limit of open files to what a run needs. Returns how many more files may be open for dialling hosts.

    hosts   the number of hosts
    stay    whether sessions stay open while hosts wait for other hosts: then all sessions may be open at once

    Raises UsageError when the system does not allow a process that many files.
    """
    import resource  # not needed with few hosts

    needed = (hosts if stay else min(hosts, forks)) + _OTHER_FILES + _FILES_PER_FORK * min(hosts, forks)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = sys.maxsize if hard == resource.RLIM_INFINITY else hard
    if needed > allowed:
        raise UsageError(
            f"{hosts} hosts need {needed} open files, but this system allows a process {allowed}",
            hint="raise the hard limit (`ulimit -Hn` as root, nofile in /etc/security/limits.conf, or LimitNOFILE of the"
            " systemd unit), use fewer --forks, or run on some of the hosts at a time (--limit)",
        )
    wanted = min(needed + hosts, allowed)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted - needed


def assemble(options: Options, catalogue: Catalogue | None = None) -> tuple[Run, Sequence[str]]:
    """The run, and warnings to print first. Raises UsageError and InventoryError; no host is contacted."""
    catalogue = catalogue or Catalogue.beside(options.inventories)
    by_name = catalogue.plays_by_name(options.names)
    plays = [one for several in by_name for one in several]
    inventory = catalogue.load(options.inventories, options.settings)
    templates, unused = trusted_folders(_template_folders(options.inventories))
    use_templates_of(templates)
    selected = inventory.select(options.limit)
    steps = _steps(by_name, selected)
    with_tasks = {name for one in steps for name in one.tasks}
    if not with_tasks:
        raise _nothing_to_do(options.names, plays, selected, inventory)
    hosts = [one for one in selected if one.name in with_tasks]
    if (own := options.own) is not None:
        hosts = [one for one in hosts if one.name in own]
        steps = [one._replace(tasks={name: one.tasks[name] for name in one.tasks if name in own}) for one in steps]
    password = Secret(options.become_password) if options.become_password is not None else None
    missing: list[UsageError] = []
    keeper = [one for one in inventory.hosts if keeps_records(one) and one not in hosts and keeps_token(one)]
    targets = _targets([*hosts, *keeper], password, missing)
    # With at least as many threads as hosts, a host that does not answer delays no other host: no dialler is needed.
    forks = options.forks or usual_forks()
    dialler = None
    if len(hosts) > forks:
        plays_of = Counter(name for one in steps for name in one.tasks)
        spare = open_files(len(hosts), forks, stay=max(plays_of.values()) > 1)
        dialler = Dialler(targets, forks, forks + spare)
    open_first, open_to = _opener(targets, dialler), _opener(targets)
    run = Run(
        options.names,
        hosts,
        steps,
        lambda host: open_first(host.name, lock=not options.check),
        listeners=(),
        check=options.check,
        forks=forks,
        login=lambda host: open_to(host.name, lock=False),
        mistakes=missing,
        tokens=KeptTokens(lambda name: open_to(name, lock=False)),
        dialler=dialler,
    )
    warnings = [*inventory.warnings, *(one.warning for one in unused)]
    return run, [*warnings, *_unmatched(plays, inventory)]


def _steps(by_name: Sequence[Sequence[Play]], selected: Sequence[Host]) -> list[HostPlay]:
    """The plays of each name, limited to the selected hosts. They wait for all plays of the names before."""
    concerned = [
        [
            {host: [task for task in one.tasks if task.concerns(host)] for host in _matching(one, selected)}
            for one in plays
        ]
        for plays in by_name
    ]
    contacted = {host for several in concerned for by_host in several for host, tasks in by_host.items() if tasks}
    steps: list[HostPlay] = []
    for plays, by_hosts in zip(by_name, concerned, strict=True):
        first = len(steps)
        ends: list[tuple[Play, int]] = []  # the plays of this name, and the last step of each
        for one, by_host in zip(plays, by_hosts, strict=True):
            after: tuple[int, ...] | None = None
            if one.after is not None:
                own = [end for other, end in ends if any(other is awaited for awaited in one.after)]
                after = (*range(first), *own)
            steps += _steps_of(one, by_host, contacted, after, len(steps))
            ends.append((one, len(steps) - 1))
    return steps


def _steps_of(
    one: Play,
    concerned: Mapping[Host, Sequence[Task]],
    contacted: Set[Host],
    after: tuple[int, ...] | None,
    first: int,
) -> list[HostPlay]:
    """The steps of a play. There is one; a serial play has one for each host, or one without hosts if it has none.

    first  the index of the first step
    """
    tasks = {
        host.name: tuple(task for task in one.tasks if task in own or (task.leftovers and host in contacted))
        for host, own in concerned.items()
    }
    with_tasks = {name: host_tasks for name, host_tasks in tasks.items() if host_tasks}
    if not one.serial or not with_tasks:
        return [HostPlay(with_tasks, after=after)]
    return [
        HostPlay({name: host_tasks}, f"chain {first}", after if number == 0 or after is None else (first + number - 1,))
        for number, (name, host_tasks) in enumerate(with_tasks.items())
    ]


def _matching(one: Play, hosts: Sequence[Host]) -> list[Host]:
    return [host for host in hosts if one.on == "all" or one.on in host.groups or one.on == host.name]


def _nothing_to_do(
    names: Sequence[str], plays: Sequence[Play], hosts: Sequence[Host], inventory: Inventory
) -> UsageError:
    what, matched = " ".join(names), any(_matching(one, hosts) for one in plays)
    if missing := _unmatched(plays, inventory):
        exists = ", ".join(inventory.groups) or "none"
        wanted = _wanted(plays, inventory)[0]
        return UsageError(
            "\n".join([f"nothing to do for {what}" if matched else f"no host to run {what} on", *missing]),
            hint=f'the groups of the inventory are: {exists}; write groups = ["{wanted}"] in [hosts.NAME]',
        )
    if matched:
        tables = dict.fromkeys(
            options_of(table).brackets for one in plays for task in one.tasks for table in task.tables
        )
        return UsageError(
            f"nothing to do for {what}: no settings for these tasks on the selected hosts",
            hint=f"the tasks read {', '.join(tables)}: see `provision explain`; also check --limit",
        )
    groups = ", ".join(dict.fromkeys(repr(one.on) for one in plays))
    return UsageError(
        f"no host to run {what} on: none of the selected hosts is in {groups}",
        hint="check --limit, and the groups in the inventory",
    )


def _wanted(plays: Sequence[Play], inventory: Inventory) -> list[str]:
    """The groups that the plays name and that no host is in."""
    known = {"all", *inventory.groups, *(host.name for host in inventory.hosts)}
    return [group for group in dict.fromkeys(one.on for one in plays) if group not in known]


def _unmatched(plays: Sequence[Play], inventory: Inventory) -> list[str]:
    """One line for each group that plays name and no host is in, with a group of a similar name."""
    used = {one.on for one in plays}
    lines = []
    for group in _wanted(plays, inventory):
        tasks = ", ".join(dict.fromkeys(task.name for one in plays if one.on == group for task in one.tasks))
        near = nearest(group, [one for one in inventory.groups if one not in used])
        typo = f"; there is a group {near!r}: did you mean {group!r}?" if near else ""
        lines.append(f"no host of the inventory is in group {group!r}: its tasks are not run ({tasks}){typo}")
    return lines


def _template_folders(inventories: Sequence[Path]) -> list[Path]:
    candidates = [*(one.resolve().parent / "templates" for one in inventories), current_folder() / "templates"]
    return [one for one in dict.fromkeys(candidates) if one.is_dir()]
