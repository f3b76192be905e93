"""The page of a run is complete and self-contained, and untrusted text in it is escaped."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Callable, Sequence
from html.parser import HTMLParser
from pathlib import Path

import pytest

from provision.engine.events import (
    ChangeEvent,
    ErrorEvent,
    Event,
    HostSummary,
    Message,
    Start,
    Status,
    Summary,
    TaskDone,
)
from provision.errors import UsageError
from provision.report.html import HtmlReport
from provision.secret import Secret
from provision.templating import use_templates_of
from tests.unit.report.fake_runs import everywhere

EventsOf = Callable[[str], list[Event]]
VOID = {"meta", "input", "br", "link", "img"}


class Page(HTMLParser):
    """A parsed page: tags with their attributes, the text, and the tags that are still open."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.text += data

    def count(self, tag: str, **attrs: str) -> int:
        """How many elements have this tag and these words in these attributes."""
        return sum(
            one == tag and all(word in (has.get(name.rstrip("_")) or "").split() for name, word in attrs.items())
            for one, has in self.tags
        )


def page(events: Sequence[Event], folder: Path) -> Page:
    """The page written for these events."""
    listener = HtmlReport(folder / "report.html", io.StringIO(), "provision runners -i i.toml")
    for event in events:
        listener.on(event)
    listener.close()
    parsed = Page((folder / "report.html").read_text(encoding="utf-8"))
    assert parsed.open == []
    return parsed


@pytest.mark.parametrize("run", ["first", "check", "noop", "failed", "interrupted", "many"])
def test_page_needs_nothing_else(run: str, events_of: EventsOf, tmp_path: Path) -> None:
    """No address to fetch from, for any kind of run; and the elements close in order."""
    parsed = page(events_of(run), tmp_path)
    for tag, attrs in parsed.tags:
        assert tag not in ("link", "img", "iframe", "object")
        assert not {"src", "href", "srcset"} & set(attrs)


def test_errors_come_first_and_each_host_has_a_cell_per_task(events_of: EventsOf, tmp_path: Path) -> None:
    """Each error with its hint, and the option to rerun only the hosts concerned."""
    parsed = page(events_of("failed"), tmp_path)
    assert parsed.text.index("What failed") < parsed.text.index("Hosts and tasks") < parsed.text.index("What changed")
    assert "run `apt-cache madison docker-ce` on the host" in parsed.text
    assert "After the fix, rerun only these hosts: provision runners -i i.toml --limit runner-1,runner-2" in parsed.text
    assert sum("data-bad" in attrs for tag, attrs in parsed.tags if tag == "tr") == 2
    cells = {status: parsed.count("span", class_=status) for status in ("failed", "unreachable", "skipped")}
    # a cell each, one more in the legend; what ran has a bar too
    assert cells == {"failed": 3, "unreachable": 3, "skipped": 3}


def test_plays_and_what_they_wait_for(events_of: EventsOf, tmp_path: Path) -> None:
    """A line for each."""
    text = page(events_of("first"), tmp_path).text
    assert "3  runner-[1:2]: register, verify (after 1)" in text
    assert "Plays" not in page(events_of("noop"), tmp_path).text


def test_changes_with_diffs_are_folded(events_of: EventsOf, tmp_path: Path) -> None:
    """Each change is shown once; its diff can be opened."""
    parsed = page(events_of("many"), tmp_path)
    assert parsed.text.count("restart docker") == 1
    assert parsed.text.count("write /etc/docker/daemon.json") == 2
    assert parsed.count("details") == 2
    assert parsed.count("tr") == 61


def test_untrusted_text_is_escaped(tmp_path: Path) -> None:
    """Text from hosts cannot become part of the page's structure."""
    evil = "</pre><script>alert(1)</script>\"'"
    parsed = page(everywhere(evil), tmp_path)
    assert parsed.count("script") == 1  # ours
    assert parsed.text.count(evil) == 6


def test_secrets_are_masked_and_unprintable_characters_shown(tmp_path: Path) -> None:
    """Escape sequences are removed; bytes that are not text are shown as escapes."""
    canary = Secret("canary-93c1").reveal()
    parsed = page([Start(("t",), ("h",), False), Message("h", "t", f"{canary} \udcff \x1b]0;x\x07 \x00")], tmp_path)
    assert "canary" not in parsed.text
    assert "*** \\udcff  \\x00" in parsed.text


def test_run_without_a_summary_has_a_page(events_of: EventsOf, tmp_path: Path) -> None:
    """It shows what is known, and that the run did not complete."""
    parsed = page([event for event in events_of("first") if not isinstance(event, Summary)], tmp_path)
    assert "The run did not complete" in parsed.text
    assert "reconfigure GitLab" in parsed.text


def test_run_that_never_began_has_a_page(tmp_path: Path) -> None:
    """Without any event, the page says that the run did not complete."""
    assert "The run did not complete" in page([], tmp_path).text


