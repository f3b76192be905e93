"""Deleting runners in GitLab, with real shells and curl against a server on loopback."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

from provision.editing.toml.model import Entry
from provision.resources.runner.registrations import unregister
from provision.shell import Command, Result
from provision.testing import LocalSession
from tests.support.local import Local

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
Serve = Callable[..., Any]


@pytest.fixture
def host(tmp_path: Path, local: Local) -> LocalSession:
    """This machine; /etc/gitlab-runner is a folder of the test's."""
    (tmp_path / ".runner_system_id").write_text("s_0123456789ab\n")
    return local({"/etc/gitlab-runner": tmp_path})


def delete(host: LocalSession, *gone: tuple[str, str, bool]) -> Result:
    """Deletes runners, each given as (url, token, created by us)."""
    entries = [(Entry(number, f"r{number}", url, token), created) for number, (url, token, created) in enumerate(gone)]
    (change,) = unregister(entries)
    assert isinstance(change.run, Command)
    assert not any(token in change.run.script for _, token, _ in gone)
    assert change.action == "delete"
    return host.run(change.run, deadline=30)


def test_one_that_we_created_and_one_of_somebody_else(serve: Serve, reply: Any, host: LocalSession) -> None:
    """The runner itself is deleted, and of the other only this host's part."""
    web = serve(lambda _: reply(204))
    assert delete(host, (web.url + "/", "glrt-ours", True), (web.url, "glrt-theirs", False)).code == 0
    assert [(one.method, one.path) for one in web.asked] == [
        ("DELETE", "/api/v4/runners"),
        ("DELETE", "/api/v4/runners/managers"),
    ]
    bodies = [parse_qs(one.body.decode()) for one in web.asked]
    assert [one["token"] for one in bodies] == [["glrt-ours"], ["glrt-theirs"]]
    assert bodies[1]["system_id"] == ["s_0123456789ab"]


@pytest.mark.parametrize("status", [204, 403, 404])
def test_one_that_was_deleted_before(serve: Serve, reply: Any, host: LocalSession, status: int) -> None:
    """It is no failure."""
    web = serve(lambda _: reply(status, {"message": "gone"} if status != 204 else b""))
    assert delete(host, (web.url, "glrt-x", True)).code == 0


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500, 502])
def test_any_other_answer_is_a_failure(serve: Serve, reply: Any, host: LocalSession, status: int) -> None:
    """With the status; the next runner is not tried. A 403 or 404 that is not JSON is not from GitLab."""
    web = serve(lambda _: reply(status, b"<html>", {"Content-Type": "text/html"}))
    result = delete(host, (web.url, "glrt-x", True), (web.url, "glrt-y", True))
    assert result.code == 1
    assert result.errors.startswith(f"GitLab at {web.url} did not delete the runner: {status}")
    assert len(web.asked) == 1


def test_no_answer(serve: Serve, reply: Any, host: LocalSession) -> None:
    """curl's own message, without the token."""
    web = serve(lambda _: reply(204))
    web.close()
    result = delete(host, (web.url, "glrt-secret", True))
    assert result.code == 1
    assert "refused" in result.errors.lower() or "couldn't connect" in result.errors.lower()
    assert "glrt-secret" not in result.errors


def test_nothing_to_delete() -> None:
    """No change."""
    assert list(unregister([])) == []
