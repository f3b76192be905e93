"""Reading the token that is kept on a GitLab host: once, over a session of its own, and also for hosts beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from provision import ssh
from provision.engine.assemble import Options, assemble
from provision.errors import ApiFailed, Unreachable
from provision.gitlab.access import KeptTokens
from provision.gitlab.api import Api, KeptToken
from provision.secret import Secret
from provision.testing import FakeSession
from provision.url import Url

TOKEN = "glpat-0123456789abcdef"
ESTATE = """
[hosts.gitlab]
groups = ["gitlab"]
[hosts.runner-1]
groups = ["runners"]
[gitlab]
external_url = "http://gitlab.example.com"
[[runners]]
name = "builder"
executor = "docker"
[runners.docker]
image = "docker:28"
"""


class Sessions:
    """Sessions by host, in the order in which they were opened."""

    def __init__(self, answer: Any = f"{TOKEN}\n") -> None:
        self.answer = answer
        self.opened: list[str] = []
        self.sessions: list[FakeSession] = []

    def __call__(self, name: str) -> FakeSession:
        self.opened.append(name)
        self.sessions.append(FakeSession(otherwise=self.answer))
        return self.sessions[-1]


def test_read_once() -> None:
    """All requests share one reading; its session is closed. After a change it is read again."""
    sessions = Sessions()
    tokens = KeptTokens(sessions)
    with tokens.used():
        assert [KeptToken("gitlab").reveal() for _ in range(3)] == [TOKEN] * 3
    assert sessions.opened == ["gitlab"]
    assert [one.closed for one in sessions.sessions] == [True]
    tokens.forget("runner-1")
    assert (tokens.read("gitlab"), sessions.opened) == (Secret(TOKEN), ["gitlab"])
    tokens.forget("gitlab")
    assert (tokens.read("gitlab"), sessions.opened) == (Secret(TOKEN), ["gitlab", "gitlab"])


def test_not_there() -> None:
    """The task that makes it is named; a thousand hosts ask once."""
    sessions = Sessions("")
    tokens = KeptTokens(sessions)
    for _ in range(2):
        with pytest.raises(ApiFailed, match="there is no token for GitLab's API on gitlab yet") as caught:
            tokens.read("gitlab")
        assert (caught.value.requires, caught.value.status) == ("access", 0)
    assert sessions.opened == ["gitlab"]


def test_host_unreachable() -> None:
    """It is the request that fails, not the host that sends it: the other one may be unreachable."""
    tokens = KeptTokens(Sessions(Unreachable("gitlab: no route", hint="check the network")))
    with pytest.raises(ApiFailed, match="cannot be read on gitlab: gitlab: no route") as caught:
        tokens.read("gitlab")
    assert (caught.value.hint, caught.value.requires) == ("check the network", "")


def test_outside_of_a_run() -> None:
    """Without a reader, the request fails and says where the token is."""
    with pytest.raises(ApiFailed, match="the token for GitLab's API is kept on gitlab"):
        Api(Url.parse("http://127.0.0.1:9"), KeptToken("gitlab")).get("/version")


def test_another_host_is_selected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With --limit, the token is still read on the GitLab host, without its lock; with a token in the inventory, nothing is."""
    opened: list[tuple[str, bool]] = []

    def connect(target: Any, *, lock: bool, who: str, dialler: object = None) -> FakeSession:
        del who, dialler
        opened.append((target.name, lock))
        return FakeSession(otherwise=f"{TOKEN}\n")

    monkeypatch.setattr(ssh, "connect", connect)
    file = tmp_path / "inventory.toml"
    file.write_text(ESTATE)
    run, _ = assemble(Options(("register",), (file,), limit="runner-1"))
    assert [one.name for one in run.hosts] == ["runner-1"]
    assert run.tokens is not None
    assert run.tokens.read("gitlab") == Secret(TOKEN)
    assert opened == [("gitlab", False)]
