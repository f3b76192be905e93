"""The tables at the end: counts per host, and what each host cost."""

from __future__ import annotations

from typing import Final

from provision.engine.events import Summary
from provision.report.clean import printable
from provision.report.folding import fold_rows
from provision.report.layout import Taste, who
from provision.report.ledger import Ledger
from provision.report.paint import Line, Span, Style, table
from provision.report.words import size

FOLDED_ABOVE: Final = 10  # hosts; up to there each has a row of its own


def counts(ledger: Ledger, summary: Summary, taste: Taste) -> list[Line]:
    """Host × ok, changed, failed, skipped, unreachable, seconds. Many hosts with equal counts share a row."""
    rows: list[list[Span]] = []
    for row in fold_rows(ledger, summary.hosts, at=10**9 if taste.verbose else FOLDED_ABOVE):
        one = row.counts
        name: Style = "bad" if one.failed or one.unreachable else "name"
        seconds = f"{row.slowest:.1f}"
        if f"{row.quickest:.1f}" != seconds:
            seconds = f"{row.quickest:.1f}–{seconds}"
        rows.append(
            [
                (who(row.hosts, taste), name),
                _number(one.ok, "good"),
                _number(one.changed, "warn"),
                _number(one.failed, "bad"),
                _number(one.skipped, ""),
                ("yes", "bad") if one.unreachable else ("-", "dim"),
                (seconds, ""),
            ]
        )
    changed = "pending" if summary.check else "changed"
    return table(["host", "ok", changed, "failed", "skipped", "unreachable", "seconds"], rows)


def _number(number: int, style: Style) -> Span:
    return str(number), style if number else "dim"


def costs(ledger: Ledger, summary: Summary) -> list[Line]:
    """Host × round trips, bytes sent and received, seconds; and the sum."""
    rows: list[list[Span]] = []
    for name in ledger.in_order(set(summary.hosts)):
        one = summary.hosts[name]
        numbers = (str(one.round_trips), size(one.bytes_sent), size(one.bytes_received), f"{one.seconds:.1f}")
        rows.append([(printable(name), "name"), *((text, "") for text in numbers)])
    if len(rows) > 1:
        all_of = summary.hosts.values()
        sums = (
            str(sum(one.round_trips for one in all_of)),
            size(sum(one.bytes_sent for one in all_of)),
            size(sum(one.bytes_received for one in all_of)),
            f"{summary.seconds:.1f}",
        )
        rows.append([("together", "dim"), *((text, "dim") for text in sums)])
    return table(["host", "round trips", "sent", "received", "seconds"], rows)
