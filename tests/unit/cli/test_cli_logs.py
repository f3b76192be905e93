"""`provision logs`: usage errors, output and exit codes. Its scripts are tested on lab hosts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from provision.errors import ProbeFailed, Unreachable
from provision.secret import Secret
from provision.shell import Result
from provision.testing import FakeSession

ESTATE = """
[hosts.runner-1]
address = "198.51.100.1"
groups = ["runners"]
[hosts.runner-2]
address = "198.51.100.2"
groups = ["runners"]
[hosts.web]
address = "198.51.100.3"
[[apps]]
name = "hello"
image = "docker.io/sammy/hello"
"""

USAGE_ERRORS = [
    (["helo"], "no app has the name 'helo'; did you mean \"hello\"?"),
    (["hello", "--limit", "web"], "hello runs on none of the selected hosts"),
    (["hello", "--limit", "wbe"], "wbe"),
    (["hello", "-n", "-1"], "-1"),
    ([], "Missing argument 'APP'"),
]


@pytest.fixture
def inventory(tmp_path: Path) -> str:
    """The inventory file."""
    file = tmp_path / "estate.toml"
    file.write_text(ESTATE)
    file.chmod(0o600)
    return str(file)


@pytest.mark.parametrize(("arguments", "message"), USAGE_ERRORS)
def test_usage_errors_exit_2(provision: Any, inventory: str, arguments: list[str], message: str) -> None:
    """They are reported before a host is contacted."""
    ended = provision("logs", *arguments, "-i", inventory)
    assert ended.code == 2
    assert message in ended.err


def test_lines_begin_with_the_host_when_there_are_several(estate: Any, provision: Any, inventory: str) -> None:
    """With one host the lines are printed as they are. No lock is taken."""
    for name in ("runner-1", "runner-2"):
        estate.sessions[name] = FakeSession({"docker logs": f"GET / from {name}\n"})
    both = provision("logs", "hello", "-n", "5", "-i", inventory)
    assert (both.code, sorted(both.out.splitlines())) == (
        0,
        ["runner-1: GET / from runner-1", "runner-2: GET / from runner-2"],
    )
    assert not any(estate.locked.values())
    assert estate.sessions["runner-1"].ran[0].script.splitlines()[1] == "set -- hello 5"
    one = provision("logs", "hello", "--limit", "runner-2", "-i", inventory)
    assert (one.code, one.out) == (0, "GET / from runner-2\n")


@pytest.mark.parametrize(
    ("second", "code"),
    [
        (Result(), 0),
        (Result(code=1, stderr=b"no such container\n"), 1),
        (ProbeFailed("the shell ended"), 1),
        (Unreachable("no answer"), 4),
    ],
)
def test_exit_codes(estate: Any, provision: Any, inventory: str, second: Any, code: int) -> None:
    """1 when the command failed on a host, 4 when a host was not reached and none failed."""
    estate.sessions["runner-1"] = FakeSession({"docker logs": "ok\n"})
    estate.sessions["runner-2"] = second if isinstance(second, Unreachable) else FakeSession({"docker logs": second})
    ended = provision("logs", "hello", "-i", inventory)
    assert ended.code == code
    assert "runner-1: ok\n" in ended.out
    if isinstance(second, Exception):
        assert f"runner-2: {second}" in ended.err


def test_logs_cannot_write_to_the_terminal(estate: Any, provision: Any, inventory: str) -> None:
    """Escape sequences in the lines of an app and in errors are removed, and secrets are masked in both."""
    Secret("canary-0f2b")
    estate.sessions["runner-1"] = FakeSession({"docker logs": "\x1b]0;title\x07\x1b[2Jready canary-0f2b\r\n\x07bell\n"})
    estate.sessions["runner-2"] = Unreachable(
        "\x1b[31mno canary-0f2b\x1b[0m", hint="see \x1b]8;;http://x\x07here\x1b]8;;\x07"
    )
    ended = provision("logs", "hello", "-i", inventory)
    assert ended.out == "runner-1: ready ***\nrunner-1: \\x07bell\n"
    assert ended.err == "runner-2: no ***\n  → see here\n"
