"""Host names in few words."""

from __future__ import annotations

import pytest

from provision.report.text import fold


@pytest.mark.parametrize(
    ("names", "folded"),
    [
        ("", ""),
        ("gitlab", "gitlab"),
        ("web1", "web1"),
        ("web1 web2", "web[1:2]"),
        ("web1 web3", "web[1,3]"),
        ("web8 web9 web10 web11", "web[8:11]"),
        ("runner-01 runner-02 runner-03 runner-07", "runner-[01:03,07]"),
        ("runner-08 runner-09 runner-10 gitlab", "runner-[08:10], gitlab"),
        ("web9 web09 web10 web11", "web[09:11,9]"),
        ("web1.eu2 web2.eu2 web3.eu2", "web[1:3].eu2"),
        ("web1.eu1 web1.eu2 web1.eu3", "web1.eu[1:3]"),
        ("10.0.0.8 10.0.0.9 10.0.0.10", "10.0.0.[8:10]"),
        ("b a b", "b, a"),
        ("web3 web1 web2", "web[1:3]"),
        ("web099 web100 web101", "web[099:101]"),
    ],
)
def test_fold(names: str, folded: str) -> None:
    """Neighbouring numbers become ranges; widths are kept."""
    assert fold(names.split()) == folded


def test_limit_counts_the_rest() -> None:
    """Of many pieces the first are shown, and the names in the others counted."""
    assert fold(["alpha", "beta", "web1", "web2", "web3"], limit=2) == "alpha, beta and 3 more"
