"""The report at the end of a run: changes, messages, counts, failures and the result.

On a terminal, changes are listed under a heading for each task, in colour and wrapped. Elsewhere each change is one
plain line with its host and task, so that logs can be searched.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from rich.segment import Segments
from rich.table import Table
from rich.text import Text

from provision.engine.events import HostSummary, Summary
from provision.masking import printable, printable_lines
from provision.report.console import is_styled
from provision.report.folding import (
    ChangeGroup,
    ErrorGroup,
    ReportOptions,
    RunLog,
    describe_plays,
    fold_changes,
    fold_counts,
    fold_errors,
    fold_messages,
    fold_names,
)
from provision.report.progress import MAX_NAMES
from provision.report.text import (
    describe_change,
    describe_result,
    diff_lines,
    duration,
    failure_label,
    place,
    rerun_hint,
    size,
)

if TYPE_CHECKING:
    from rich.console import Console

SLOW: Final = 1.0  # seconds from which a change's duration is shown
UNLIMITED: Final = 10_000  # characters: more than any table needs
MIN_HOSTS_WIDTH: Final = 20  # characters of the column of hosts in a table
FOLD_COUNTS_ABOVE: Final = 10  # hosts; up to there, each has its own row in the table of counts
MARKS: Final = {"create": ("+", "good"), "update": ("~", "warning"), "delete": ("-", "bad"), "run": (">", "action")}


@dataclass(frozen=True)
class FinalReport:
    """The report at the end, in sections with an empty line between them. Failures and the result come last."""

    log: RunLog
    options: ReportOptions
    console: Console

    def print(self, *, blank_line_first: bool = False) -> None:
        """Prints all sections that have something to show."""
        sections: list[Sequence[Text | Table]] = [self._plays(), self._changes(), self._messages(), *self._tables()]
        sections += [self._failures(), self._result()]
        for section in sections:
            if not section:
                continue
            if blank_line_first:
                self.console.print()
            blank_line_first = True
            for item in section:
                self._print_item(item)

    def _print_item(self, item: Text | Table) -> None:
        if isinstance(item, Table):  # as wide as its content even on a narrow terminal, so that no number is cut off
            unlimited = self.console.options.update(width=UNLIMITED)
            self.console.print(Segments(self.console.render(item, unlimited)), soft_wrap=True)
        else:  # already wrapped if necessary
            self.console.print(item, soft_wrap=True)

    def _plays(self) -> list[Text]:
        """In check mode: the plays, and which of them each waits for."""
        lines = describe_plays(self.log, limit=0 if self.options.verbose else MAX_NAMES) if self.log.check else []
        return [Text("plays", "heading"), *(Text(f"  {printable(line)}") for line in lines)] if lines else []

    def _changes(self) -> list[Text | Table]:
        """What changed or would change: under a heading per task and hosts, or a line each."""
        lines: list[Text | Table] = []
        headlined: set[str] = set()
        for group in fold_changes(self.log, diffs=self.options.diff):
            if is_styled(self.console):
                lines += [Text()] if lines else []
                lines.append(self._heading(group, with_headline=group.task not in headlined))
                headlined.add(group.task)
            lines += self._change_group(group)
        return lines

    def _heading(self, group: ChangeGroup, *, with_headline: bool) -> Text:
        line = Text.assemble((self._names(group.hosts), "host"), ": ", (group.task, "heading"))
        if with_headline and (headline := printable(self.log.headlines.get(group.task, ""))):
            line.append(f"  {headline}", "soft")
            line.truncate(self.console.width, overflow="ellipsis")
        return line

    def _change_group(self, group: ChangeGroup) -> Iterable[Text]:
        where = place(self._names(group.hosts), group.task)
        for change, seconds in zip(group.changes, group.seconds, strict=True):
            text = Text(printable(describe_change(change, check=self.log.check)))
            if change.predicted:
                text.stylize("soft")
            if self.options.verbose and change.resource:
                text.append(f"  [{printable(change.resource)}]", "soft")
            if seconds >= SLOW:
                text.append(f"  ({duration(seconds)})", "soft")
            if is_styled(self.console):
                yield from self._wrapped(Text.assemble("  ", MARKS.get(change.action, MARKS["update"]), " "), text)
            else:
                yield Text.assemble(f"{where}: ", text)
            if self.options.diff:
                yield from (Text(f"    {line}", f"diff.{kind}") for kind, line in diff_lines(change.diff))

    def _messages(self) -> list[Text]:
        """The messages, each once."""
        lines: list[Text] = []
        for hosts, message in fold_messages(self.log):
            first, *others = printable_lines(message.text)
            where = place(self._names(hosts), message.task)
            lines += self._wrapped(Text("note  ", "action"), Text.assemble((f"{where}: ", "host"), first))
            for line in others:
                lines += self._wrapped(Text("      "), Text(line))
        return lines

    def _tables(self) -> Iterable[list[Table]]:
        summary = self.log.summary
        if summary is None or not summary.hosts:
            return
        # A log of many runs with nothing to do has one line for each run.
        if is_styled(self.console) or self.options.verbose or not self.log.is_empty:
            yield [self._counts(summary)]
        if self.options.stats:
            yield [self._costs(summary)]

    def _counts(self, summary: Summary) -> Table:
        """Per host: tasks that ended well, changes, tasks that failed or were skipped, and seconds."""
        changes = "pending" if summary.check else "changes"
        table = self._table("ok", changes, "failed", "skipped", "unreachable", "seconds")
        above = len(summary.hosts) if self.options.verbose else FOLD_COUNTS_ABOVE
        for group in fold_counts(self.log, summary.hosts, above=above):
            one = group.counts
            fastest, slowest = f"{group.fastest:.1f}", f"{group.slowest:.1f}"
            table.add_row(
                Text(self._names(group.hosts), "bad" if one.failed or one.unreachable else "host"),
                _number(one.ok, "good"),
                _number(one.changed, "warning"),
                _number(one.failed, "bad"),
                _number(one.skipped, ""),
                Text("yes", "bad") if one.unreachable else Text("-", "soft"),
                Text(slowest if fastest == slowest else f"{fastest}–{slowest}"),
            )
        return table

    def _costs(self, summary: Summary) -> Table:
        """Per host: round trips, bytes sent and received, seconds; and the total."""
        table = self._table("round trips", "sent", "received", "seconds")
        for name in self.log.in_order(summary.hosts):
            one = summary.hosts[name]
            table.add_row(Text(printable(name), "host"), *_cost(one))
        if len(summary.hosts) > 1:
            hosts = summary.hosts.values()
            total = HostSummary(
                round_trips=sum(one.round_trips for one in hosts),
                bytes_sent=sum(one.bytes_sent for one in hosts),
                bytes_received=sum(one.bytes_received for one in hosts),
                seconds=summary.seconds,
            )
            table.add_row("total", *_cost(total), style="soft")
        return table

    def _failures(self) -> list[Text]:
        """Each error with its place, text and next step; then the command that reruns only the failed hosts."""
        lines: list[Text] = []
        for group in fold_errors(self.log, each=bool(self.options.verbose)):
            lines += [Text()] if lines else []
            lines += self._failure(group)
        if hint := rerun_hint(self.log, self.options.command):
            text, command = hint
            # The command has a line of its own and is never wrapped, so that it can be copied.
            lines += [Text(), Text(text), Text.assemble("  ", (command, "heading"))]
        return lines

    def _failure(self, group: ErrorGroup) -> Iterable[Text]:
        error = group.error
        headline = Text(place(self._names(group.hosts), error.task, printable(error.resource)), "heading")
        if self.options.verbose:
            headline.append(f"  [{error.error}]", "soft")
        label = Text(f"{failure_label(error)} ", "bad")
        yield from self._wrapped(label, headline)
        for line in printable_lines(error.text):
            yield from self._wrapped(Text("  "), Text(line))
        if group.similar:
            note = f"(showing 1 of {len(group.hosts)}; the others differ only in numbers; -v shows all)"
            yield from self._wrapped(Text("  "), Text(note, "soft"))
        for index, line in enumerate(printable_lines(error.hint) if error.hint else []):
            yield from self._wrapped(Text("    ") if index else Text("  → ", "action"), Text(line))

    def _result(self) -> Sequence[Text]:
        if self.log.summary is None and not self.log.hosts:
            return []  # no run was started, and the error is printed elsewhere
        text, tone = describe_result(self.log)
        return self._wrapped(Text(), Text(text, tone))

    def _table(self, *columns: str) -> Table:
        """A table without borders: hosts on the left, numbers aligned to the right. Long lists of hosts are folded."""
        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="soft")
        width = max(self.console.width - sum(2 + len(one) for one in columns), MIN_HOSTS_WIDTH)
        table.add_column("host", overflow="fold", max_width=width if is_styled(self.console) else None)
        for column in columns:
            table.add_column(column, justify="right", no_wrap=True)
        return table

    def _names(self, hosts: tuple[str, ...]) -> str:
        return printable(fold_names(hosts, limit=0 if self.options.verbose else MAX_NAMES))

    def _wrapped(self, first: Text, text: Text) -> Sequence[Text]:
        """`first` and the text after it, wrapped to the terminal's width; further lines are indented."""
        if not is_styled(self.console):
            return [Text.assemble(first, text)]
        indent = Text(" " * first.cell_len)
        lines = text.wrap(self.console, max(self.console.width - first.cell_len, 20))
        for line in lines:
            line.rstrip()
        return [Text.assemble(indent if index else first, line) for index, line in enumerate(lines)]


def _number(number: int, style: str) -> Text:
    return Text(str(number), style if number else "soft")


def _cost(one: HostSummary) -> tuple[str, str, str, str]:
    return str(one.round_trips), size(one.bytes_sent), size(one.bytes_received), f"{one.seconds:.1f}"
