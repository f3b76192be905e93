"""Taking runners out of GitLab, with a real sh and curl against a server on loopback."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

from provision.editing.toml.model import Entry
from provision.resources.runner.accounts import unregister
from provision.shell import Command, Result
from provision.testing import LocalSession
from tests.unit.conftest import Local

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
Serve = Callable[..., Any]


@pytest.fixture
def host(tmp_path: Path, local: Local) -> LocalSession:
    """This machine; /etc/gitlab-runner is a folder of the test's."""
    (tmp_path / ".runner_system_id").write_text("s_0123456789ab\n")
    return local({"/etc/gitlab-runner": tmp_path})


def take_out(host: LocalSession, *gone: tuple[str, str, bool]) -> Result:
    """Takes (url, token, made by us) out."""
    entries = [(Entry(number, f"r{number}", url, token), made) for number, (url, token, made) in enumerate(gone)]
    (change,) = unregister(entries)
    assert isinstance(change.run, Command)
    assert not any(token in change.run.script for _, token, _ in gone)
    assert change.action == "delete"
    return host.run(change.run, deadline=30)


def test_one_that_we_made_and_one_that_somebody_else_made(serve: Serve, reply: Any, host: LocalSession) -> None:
    """The runner itself, and only this host's part in it."""
    web = serve(lambda _: reply(204))
    assert take_out(host, (web.url + "/", "glrt-ours", True), (web.url, "glrt-theirs", False)).code == 0
    assert [(one.method, one.path) for one in web.asked] == [
        ("DELETE", "/api/v4/runners"),
        ("DELETE", "/api/v4/runners/managers"),
    ]
    bodies = [parse_qs(one.body.decode()) for one in web.asked]
    assert [one["token"] for one in bodies] == [["glrt-ours"], ["glrt-theirs"]]
    assert bodies[1]["system_id"] == ["s_0123456789ab"]


@pytest.mark.parametrize("status", [204, 403, 404])
def test_one_that_is_gone_already(serve: Serve, reply: Any, host: LocalSession, status: int) -> None:
    """Is no failure."""
    web = serve(lambda _: reply(status, {"message": "gone"} if status != 204 else b""))
    assert take_out(host, (web.url, "glrt-x", True)).code == 0


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500, 502])
def test_anything_else_leaves_all_as_it_is(serve: Serve, reply: Any, host: LocalSession, status: int) -> None:
    """Told with the status; the next one is not even tried. A 403 or 404 that is no JSON is not GitLab's."""
    web = serve(lambda _: reply(status, b"<html>", {"Content-Type": "text/html"}))
    result = take_out(host, (web.url, "glrt-x", True), (web.url, "glrt-y", True))
    assert result.code == 1
    assert result.errors.startswith(f"GitLab at {web.url} did not delete the runner: {status}")
    assert len(web.asked) == 1


def test_nobody_answers(serve: Serve, reply: Any, host: LocalSession) -> None:
    """curl's own words, without the token."""
    web = serve(lambda _: reply(204))
    web.close()
    result = take_out(host, (web.url, "glrt-secret", True))
    assert result.code == 1
    assert "refused" in result.errors.lower() or "couldn't connect" in result.errors.lower()
    assert "glrt-secret" not in result.errors


def test_nothing_to_take_out() -> None:
    """No change."""
    assert list(unregister([])) == []
