"""What `provision status`, `images` and `ci` print: the state of an estate as values, as tables, and as JSON.

Hosts that are alike share a row, so that 300 hosts fit on a screen. All texts of hosts and servers are made printable.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final, TextIO

from provision.masking import mask, printable
from provision.report.folding import fold_names
from provision.report.text import count, duration, safe_text, size
from provision.url import Url

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    from provision.gitlab.pipelines import Job, News, Pipeline

_FULL_DISK: Final = 85  # percent
_SOON_DAYS: Final = 21
_MANY_HOSTS: Final = 12
_LONGEST: Final = 60
Row = tuple[str, ...]


@dataclass(frozen=True)
class RunningApp:
    """A container of an app: its state as Docker prints it, and the digest of its image."""

    host: str
    name: str
    state: str
    status: str
    image: str
    digest: str


@dataclass
class HostStatus:
    """What a host answered. `error`: why it did not.

    units     of systemd, with their states
    services_down  GitLab's services that are down
    services       the number of GitLab's services
    disks     percent used and bytes left, by mount point
    last_run  seconds since a run recorded something; None: never
    """

    name: str
    groups: tuple[str, ...] = ()
    error: str = ""
    units: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    services_down: tuple[str, ...] = ()
    services: int = 0
    disks: dict[str, tuple[int, int]] = field(default_factory=dict)
    load: float = 0.0
    last_run: int | None = None
    pending: int = 0
    apps: list[RunningApp] = field(default_factory=list)

    @property
    def disk(self) -> int:
        """The percentage of the fullest disk."""
        return max((percent for percent, _ in self.disks.values()), default=0)

    @property
    def problems(self) -> list[str]:
        """What is wrong."""
        if self.error:
            return [self.error]
        found = [f"{name} is {state}" for name, state in self.units.items() if state != "active"]
        found += [f"GitLab's {name} is down" for name in self.services_down]
        found += [f"{path} is {percent} % full" for path, (percent, _) in self.disks.items() if percent >= _FULL_DISK]
        found += [f"{self.pending} pending handlers: run provision again"] if self.pending else []
        return found


@dataclass(frozen=True)
class RunnerStatus:
    """A runner as GitLab sees it. `contacted`: seconds ago; None: never."""

    id: int
    name: str
    state: str
    paused: bool
    version: str
    contacted: int | None


@dataclass(frozen=True)
class EndpointStatus:
    """A server: its answer, and the days that its certificate is valid; None without TLS. `error`: why there was no answer."""

    name: str
    url: str
    answer: str = ""
    days: int | None = None
    error: str = ""


@dataclass(frozen=True)
class EstateStatus:
    """The state of an estate. `gitlab_error`: why the runners are not known."""

    hosts: list[HostStatus]
    runners: list[RunnerStatus]
    endpoints: list[EndpointStatus]
    gitlab_error: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The state as JSON's types."""
        hosts = []
        for one in self.hosts:
            disks = {path: {"percent": percent, "free": free} for path, (percent, free) in one.disks.items()}
            hosts.append({**asdict(one), "disks": disks, "problems": one.problems})
        return {
            "schema": 1,
            "hosts": hosts,
            "runners": [asdict(one) for one in self.runners],
            "endpoints": [asdict(one) for one in self.endpoints],
            "gitlab_error": self.gitlab_error,
        }

    @property
    def is_good(self) -> bool:
        """Whether nothing is wrong."""
        return not (
            any(one.problems for one in self.hosts)
            or self.gitlab_error
            or any(one.error or (one.days is not None and one.days < 0) for one in self.endpoints)
            or any(app.state != "running" or "(unhealthy)" in app.status for host in self.hosts for app in host.apps)
            or any(one.state not in ("online", "idle", "active") for one in self.runners)
        )


@dataclass(frozen=True)
class StoredImage:
    """A tag in the registry. `age`: seconds, None if GitLab does not know; `runs`: the apps and hosts that run this digest."""

    repository: str
    tag: str
    digest: str
    bytes: int
    age: int | None
    runs: tuple[str, ...] = ()


