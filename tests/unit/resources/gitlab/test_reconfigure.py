"""The handler that every edit of gitlab.rb owes; its script is run in test_reconfigure_script."""

from __future__ import annotations

import pytest

from provision.resources.gitlab.reconfigure import reconfigure


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("https://gitlab.example.com:5555", "port=5555 name=gitlab.example.com"),
        ("https://registry.example.com/", "port=443 name=registry.example.com"),
        ("http://registry.example.com", "port=80 name=registry.example.com"),
        ("", "port='' name=''"),
    ],
)
def test_where_the_registry_is_asked(url: str, place: str) -> None:
    """Its port, the scheme's own without one."""
    assert place in reconfigure(url).run.script


def test_it_outlives_the_connection() -> None:
    """Detached, under the one name that gitlab.rb's edits owe, and longer than two attempts."""
    handler = reconfigure()
    assert (handler.name, handler.detached, handler.takes_back) == ("reconfigure", True, True)
    assert handler.deadline > 2 * 1500
    assert handler.run.stdin == b""
