"""`provision NAME… -i INVENTORY`: brings hosts to the state that the inventory describes."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from provision import __version__
from provision.cli.verbs import catalogue_of, describe_verbs, inventory_option, print_error, report_unused, set_option

if TYPE_CHECKING:
    from provision.cluster.client import ClusterRun
    from provision.engine.run import Run

_EXIT_CODES = """\
Exit codes: 0 converged · 1 a host failed · 2 bad usage or inventory, no host was contacted ·
3 --fail-on-change found changes · 4 hosts unreachable · 130 interrupted"""


class _Run(click.Command):
    """The default command. Its help is the program's help, which ends with the other verbs and the exit codes."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the verbs and the exit codes."""
        del ctx
        describe_verbs(formatter)
        formatter.write(f"\n{_EXIT_CODES}\n")


@click.command(
    "provision",
    cls=_Run,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    no_args_is_help=True,
)
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@inventory_option(required=True)
@click.option("-l", "--limit", metavar="PATTERN", help="Hosts and groups: web1,runners,!runner-3; globs allowed.")
@click.option("-C", "--check", is_flag=True, help="Plan only: nothing is changed on any host.")
@click.option("-D", "--diff", is_flag=True, help="Print each change's diff, secrets masked.")
@click.option("--fail-on-change", is_flag=True, help="With --check: exit 3 when changes are pending.")
@click.option(
    "-f", "--forks", type=click.IntRange(1), show_default="from cores and open-file limit", help="Hosts at once."
)
@click.option("-K", "--ask-become-pass", is_flag=True, help="Ask once for the sudo password.")
@set_option
@click.option("--dask", metavar="ADDRESS", help="Run on the workers of a Dask scheduler: tls://HOST:8786.")
@click.option("--json", is_flag=True, help="Events as JSON lines on stdout.")
@click.option(
    "--report", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE.html", help="Write an HTML report."
)
@click.option("--stats", is_flag=True, help="Per host: round trips, bytes, seconds.")
@click.option("-v", "--verbose", count=True, help="Print more; never secrets.")
@click.version_option(__version__, prog_name="provision")
def run(
    names: tuple[str, ...],
    inventory: tuple[Path, ...],
    limit: str | None,
    check: bool,
    diff: bool,
    fail_on_change: bool,
    forks: int | None,
    ask_become_pass: bool,
    settings: tuple[str, ...],
    dask: str | None,
    json: bool,
    report: Path | None,
    stats: bool,
    verbose: int,
) -> int:
    """Bring hosts to the state that the inventory describes.

    NAME is a playbook (all, server, runners), a task, or your own; several run in the order given.
    """
    if fail_on_change and not check:
        raise click.UsageError("--fail-on-change needs --check")
    from provision.engine.assemble import Options, assemble
    from provision.inventory.secrets import too_short
    from provision.report import listeners
    from provision.secret import mask

    options = Options(names, inventory, settings, limit, check, forks, _password() if ask_become_pass else None)
    catalogue = catalogue_of(inventory)
    chosen: Run | ClusterRun
    chosen, warnings = assemble(options, catalogue)
    if dask is not None:
        from provision.cluster.client import on_cluster

        chosen = on_cluster(chosen, options, dask, print_error)
    for warning in warnings:
        print_error(f"warning: {mask(warning)}")
    report_unused(catalogue, verbose=bool(verbose), warnings=False)
    flags = {"--check": check, "--diff": diff, "--fail-on-change": fail_on_change, "--stats": stats}
    flags |= {"--ask-become-pass": ask_become_pass, "--json": json}
    given = [flag for flag, is_given in flags.items() if is_given]
    given += ["--forks", str(forks)] if forks is not None else []
    given += ["--dask", dask] if dask is not None else []
    given += ["--report", str(report)] if report is not None else []
    given += [f"-{'v' * verbose}"] if verbose else []
    chosen.listeners = listeners(
        json=json,
        diff=diff,
        verbose=verbose,
        stats=stats,
        report=report,
        stdout=sys.stdout,
        stderr=sys.stderr,
        command=_command(names, inventory, settings, given),
    )
    summary = chosen.execute()
    for warning in too_short():
        print_error(f"warning: {mask(warning)}")
    if summary.interrupted:
        return 130
    if summary.failed:
        return 1
    if summary.unreachable:
        return 4
    return 3 if fail_on_change and summary.changed else 0


def _command(names: Sequence[str], inventory: Sequence[Path], settings: Sequence[str], given: Sequence[str]) -> str:
    """The command line of this run without --limit, for the hint after a failure; "" if it contains a secret."""
    from provision.secret import is_secret_name, mask, mask_secret_values

    for one in settings:
        key, _, value = one.partition("=")
        named = any(is_secret_name(part.strip("\"' ")) for part in key.split("."))
        plain = not value.lstrip().startswith("{")  # a table such as { env = "NAME" } only names a secret
        if (named and plain) or mask(one) != one or mask_secret_values(one) != one:
            return ""
    words = ["provision", *names]
    words += [word for one in inventory for word in ("-i", str(one))]
    words += [word for one in settings for word in ("--set", one)]
    return shlex.join([*words, *given])


def _password() -> str:
    import getpass

    return getpass.getpass("sudo password: ")
