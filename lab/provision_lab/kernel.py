"""Settings of this machine's kernel that labs need higher, raised with the first lab and put back with the last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

_SYSCTL = Path("/proc/sys")
# Every systemd host takes a handful of inotify instances, and all hosts' root users count as one: 128 are soon gone.
ALWAYS = {"fs/inotify/max_user_instances": 8192}
FORWARDING = {"net/ipv4/ip_forward": 1}


def too_low(wanted: Mapping[str, int], others: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """The settings below what is wanted, with what they were before any lab: to be noted before `apply`.

    `others` is what the other labs were told here: a setting that one of them raised was what that one found.
    """
    before = {}
    for name, value in wanted.items():
        found = (_SYSCTL / name).read_text().strip()
        known = next((other[name] for other in others if name in other), found)
        if int(known) < value:
            before[name] = known
    return before


def apply(wanted: Mapping[str, int], before: Mapping[str, str]) -> None:
    """Sets what `too_low` found too low; called once that is noted, so that a killed run can be undone."""
    for name in before:
        if (_SYSCTL / name).read_text().strip() != str(wanted[name]):
            (_SYSCTL / name).write_text(str(wanted[name]))


def restore(before: Mapping[str, str], others: Sequence[Mapping[str, str]]) -> None:
    """Puts back what no other lab needs any more."""
    for name, value in before.items():
        if not any(name in other for other in others):
            (_SYSCTL / name).write_text(value)