def ago(seconds: int | None) -> str:
    """A time span in its largest unit: `3 days`."""
    if seconds is None:
        return "never"
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= length:
            return count(seconds // length, unit)
    return f"{max(seconds, 0)} s"


def print_status(status: EstateStatus, console: Console) -> None:
    """Prints the tables of a status that have rows."""
    hosts = _host_rows(status.hosts)
    _print(console, "hosts", ("host", "services", "versions", "disk", "load", "last change"), hosts)
    problems = [(fold_names(names, limit=4), text) for text, names in _grouped(_problems(status.hosts)).items()]
    _print(console, "problems", ("host", "problem"), problems, style="bad")
    rows = []
    for one in status.endpoints:
        days = "" if one.days is None else f"{one.days} days left"
        rows.append((one.name, one.url, one.error or one.answer, days))
    _print(console, "servers", ("server", "URL", "answer", "certificate"), rows)
    _print(console, "runners", ("runner", "in GitLab", "version", "last contact"), _runner_rows(status))
    _print(console, "apps", ("app", "image", "state", "hosts"), _app_rows(status))


def print_images(images: Sequence[StoredImage], console: Console) -> None:
    """Prints the registry's tags."""
    rows, last = [], ""
    for one in images:
        shown = "" if one.repository == last else one.repository
        last = one.repository
        digest = one.digest.removeprefix("sha256:")[:12]
        age = "unknown" if one.age is None else ago(one.age)
        rows.append((shown, one.tag, digest, size(one.bytes), age, ", ".join(one.runs)))
    _print(console, "images", ("repository", "tag", "digest", "size", "age", "runs as"), rows)


def _host_rows(hosts: Sequence[HostStatus]) -> list[Row]:
    """A row for each host; for many hosts, one for those with the same services and versions."""
    groups: dict[Row, list[HostStatus]] = {}
    for one in hosts:
        groups.setdefault(_kind(one) if len(hosts) > _MANY_HOSTS else (one.name,), []).append(one)
    rows: list[Row] = []
    for members in groups.values():
        first, names = members[0], fold_names((one.name for one in members), limit=4)
        if first.error:
            rows.append((_counted(names, members), "no answer", "", "", "", ""))
            continue
        services, versions = _kind(first)
        runs = [one.last_run for one in members if one.last_run is not None]
        last = ago(max(runs)) if len(runs) == len(members) else "never"
        fullest, load = max(one.disk for one in members), max(one.load for one in members)
        rows.append((_counted(names, members), services, versions, f"{fullest} %", f"{load:.1f}", last))
    return rows


def _kind(one: HostStatus) -> Row:
    if one.error:
        return ("no answer", "")
    services = [f"{name} {state}" if state != "active" else name for name, state in one.units.items()]
    if one.services:
        services.append(f"gitlab {one.services - len(one.services_down)}/{one.services}")
    # Without the epoch and the revision of the package: 5:28.5.2-1~debian.13~trixie
    versions = [f"{name} {version.rpartition(':')[2].partition('-')[0]}" for name, version in one.versions.items()]
    return ", ".join(services), ", ".join(versions)


def _counted(names: str, members: Sequence[object]) -> str:
    return f"{names} ({len(members)})" if len(members) > 1 else names


def _problems(hosts: Iterable[HostStatus]) -> list[tuple[str, str]]:
    return [(text, one.name) for one in hosts for text in one.problems]


def _grouped(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for key, value in pairs:
        found.setdefault(key, []).append(value)
    return found


def _runner_rows(status: EstateStatus) -> list[Row]:
    groups: dict[Row, list[RunnerStatus]] = {}
    for one in status.runners:
        state = f"{one.state}, paused" if one.paused else one.state
        groups.setdefault((one.name, state, one.version), []).append(one)
    rows: list[Row] = []
    for (name, state, version), members in sorted(groups.items()):
        times = [one.contacted for one in members if one.contacted is not None]
        number = f"{len(members)} " if len(members) > 1 else ""
        rows.append((name, number + state, version, f"{ago(max(times))} ago" if times else "never"))
    return rows + ([("GitLab does not answer", status.gitlab_error, "", "")] if status.gitlab_error else [])


def _app_rows(status: EstateStatus) -> list[Row]:
    """A row for each state of an app. An image of the estate's own registry has its name there, as in `images`."""
    registry = next((f"{Url.parse(one.url).authority}/" for one in status.endpoints if one.name == "registry"), "")
    groups: dict[Row, list[str]] = {}
    for host in status.hosts:
        for one in host.apps:
            health = next((word for word in ("unhealthy", "healthy", "starting") if f"({word}" in one.status), "")
            state = f"{one.state}, {health}" if health else one.state
            digest = one.digest.rpartition("@")[2].removeprefix("sha256:")[:12]
            name = one.image.removeprefix(registry)
            image = f"{name} ({digest})" if digest else name
            groups.setdefault((one.name, image, state), []).append(one.host)
    return [(*key, _counted(fold_names(names, limit=4), names)) for key, names in sorted(groups.items())]


def _print(console: Console, title: str, heads: Row, rows: Sequence[Row], *, style: str = "") -> None:
    """A table on a terminal; elsewhere one line for each row, with the columns aligned, and nothing cut off."""
    if not rows:
        return
    from rich.table import Table
    from rich.text import Text

    from provision.report.console import is_styled

    shown = [tuple(printable(cell) for cell in row) for row in rows]
    if is_styled(console):
        table = Table(
            title=Text(title, style="heading"), title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0)
        )
        for name in heads:
            table.add_column(Text(name, style="soft"), overflow="fold", max_width=_LONGEST)
        for row in shown:
            table.add_row(*(Text(cell, style=style or _style(cell)) for cell in row))
        console.print(table)
        console.print()
        return
    widths = [max(len(row[at]) for row in [heads, *shown]) for at in range(len(heads))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in [heads, *shown]]
    console.print("\n".join([title, *(f"  {line.rstrip()}" for line in lines), ""]), soft_wrap=True)


def _style(cell: str) -> str:
    """The colour of a cell, by what it reports."""
    if any(
        word in cell
        for word in ("inactive", "failed", "exited", "unhealthy", "no answer", "offline", "does not answer")
    ):
        return "bad"
    if any(word in cell for word in ("stale", "paused", "never", "starting", "restarting")):
        return "warning"
    days = cell.removesuffix(" days left")
    if days != cell and days.lstrip("-").isdigit() and int(days) < _SOON_DAYS:
        return "bad" if int(days) < 0 else "warning"
    return "none"


_SIGNS: Final = {"success": "✓", "failed": "✗", "canceled": "✗", "running": "●"}


def pipeline_rows(project: str, pipeline: Pipeline | None, problem: str = "") -> list[Row]:
    """A pipeline as rows of a table: its state, then one row for each stage with its jobs."""
    if pipeline is None:
        return [(project, "", problem.partition("\n")[0], "")]
    took = duration(pipeline.seconds) if pipeline.seconds else ""
    rows: list[Row] = [(project, pipeline.name, pipeline.status, took)]
    stages: dict[str, list[str]] = {}
    for one in pipeline.jobs:
        stages.setdefault(one.stage, []).append(_job(one))
    return rows + [("", f"  {stage}", ", ".join(jobs), "") for stage, jobs in stages.items()]


def _job(one: Job) -> str:
    sign = _SIGNS.get(one.status, "")
    took = f" {duration(one.seconds)}" if one.seconds and one.status != "created" else ""
    allowed = ", allowed" if one.allow_failure and one.status == "failed" else ""
    state = "" if one.status in ("success", "created") else f" ({one.status}{allowed})"
    below = f" → pipeline #{one.downstream[1]} ({one.downstream[2]})" if one.downstream else ""
    return f"{sign} {one.name}{took}{state}{below}".lstrip()


def _short_row(project: str, pipeline: Pipeline | None) -> Row:
    """A pipeline with the jobs that run or failed."""
    if pipeline is None:
        return (project, "no pipeline yet")
    jobs = [one.name for one in pipeline.jobs if one.status == "running" or one.is_failed]
    return (project, f"#{pipeline.id}", f"{pipeline.status}: {', '.join(jobs)}" if jobs else pipeline.status)


def _news_fields(one: News) -> dict[str, Any]:
    """The news as JSON's types: a `job`, a `pipeline` or a `message`."""
    if one.message or one.pipeline is None:
        return {"type": "message", "project": one.project, "text": one.message}
    if one.job is not None:
        job = {**one.job._asdict(), "downstream": one.job.downstream and one.job.downstream[1]}
        return {"type": "job", "project": one.project, "pipeline": one.pipeline.id, **job}
    fields = one.pipeline._asdict()
    del fields["jobs"]
    return {"type": "pipeline", **fields}


# Names and states that programs look up, as `mask_event` leaves them: a secret may happen to be "failed".
_NEVER_MASKED: Final = frozenset({"type", "project", "status", "source", "commit"})


def _masked(value: Any) -> Any:
    """A JSON value with the secrets in its texts masked. Numbers stay: a secret may happen to be the number of a job."""
    if isinstance(value, Mapping):
        return {
            name: one if name in _NEVER_MASKED and isinstance(one, str) else _masked(one) for name, one in value.items()
        }
    if isinstance(value, list | tuple):
        return [_masked(one) for one in value]
    return mask(value) if isinstance(value, str) else value


class PipelineReport:
    """What `provision ci` prints: lines, or on a terminal a table that is redrawn; or JSON lines.

    only_table  no news, only the state
    """

    def __init__(self, stream: TextIO, *, as_json: bool, only_table: bool = False) -> None:
        from provision.report.console import SafeStream, is_animated, open_console

        self._json = SafeStream(stream) if as_json else None
        self._console = open_console(stream)
        self._only_table = only_table
        self._animated = not as_json and not only_table and is_animated(self._console)
        self._live: Live | None = None
        self._shown: dict[str, Pipeline | None] = {}
        self._ended: dict[str, tuple[Pipeline | None, str]] = {}
        self._failures: list[str] = []
        self._has_begun = False

    def __enter__(self) -> PipelineReport:
        if self._animated:
            from rich.live import Live

            self._live = Live(console=self._console, get_renderable=self.frame, refresh_per_second=4, transient=True)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def news(self, one: News) -> None:
        """Prints something new."""
        if self._json is not None:
            self._write(_news_fields(one))
        elif one.message or not (self._animated or self._only_table):
            self._console.print(safe_text(f"{one.project}: {one.text}"), soft_wrap=True)

    def show(self, pipelines: Mapping[str, Pipeline | None]) -> None:
        """Redraws the table."""
        self._shown = dict(pipelines)

    def end(self, project: str, pipeline: Pipeline | None, problem: str) -> None:
        """Keeps how a project ended. `problem`: why it failed, or why there is no pipeline."""
        self._ended[project] = pipeline, problem
        if problem:
            self._failures.append(f"{project}: {f'{pipeline.name} {pipeline.status}: ' if pipeline else ''}{problem}")

    def close(self) -> None:
        """Prints how all projects ended. With many projects, each has one row, and those that succeeded share one."""
        if self._json is not None:
            listed = [
                {
                    "project": name,
                    "status": one.status if one else None,
                    "pipeline": one.id if one else None,
                    "url": one.url if one else None,
                    "problem": problem,
                }
                for name, (one, problem) in self._ended.items()
            ]
            self._write({"type": "summary", "projects": listed})
            return
        if self._animated or self._only_table:
            many, rows, good = len(self._ended) > _MANY_HOSTS, list[Row](), list[str]()
            for name, (one, problem) in self._ended.items():
                if many and one is not None and one.status == "success" and not problem:
                    good.append(name)
                elif many and one is not None:
                    rows.append((*_short_row(name, one), duration(one.seconds) if one.seconds else ""))
                else:
                    rows += pipeline_rows(name, one, problem)
            folded = _counted(fold_names(good), good)
            others = folded if len(folded) <= _LONGEST else f"{len(good)} others"
            rows += [(others, "", "success", "")] if good else []
            _print(self._console, "pipelines", ("project", "pipeline", "state", "time"), rows)
        for text in self._failures:
            self._console.print(safe_text(text), soft_wrap=True)

    def frame(self) -> Text:
        """As many rows as fit: with the stages, or else one for each project that has not succeeded."""
        from rich.text import Text

        room = max(self._console.height - 2, 1)
        rows = [row for name, one in self._shown.items() for row in pipeline_rows(name, one, "no pipeline yet")]
        more = ""
        if len(rows) > room:
            left = {name: one for name, one in self._shown.items() if one is None or one.status != "success"}
            rows = [_short_row(name, one) for name, one in left.items()][: room - 1]
            more = f"… {len(left) - len(rows)} more; {len(self._shown) - len(left)} of {len(self._shown)} succeeded"
        lines = [Text("  ").join(Text(printable(cell), _style(cell)) for cell in row if cell) for row in rows]
        lines += [Text(more, "soft")] if more else []
        return Text("\n", no_wrap=True, overflow="ellipsis").join(lines)

    def _write(self, fields: dict[str, Any]) -> None:
        if self._json is None:
            return
        first = {} if self._has_begun else {"schema": 1}
        self._has_begun = True
        self._json.write(json.dumps({**_masked(fields), **first}, separators=(",", ":")) + "\n")
        self._json.flush()
