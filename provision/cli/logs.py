"""`provision logs APP`: the logs of an app's containers, from each of its hosts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from provision.cli.verbs import catalogue_of, inventory_option, report_unused, set_option, verbose_option

if TYPE_CHECKING:
    from provision.inventory import Host, Inventory

_TIMEOUT = 60.0  # seconds to print the last lines
_FOLLOW_TIMEOUT = 30 * 86400.0  # seconds, with --follow


@click.command("logs")
@click.argument("app")
@inventory_option(required=True)
@set_option
@click.option("-l", "--limit", metavar="PATTERN", help="Hosts and groups, as for a run.")
@click.option("-n", "--lines", type=click.IntRange(0), default=100, show_default=True, help="Lines from each host.")
@verbose_option
@click.option("-f", "--follow", is_flag=True, help="Print new lines as they arrive, until Ctrl-C.")
def logs(
    app: str,
    inventory: tuple[Path, ...],
    settings: tuple[str, ...],
    limit: str | None,
    lines: int,
    follow: bool,
    verbose: int,
) -> int:
    """Print the logs of APP's containers.

    Runs docker logs on each host. With several hosts, each line begins with the host's name. Secrets are masked, and
    escape sequences are removed.
    """
    from provision.engine.assemble import opener
    from provision.engine.each_host import EachHost
    from provision.errors import Unreachable
    from provision.host.scripts import script
    from provision.report.text import printable, safe_text
    from provision.shell import Result

    catalogue = catalogue_of(inventory)
    report_unused(catalogue, verbose=bool(verbose))
    hosts = _hosts_of(app, catalogue.load(inventory, settings), limit)

    def print_line(host: str, line: str) -> None:
        prefix = f"{host}: " if len(hosts) > 1 else ""
        click.echo(prefix + printable(line))

    def print_error(host: str, error: Exception) -> None:
        click.echo(safe_text(f"{host}: {error or type(error).__name__}"), err=True)

    everywhere = EachHost(
        opener(hosts),
        script("follow_logs" if follow else "show_logs", app, lines),
        deadline=_FOLLOW_TIMEOUT if follow else _TIMEOUT,
        on_line=print_line,
        on_error=print_error,
    )
    outcomes = everywhere.run([host.name for host in hosts]).values()
    if everywhere.interrupted:
        return 130
    if all(isinstance(one, Result) and one.code == 0 for one in outcomes):
        return 0
    failed = any(
        not isinstance(one, Unreachable) and not (isinstance(one, Result) and one.code == 0) for one in outcomes
    )
    return 1 if failed else 4


def _hosts_of(app: str, inventory: Inventory, limit: str | None) -> list[Host]:
    """The selected hosts that the app runs on. Raises UsageError when there are none."""
    from provision.errors import UsageError, did_you_mean
    from provision.inventory.tables.apps import App

    known = {one.name for host in inventory.hosts for one in host.settings.all(App)}
    if app not in known:
        raise UsageError(
            f"no app has the name {app!r}{did_you_mean(app, known)}", hint="apps are the [[apps]] of the inventory"
        )
    found = [
        host
        for host in inventory.select(limit)
        if any(one.name == app and one.runs_on(host) for one in host.settings.all(App))
    ]
    if not found:
        raise UsageError(
            f"{app} runs on none of the selected hosts", hint="check the app's key `on` in the inventory, and --limit"
        )
    return found