def test_page_is_written_at_once_with_the_mode_of_the_umask(tmp_path: Path, events_of: EventsOf) -> None:
    """There is no file before the end, and no temporary file afterwards."""
    path = tmp_path / "report.html"
    listener = HtmlReport(path, io.StringIO())
    for event in events_of("noop"):
        listener.on(event)
    assert list(tmp_path.iterdir()) == []
    before = os.umask(0o027)
    try:
        listener.close()
    finally:
        os.umask(before)
    assert list(tmp_path.iterdir()) == [path]
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_broken_template_leaves_the_earlier_page_unchanged(tmp_path: Path, events_of: EventsOf) -> None:
    """A page that cannot be rendered is reported on stderr."""
    path = tmp_path / "report.html"
    path.write_text("yesterday")
    mine = tmp_path / "templates"
    mine.mkdir()
    (mine / "report.html.j2").write_text("{{ nothing_of_that_name }}")
    stderr = io.StringIO()
    use_templates_of([mine])
    try:
        listener = HtmlReport(path, stderr)
        for event in events_of("noop"):
            listener.on(event)
        listener.close()
    finally:
        use_templates_of([])
    assert path.read_text() == "yesterday"
    assert "report.html was not written: templates/report.html.j2" in stderr.getvalue()
    assert sorted(one.name for one in tmp_path.iterdir()) == ["report.html", "templates"]


@pytest.mark.parametrize("where", ["missing/report.html", "."])
def test_impossible_path_is_refused_at_once(where: str, tmp_path: Path) -> None:
    """The user learns it before anything is contacted."""
    with pytest.raises(UsageError, match="--report"):
        HtmlReport(tmp_path / where, io.StringIO())


class TestManyHosts:
    """The page of a large run is small, because hosts whose tasks ended in the same way share a row and a lane."""

    @staticmethod
    def events(hosts: int) -> list[Event]:
        """Three tasks on each host; every tenth has a change, and the last one fails."""
        names = tuple(f"web{number:04}" for number in range(hosts))
        events: list[Event] = [Start(("all",), names, False)]
        for number, name in enumerate(names):
            changes = int(number % 10 == 0)
            if changes:
                events.append(ChangeEvent(name, "docker", "File x", "update", "write x", f"+{number}", True))
            if number == hosts - 1:
                events.append(ErrorEvent(name, "docker", "File x", "ChangeFailed", "disk full", ""))
            status: Status = "failed" if number == hosts - 1 else "changed" if changes else "ok"
            events.append(TaskDone(name, "docker", status, number / 100, changes, "Docker"))
            events += [TaskDone(name, task, "ok", 0.1) for task in ("runner", "register")]
        counts = {
            name: HostSummary(3, int(number % 10 == 0), int(number == hosts - 1), round_trips=5, bytes_sent=number)
            for number, name in enumerate(names)
        }
        return [*events, Summary(False, hosts // 10, 1, 0, 30.0, counts)]

    def test_equal_hosts_share_a_row(self, tmp_path: Path) -> None:
        """The figures of a shared row are ranges, and each of its names can be searched. A failed host has its own row."""
        parsed = page(self.events(1000), tmp_path)
        rows = [attrs for tag, attrs in parsed.tags if tag == "tr" and "data-row" in attrs]
        assert [len((one["data-hosts"] or "").split()) for one in rows] == [100, 899, 1]
        assert [one["data-row"] for one in rows] == ["0", "1", "2"]
        assert ["data-bad" in one for one in rows] == [False, False, True]
        assert rows[2]["data-name"] == "web0999"
        assert parsed.count("div", class_="lane") == 3
        assert "0 B–990 B" in parsed.text
        titles = [attrs.get("title") for _, attrs in parsed.tags]
        assert "web[0000,0010,0020,0030,0040,0050] and 94 more: docker: changed, 1 change, 0.0 s–9.9 s" in titles
        assert [attrs["data-rows"] for _, attrs in parsed.tags if "data-rows" in attrs][:1] == [" 0 "]

    def test_up_to_a_hundred_hosts_each_has_a_row(self, tmp_path: Path) -> None:
        """100 hosts have a row each. With one more host, equal hosts share rows."""
        for hosts, rows in ((100, 100), (101, 3)):
            parsed = page(self.events(hosts), tmp_path)
            assert sum(tag == "tr" and "data-row" in attrs for tag, attrs in parsed.tags) == rows
            assert parsed.count("div", class_="lane") == rows

    def test_the_page_does_not_grow_with_equal_hosts(self, tmp_path: Path) -> None:
        """Ten times as many hosts add only their names, and diffs that differ."""
        sizes = []
        for hosts in (200, 2000):
            events = [one for one in self.events(hosts) if not isinstance(one, ChangeEvent)]
            page(events, tmp_path)
            sizes.append((tmp_path / "report.html").stat().st_size)
        assert sizes[1] - sizes[0] < 1800 * 10
