"""The handler that every edit of gitlab.rb owes; its script is run in test_reconfigure_script."""

from __future__ import annotations

import pytest

from provision.resources.gitlab.gitlab_rb import reconfigure
from provision.url import Url


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://gitlab.example.com:5555", "https://gitlab.example.com:5555 "),
        ("https://registry.example.com/", "https://registry.example.com "),
        ("https://[2001:db8::1]:5555", "'https://[2001:db8::1]:5555' "),
        ("", "'' "),
    ],
)
def test_the_registry_is_asked_on_the_host_itself(url: str, shown: str) -> None:
    """By its URL, connecting to loopback: an IPv6 address as well as a name."""
    script = reconfigure(Url.parse(url) if url else None).run.script
    assert f"set -- {shown}" in script
    assert '--connect-to ::127.0.0.1: "$@" -- "$url/v2/"' in script


def test_it_outlives_the_connection() -> None:
    """Detached, under the one name that gitlab.rb's edits owe, and longer than two attempts."""
    handler = reconfigure()
    assert (handler.name, handler.detached, handler.rolls_back) == ("reconfigure", True, True)
    assert handler.deadline > 2 * 1500
    assert handler.run.stdin == b""
