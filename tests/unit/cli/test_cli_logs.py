"""`provision logs`: mistakes end before anything is contacted. What it shows is tried on real hosts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

ESTATE = """
[hosts.runner-1]
address = "198.51.100.1"
groups = ["runners"]
[hosts.web]
address = "198.51.100.2"
[[apps]]
name = "hello"
image = "docker.io/sammy/hello"
"""

MISTAKES = [
    (["helo"], "no app is called 'helo'; did you mean \"hello\"?"),
    (["hello", "--limit", "web"], "hello runs on none of the chosen hosts"),
    (["hello", "--limit", "wbe"], "wbe"),
    (["hello", "-n", "-1"], "-1"),
    ([], "Missing argument 'APP'"),
]


@pytest.mark.parametrize(("arguments", "why"), MISTAKES)
def test_mistakes(provision: Any, tmp_path: Path, arguments: list[str], why: str) -> None:
    """Exit code 2."""
    file = tmp_path / "inventory.toml"
    file.write_text(ESTATE)
    file.chmod(0o600)
    ended = provision("logs", *arguments, "-i", str(file))
    assert ended.code == 2
    assert why in ended.err
