"""`provision ci` on a terminal: the rows that are redrawn, for few and many projects, and the table at the end."""

from __future__ import annotations

import io
import json

import pytest
from rich.text import Text

from provision import masking
from provision.gitlab.pipelines import Job, News, Pipeline
from provision.report.status import PipelineReport


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        """It does."""
        return True


@pytest.fixture
def stream(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """A terminal of 24 lines."""
    for name, value in {"TERM": "xterm", "COLUMNS": "100", "LINES": "24"}.items():
        monkeypatch.setenv(name, value)
    for name in ("CI", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    return Terminal()


def pipeline(status: str, *jobs: Job, project: str = "sammy/hello") -> Pipeline:
    """A pipeline of a project."""
    return Pipeline(project, 7, "main", "1a2b3c4d" * 5, status, seconds=31 if status == "success" else None, jobs=jobs)


JOBS = (
    Job(1, "build", "build", "success", seconds=12.4),
    Job(2, "unit\x1b[2J", "test", "running", seconds=3.0, allow_failure=True),
    Job(3, "lint", "test", "failed", allow_failure=True),
    Job(4, "deploy", "deploy", "created", downstream=(4, 9, "running", "")),
)


def lines(report: PipelineReport) -> list[str]:
    """What is drawn."""
    return report.frame().plain.split("\n")


def test_stages_and_jobs(stream: Terminal) -> None:
    """Each stage has a line; names are printable."""
    report = PipelineReport(stream, as_json=False)
    report.show({"sammy/hello": pipeline("running", *JOBS), "sammy/new": None})
    assert lines(report) == [
        "sammy/hello  pipeline #7 of commit 1a2b3c4d on main  running",
        "  build  ✓ build 12.4 s",
        "  test  ● unit 3.0 s (running), ✗ lint (failed, allowed)",
        "  deploy  deploy → pipeline #9 (running)",
        "sammy/new  no pipeline yet",
    ]


def test_json_with_secrets_that_are_common(monkeypatch: pytest.MonkeyPatch) -> None:
    """A secret that is a number or the name of a state leaves the lines readable for programs."""
    monkeypatch.setattr(masking, "_index", masking._Index())
    for secret in ("4711", "failed"):
        masking._index.add(secret)
    stream = io.StringIO()
    report = PipelineReport(stream, as_json=True)
    one = pipeline("failed", Job(4711, "unit", "test", "failed"))
    report.news(News("sammy/hello", one, one.jobs[0]))
    report.end("sammy/hello", one, "password 4711 is wrong")
    report.close()
    first, last = map(json.loads, stream.getvalue().splitlines())
    assert (first["id"], first["status"]) == (4711, "failed")
    assert last["projects"][0]["status"] == "failed"
    assert "4711" not in last["projects"][0]["problem"]


def test_many_projects(stream: Terminal) -> None:
    """One line for each that has not succeeded, as many as fit, and the number of the others."""
    report = PipelineReport(stream, as_json=False)
    good = {f"team/p{number:03}": pipeline("success", *JOBS) for number in range(200)}
    report.show({**good, **{f"team/q{number:03}": pipeline("running", *JOBS) for number in range(100)}})
    drawn = lines(report)
    assert len(drawn) == 22
    assert drawn[0] == "team/q000  #7  running: unit"
    assert drawn[-1] == "… 79 more; 200 of 300 succeeded"


def test_the_end(stream: Terminal) -> None:
    """The table stays on the screen, and then come the failures."""
    report = PipelineReport(stream, as_json=False)
    with report:
        report.show({"sammy/hello": pipeline("running", *JOBS)})
    report.end("sammy/hello", pipeline("failed", *JOBS), "test: unit: failed\n  | not ok 1")
    report.close()
    shown = stream.getvalue().rpartition("pipelines\n")[2]
    assert "✓ build 12.4 s" in shown
    assert "sammy/hello: pipeline #7 of commit 1a2b3c4d on main failed: test: unit: failed\n  | not ok 1\n" in shown


def test_the_end_of_many(stream: Terminal) -> None:
    """A row for each project that failed, with its failed jobs, and one row for all that succeeded."""
    report = PipelineReport(stream, as_json=False, only_table=True)
    failed = Job(5, "unit", "test", "failed", seconds=6.0)
    for number in range(300):
        bad = number % 20 == 0
        name = f"team/p{number:03}"
        report.end(name, pipeline("failed", failed) if bad else pipeline("success", *JOBS), "no" if bad else "")
    report.close()
    table = Text.from_ansi(stream.getvalue().partition("\n\n")[0]).plain.split("\n")
    rows = [" ".join(line.split()) for line in table[2:]]
    assert rows == [*(f"team/p{number:03} #7 failed: unit" for number in range(0, 300, 20)), "285 others success"]
