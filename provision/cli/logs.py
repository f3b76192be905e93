"""`provision logs APP`: what an app's containers say, from each of its hosts."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import TYPE_CHECKING

import click

from provision.cli.options import inventory_option, set_option

if TYPE_CHECKING:
    from provision.engine.assemble import Opener
    from provision.inventory import Host, Inventory
    from provision.shell import Command
    from provision.ssh.session import Session

_AT_ONCE, _MONTH = 60.0, 30 * 86400.0  # seconds


@click.command("logs")
@click.argument("app")
@inventory_option(required=True)
@set_option
@click.option("-l", "--limit", metavar="PATTERN", help="Hosts and groups, as for a run.")
@click.option("-n", "--lines", type=click.IntRange(0), default=100, show_default=True, help="Lines from each host.")
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes; Ctrl-C ends it.")
def logs(
    app: str, inventory: tuple[Path, ...], settings: tuple[str, ...], limit: str | None, lines: int, follow: bool
) -> int:
    """Shows what APP's containers say: docker logs of each host, with the host's name where there are several."""
    from provision.engine.assemble import opener
    from provision.host.scripts import script
    from provision.inventory import load

    loaded = load(inventory, settings)
    hosts = _hosts(loaded, app, limit)
    command = script("follow_logs" if follow else "show_logs", app, lines)
    return _Show(hosts, opener(hosts), command, _MONTH if follow else _AT_ONCE).run()


def _hosts(inventory: Inventory, app: str, limit: str | None) -> list[Host]:
    from provision.errors import UsageError, did_you_mean

    known = {one.name for host in inventory.hosts for one in host.settings.apps}
    if app not in known:
        raise UsageError(
            f"no app is called {app!r}{did_you_mean(app, known)}", hint="apps are the [[apps]] of the inventory"
        )
    chosen = inventory.select(limit)
    places = {host.name: ("all", host.name, *host.groups) for host in chosen}
    found = [
        host for host in chosen if any(one.name == app and one.on in places[host.name] for one in host.settings.apps)
    ]
    if not found:
        raise UsageError(f"{app} runs on none of the chosen hosts", hint="look at its key on, and at --limit")
    return found


class _Show:
    """One thread a host; whole lines, so that hosts don't mix."""

    def __init__(self, hosts: Sequence[Host], open_to: Opener, command: Command, deadline: float) -> None:
        self._names = [host.name for host in hosts]
        self._open_to = open_to
        self._command = command
        self._deadline = deadline
        self._sessions: list[Session] = []
        self._printing = threading.Lock()

    def run(self) -> int:
        """Exit code 0, 1 where a host failed, 4 where one was not reached and none failed, 130 after Ctrl-C."""
        from provision.errors import ProvisionError, Unreachable

        codes = set()
        with ThreadPoolExecutor(len(self._names)) as pool:
            jobs = {pool.submit(self._one, name): name for name in self._names}
            try:
                for job in as_completed(jobs):
                    try:
                        codes.add(job.result())
                    except ProvisionError as error:
                        codes.add(4 if isinstance(error, Unreachable) else 1)
                        click.echo(f"{jobs[job]}: {error}", err=True)
            except KeyboardInterrupt:
                for session in self._sessions:
                    session.abort()
                return 130
        return 1 if 1 in codes else max(codes)

    def _one(self, name: str) -> int:
        session = self._open_to(name, lock=False)
        self._sessions.append(session)
        rest = b""

        def heard(piece: bytes) -> None:
            nonlocal rest
            *lines, rest = (rest + piece).split(b"\n")
            self._print(name, lines)

        try:
            result = session.run(self._command, deadline=self._deadline, on_output=heard)
            self._print(name, [rest] if rest else [])
            return 1 if result.code else 0
        finally:
            session.close()

    def _print(self, name: str, lines: Sequence[bytes]) -> None:
        from provision.secret import mask

        before = f"{name}: " if len(self._names) > 1 else ""
        with self._printing:
            for line in lines:
                click.echo(before + mask(line.decode("utf-8", "replace")))
