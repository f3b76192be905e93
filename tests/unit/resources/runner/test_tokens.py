"""Asking GitLab about tokens, with real shells, awk and curl against a server on loopback."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

from provision.host.scripts import NOT_READY
from provision.resources import Result
from provision.resources.runner.registrations import ask_tokens, read_tokens
from provision.secret import Secret
from provision.testing import LocalSession
from tests.support.local import Local

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
Serve = Callable[..., Any]

CONFIG = """concurrent = 4
[session_server]
  session_timeout = 1800
[[runners]]
  name = "one"
  url = "{url}/"
  token = "glrt-one"
  executor = "docker"
  [runners.docker]
    image = "x"
    token = "not-a-token"
[[runners]]
  token = 'glrt-two' # single quotes, and a comment "with quotes"
  url = '{url}'
[[runners]]
  url = "https://other.example.com"
  token = "glrt-foreign"
[[runners]]
  name = "no token yet"
  url = "{url}"
[[runners]]
  url = "{url}"
  token = "glrt-odd&x=\\"; rm -rf"
"""


@pytest.fixture
def host(tmp_path: Path, local: Local) -> LocalSession:
    """This machine; /etc/gitlab-runner is a folder of the test's."""
    (tmp_path / "gitlab-runner").mkdir()
    (tmp_path / "gitlab-runner/.runner_system_id").write_text("s_0123456789ab\n")
    return local({"/etc/gitlab-runner": tmp_path / "gitlab-runner"})


def ask(
    host: LocalSession, tmp_path: Path, config: str | None, urls: list[str], *given: tuple[str, str], code: int = 0
) -> Result:
    """Asks; the file holds `config`."""
    path = tmp_path / "config.toml"
    if config is not None:
        path.write_text(config)
    command = ask_tokens(str(path), urls, [(url, Secret(token)) for url, token in given])
    assert not any(token in command.script for _, token in given)
    result = host.run(command, deadline=30)
    assert (result.code, bool(result.errors)) == (code, code != 0)
    return result


def test_tokens_of_the_file_and_of_the_inventory_are_asked_once(
    serve: Serve, reply: Any, host: LocalSession, tmp_path: Path
) -> None:
    """Only those of a named server; with the system's id, in the body of a POST."""
    web = serve(lambda asked: reply(403, {"message": "403 Forbidden"}) if b"glrt-two" in asked.body else reply(200))
    result = ask(host, tmp_path, CONFIG.format(url=web.url), [web.url], (web.url, "glrt-one"), (web.url, "glrt-new"))
    answers = read_tokens(result)
    assert answers.status == {(web.url, "glrt-one"): 200, (web.url, "glrt-new"): 200, (web.url, "glrt-two"): 403}
    assert answers.reasons == {}
    assert {(one.method, one.path) for one in web.asked} == {("POST", "/api/v4/runners/verify")}
    bodies = [parse_qs(one.body.decode()) for one in web.asked]
    assert [one["token"] for one in bodies] == [["glrt-one"], ["glrt-new"], ["glrt-two"]]
    assert {one["system_id"][0] for one in bodies} == {"s_0123456789ab"}


def test_no_other_servers_token_leaves_the_host(serve: Serve, reply: Any, host: LocalSession, tmp_path: Path) -> None:
    """Neither that of another server, nor a text that could be more than a token."""
    web = serve(lambda _: reply(200))
    ask(host, tmp_path, CONFIG.format(url=web.url), [web.url])
    sent = b"".join(one.body for one in web.asked)
    for secret in (b"glrt-foreign", b"glrt-odd", b"not-a-token"):
        assert secret not in sent


def test_a_server_without_a_token_is_asked_for_its_version(
    serve: Serve, reply: Any, host: LocalSession, tmp_path: Path
) -> None:
    """Any answer shows that it is reachable."""
    web = serve(lambda _: reply(401))
    answers = read_tokens(ask(host, tmp_path, None, [web.url]))
    assert answers.status == {(web.url, "-"): 401}
    assert [(one.method, one.path) for one in web.asked] == [("GET", "/api/v4/version")]


def test_a_server_that_is_not_reachable(serve: Serve, reply: Any, host: LocalSession, tmp_path: Path) -> None:
    """Status 0 and the reason; the next server is still asked. That it answers 502 shows in the code: it may be starting."""
    gone, there = serve(lambda _: reply(200)), serve(lambda _: reply(502))
    gone.close()
    given = ((gone.url, "glrt-a"), (there.url, "glrt-b"))
    result = ask(host, tmp_path, None, [gone.url, there.url], *given, code=NOT_READY)
    assert result.errors == f"{there.url} answers 502\n"
    answers = read_tokens(result)
    assert answers.status == {(gone.url, "glrt-a"): 0, (there.url, "glrt-b"): 502}
    assert answers.reasons == {gone.url: "the connection is refused", there.url: "it answers 502"}


def test_no_runners(host: LocalSession, tmp_path: Path) -> None:
    """No server is asked."""
    assert ask(host, tmp_path, CONFIG, []).stdout == b""


def test_a_rate_limit_is_waited_for(serve: Serve, reply: Any, host: LocalSession, tmp_path: Path) -> None:
    """429 with Retry-After: the token is asked about again."""
    answers = iter([reply(429, headers={"Retry-After": "1"}), reply(200)])
    web = serve(lambda _: next(answers))
    started = time.monotonic()
    found = read_tokens(ask(host, tmp_path, None, [web.url], (web.url, "glrt-a")))
    assert time.monotonic() - started >= 1
    assert found.status == {(web.url, "glrt-a"): 200}
    assert len(web.asked) == 2


@pytest.mark.parametrize("headers", [{"Retry-After": "3600"}, {}, {"Retry-After": "Sat, 21 Nov 2026 11:00:00 GMT"}])
def test_a_long_wait_is_not_begun(
    serve: Serve, reply: Any, host: LocalSession, tmp_path: Path, headers: dict[str, str]
) -> None:
    """The status is 429, without a wait."""
    web = serve(lambda _: reply(429, headers=headers))
    found = read_tokens(ask(host, tmp_path, None, [web.url], (web.url, "glrt-a")))
    assert found.status == {(web.url, "glrt-a"): 429}
    assert len(web.asked) == 1


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [({"message": "403 Forbidden"}, "application/json", 403), (b"Forbidden\n", "text/plain", 0)],
)
def test_a_403_that_is_not_from_the_api(
    serve: Serve, reply: Any, host: LocalSession, tmp_path: Path, body: Any, kind: str, status: int
) -> None:
    """From a proxy, or because the host is banned: the token is not known to be invalid."""
    web = serve(lambda _: reply(403, body, {"Content-Type": kind}))
    found = read_tokens(ask(host, tmp_path, None, [web.url], (web.url, "glrt-a")))
    assert found.status == {(web.url, "glrt-a"): status}
    assert ("banned" in found.reasons.get(web.url, "")) is (status == 0)
