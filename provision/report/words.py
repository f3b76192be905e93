"""The words of the reports: counts, durations, sizes, what a change is called, and the verdict."""

from __future__ import annotations

from provision.engine.events import ChangeSeen, Summary


def count(number: int, noun: str) -> str:
    """`1 host`, `3 hosts`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def duration(seconds: float) -> str:
    """`0.8 s`, `2 min 03 s`, `1 h 02 min`."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    return f"{minutes // 60} h {minutes % 60:02} min"


def size(number: int) -> str:
    """`912 B`, `12.3 kB`, `4.0 MB`."""
    if number < 1000:
        return f"{number} B"
    return f"{number / 1e3:.1f} kB" if number < 999_950 else f"{number / 1e6:.1f} MB"


def sentence(change: ChangeSeen, *, check: bool) -> str:
    """What was done, or would be: `start docker`, `would start docker`, `predicted: after gitlab: …`."""
    if change.predicted:
        return f"predicted: {change.summary}"
    if check:
        return f"would {change.summary}"
    return change.summary if change.applied else f"not applied: {change.summary}"


def verdict(summary: Summary, *, predicted: int = 0) -> str:
    """The last line: how it went, in one sentence."""
    hosts, took = len(summary.hosts), duration(summary.seconds)
    what = f"{count(summary.changed, 'change')} pending" if summary.check else count(summary.changed, "change")
    if predicted:
        what += f" ({predicted} of them predicted)"
    counts = ((summary.failed, "failed"), (summary.unreachable, "unreachable"))
    bad = [f"{number} {word}" for number, word in counts if number]
    if summary.interrupted:
        return ", ".join([f"Interrupted after {took}: {what} on {count(hosts, 'host')}", *bad])
    if bad:
        first, _, word = bad[0].partition(" ")
        bad[0] = f"{first} of {count(hosts, 'host')} {word}"
        return ", ".join([*bad, *([what] if summary.changed else []), took])
    if not summary.changed:
        return f"Nothing to change on {count(hosts, 'host')}, {took}"
    if summary.check:
        return f"{what} on {count(hosts, 'host')}, {took}"
    return f"{count(hosts, 'host')}, {what}, {took}"
