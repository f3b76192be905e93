"""The verbs that follow something until it ends or Ctrl-C: `logs` of apps, and `ci`, the pipelines of projects.

They change nothing. `ci` asks GitLab's API only; hosts are contacted to read a token that is kept there.
"""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from provision.cli.hosts import api_of, at_once, projects_of, reading_tokens, selected
from provision.cli.verbs import catalogue_of, inventory_option, print_error, report_unused, set_option, verbose_option

if TYPE_CHECKING:
    from provision.gitlab.api import Api
    from provision.gitlab.pipelines import Follower
    from provision.inventory import Host, Inventory
    from provision.report.status import PipelineReport

T = TypeVar("T")

_TIMEOUT = 60.0  # seconds for one command on a host
_FOLLOW_TIMEOUT = 30 * 86400.0  # seconds, with --follow
_WAIT_SECONDS = 3600  # for projects that the inventory does not have
_SECONDS_EACH = 0.05  # between two polls of one project, so that many projects are not a burden for GitLab


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
    from provision.masking import printable
    from provision.report.text import safe_text
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
        lambda _: script("follow_logs" if follow else "show_logs", app, lines),
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


@click.command("ci")
@click.argument("projects", nargs=-1, metavar="[PROJECT...]")
@inventory_option(required=True)
@set_option
@click.option("--no-wait", is_flag=True, help="Print the state and exit.")
@click.option("--json", "as_json", is_flag=True, help="Events as JSON lines.")
@verbose_option
def ci(
    projects: tuple[str, ...],
    inventory: tuple[Path, ...],
    settings: tuple[str, ...],
    no_wait: bool,
    as_json: bool,
    verbose: int,
) -> int:
    """Follow the newest pipeline of each PROJECT to its end, with the last lines of its failed jobs.

    That is the pipeline of the default branch's newest commit. Without PROJECT, the projects of the inventory. Nothing is
    changed; Ctrl-C ends the following, not the pipelines. The exit code is 1 if a pipeline failed.
    """
    from provision.errors import UsageError
    from provision.report.status import PipelineReport

    hosts, opener = selected(inventory, settings, None, verbose)
    wanted = tuple(dict.fromkeys(projects or projects_of(hosts)))
    if not wanted:
        raise UsageError("the inventory has no project", hint="name one: provision ci group/name -i …")
    with reading_tokens(opener):
        api = api_of(hosts)
        if api is None:
            raise UsageError(
                "provision ci needs GitLab's API, and gitlab.external_url or gitlab.api_token is missing",
                hint="add them to the inventory",
            )
        watch = _Watch(api, wanted, _limits(hosts), PipelineReport(sys.stdout, as_json=as_json, only_table=no_wait))
        try:
            with watch.report:
                watch.start(wait=not no_wait)
                while not no_wait and watch.running:
                    time.sleep(watch.interval)
                    watch.poll()
        except KeyboardInterrupt:
            words = [word for one in inventory for word in ("-i", str(one))]
            words += [word for one in settings for word in ("--set", one)]
            again = shlex.join(["provision", "ci", *projects, *words, *(["--json"] if as_json else [])])
            print_error(f"following ended; the pipelines go on in GitLab. To follow them again: {again}")
            return 130
        return 1 if watch.end(named=bool(projects)) else 0


def _limits(hosts: Sequence[Host]) -> dict[str, int]:
    """For how many seconds each project of the inventory is followed."""
    from provision.inventory.tables.projects import Project

    return {path: one.wait_timeout for host in hosts for path, one in host.settings.named(Project).items()}


class _Watch:
    """The pipelines of several projects. A project that GitLab refuses does not end the following of the others."""

    def __init__(self, api: Api, projects: Sequence[str], limits: dict[str, int], report: PipelineReport) -> None:
        self.report = report
        self._api, self._projects, self._limits = api, projects, limits
        self._followers: dict[str, Follower] = {}
        self._errors: dict[str, str] = {}
        self._began = time.monotonic()

    @property
    def running(self) -> list[str]:
        """The projects that are followed."""
        return [name for name, one in self._followers.items() if not one.has_ended and name not in self._errors]

    @property
    def interval(self) -> float:
        """Seconds until the next poll."""
        running = self.running
        return max(min(self._followers[one].interval for one in running), _SECONDS_EACH * len(running))

    def start(self, *, wait: bool) -> None:
        """Finds the pipeline of each project, and asks for its state. `wait`: also for one that is not created yet."""
        from provision.gitlab.pipelines import follow_newest

        def begin(project: str) -> Follower | None:
            return self._tried(project, lambda: follow_newest(self._api, project, wait=wait))

        found = zip(self._projects, at_once(begin, self._projects), strict=True)
        self._followers = {project: one for project, one in found if one is not None}
        self.poll()

    def poll(self) -> None:
        """Asks for the state of each pipeline that has not ended."""
        polled = self.running
        for news in at_once(lambda name: self._tried(name, self._followers[name].poll), polled):
            for one in news or ():
                self.report.news(one)
        self.report.show({name: one.pipeline for name, one in self._followers.items()})
        spent = time.monotonic() - self._began
        for name in self.running:
            limit = self._limits.get(name, _WAIT_SECONDS)
            if spent > limit:
                self._errors[name] = f"did not end in {limit} s: {self._followers[name].still}; it goes on in GitLab"

    def end(self, *, named: bool) -> bool:
        """Reports failures, and returns whether there are any. `named`: a missing pipeline is one, too."""
        failed = False
        for name in self._projects:
            one = self._followers.get(name)
            pipeline, problem = (one.pipeline, one.problem) if one else (None, "")
            error = self._errors.get(name, "")
            why = ""
            if not error and one and pipeline and pipeline.is_failed:
                why = self._tried(name, partial(one.pipelines.why_failed, pipeline)) or self._errors[name]
            failed = failed or bool(error or why) or (named and pipeline is None)
            self.report.end(name, pipeline, error or problem or why or ("" if pipeline else "no pipeline yet"))
        self.report.close()
        return failed

    def _tried(self, project: str, ask: Callable[[], T]) -> T | None:
        from provision.errors import ApiFailed

        try:
            return ask()
        except ApiFailed as error:
            self._errors[project] = str(error)
            return None
