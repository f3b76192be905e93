"""`--limit`: the hosts that a pattern selects."""

from __future__ import annotations

import pytest

from provision.errors import UsageError
from provision.inventory.ranges import select

HOSTS = ["gitlab", "runner-1", "runner-2", "runner-3", "web1"]
GROUPS = {"gitlab": ["gitlab"], "runners": ["runner-1", "runner-2", "runner-3"], "web": ["web1"]}

CHOSEN = [
    ("web1", ["web1"]),
    ("runners", ["runner-1", "runner-2", "runner-3"]),
    ("web1,runners,!runner-3", ["runner-1", "runner-2", "web1"]),
    ("!runner-3", ["gitlab", "runner-1", "runner-2", "web1"]),
    ("!runners", ["gitlab", "web1"]),
    ("run*", ["runner-1", "runner-2", "runner-3"]),
    ("runner-[13]", ["runner-1", "runner-3"]),
    ("runner-[1:2]", ["runner-1", "runner-2"]),
    ("*,!run*", ["gitlab", "web1"]),
    ("all", HOSTS),
    ("all,!nothing*", HOSTS),
    (" web1 , gitlab ", ["gitlab", "web1"]),
    ("gitlab,", ["gitlab"]),
]


@pytest.mark.parametrize(("pattern", "hosts"), CHOSEN)
def test_chosen(pattern: str, hosts: list[str]) -> None:
    """Hosts are in the inventory's order, not in the pattern's."""
    assert select(pattern, HOSTS, GROUPS) == hosts


REFUSED = [
    ("runers", "no host and no group has the name 'runers'; did you mean \"runners\"?"),
    ("web1,runer-1", "'runer-1'"),
    ("all,!runner-9", "'runner-9'"),
    ("x*", "no host and no group has the name 'x*'"),
    ("web1,!web1", "it selects no host"),
    ("!*", "it selects no host"),
    ("", "it selects no host"),
    (",", "it selects no host"),
    ("runner-[3:1]", "the range [3:1] ends before it starts"),
]


@pytest.mark.parametrize(("pattern", "expected"), REFUSED)
def test_refused(pattern: str, expected: str) -> None:
    """A part that matches nothing is an error. A misspelt exclusion would run on hosts that it should not."""
    with pytest.raises(UsageError) as caught:
        select(pattern, HOSTS, GROUPS)
    assert expected in caught.value.text
