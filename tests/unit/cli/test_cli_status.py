"""`provision status` and `provision images`: tables for few and for many hosts, JSON, exit codes, and what is read-only."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from provision.cli.hosts import read_status
from provision.errors import Unreachable
from provision.host.scripts import script
from provision.testing import FakeSession, LocalSession
from tests.support.local import Local

DIGEST = "sha256:" + "ab" * 32
APP = f"app hello|running|Up 3 hours (healthy)|{DIGEST}|gitlab.example.com:5555/sammy/hello:1.0\n"
RUNNER = "unit docker active\nunit gitlab-runner active\nversion docker-ce 5:28.5.2\nversion gitlab-runner 19.3.0-1\n"
DISKS = "disk 41 1000000 /\ndisk 72 500000 /var/lib/docker\nload 0.50\nlast 7300\n"
GITLAB = "unit gitlab-runsvdir active\nversion gitlab-ce 19.3.0-ce.0\ndisk 20 9000000 /\nload 1.25\nlast 60\nservice puma run\n"
TOKEN = "glpat-canary-of-status"


def runner(number: int) -> dict[str, Any]:
    """A runner as GitLab returns it."""
    contacted = None if number == 2 else "2026-01-01T00:00:00.000Z"
    state = "never_contacted" if number == 2 else "online"
    return {
        "id": number,
        "description": "docker-builder",
        "status": state,
        "paused": False,
        "version": "19.3.0",
        "contacted_at": contacted,
    }


def answers(path: str) -> Any:
    """GitLab's and the registry's answers."""
    place = "/api/v4/projects/sammy%2Fhello/registry/repositories"
    tag = {"name": "1.0", "digest": DIGEST, "total_size": 52_000_000, "created_at": "2026-01-01T00:00:00.000Z"}
    return {
        "/users/sign_in": "<html>",
        "/api/v4/runners/all": [runner(1), runner(2), {**runner(3), "description": "another"}],
        "/api/v4/runners/1": runner(1),
        "/api/v4/runners/2": runner(2),
        place: [{"id": 7, "path": "sammy/hello"}],
        f"{place}/7/tags": [{"name": "1.0"}, {"name": "latest"}],
        f"{place}/7/tags/1.0": tag,
        f"{place}/7/tags/latest": {**tag, "name": "latest", "digest": "sha256:" + "cd" * 32, "created_at": None},
    }.get(path)


@pytest.fixture
def web(serve: Any, reply: Any) -> Any:
    """GitLab and a registry."""

    def answer(asked: Any) -> Any:
        path = asked.path.partition("?")[0]
        if path == "/v2/":
            return reply(401, {})
        found = answers(path)
        return reply(404, {"message": "404 Not Found"}) if found is None else reply(200, found)

    return serve(answer)


@pytest.fixture
def inventory(tmp_path: Path, web: Any) -> Callable[[int], str]:
    """`inventory(300)`: the file of an estate with that many runner hosts."""

    def write(runners: int) -> str:
        file = tmp_path / "estate.toml"
        file.write_text(
            f'[hosts.gitlab]\ngroups = ["gitlab"]\n[hosts."runner-[001:{runners:03}]"]\ngroups = ["runners"]\n'
            f'[gitlab]\nexternal_url = "{web.url}"\napi_token = "{TOKEN}"\n'
            f'[registry]\nexternal_url = "{web.url}"\n'
            '[[runners]]\nname = "docker-builder"\nexecutor = "docker"\n[runners.docker]\nimage = "x"\n'
            '[[apps]]\nname = "hello"\nimage = "sammy/hello:1.0"\n[projects."sammy/hello"]\nregistry = "enabled"\n'
        )
        file.chmod(0o600)
        return str(file)

    return write


def good(estate: Any, runners: int) -> None:
    """All hosts answer."""
    estate.sessions["gitlab"] = FakeSession({"docker ps": GITLAB})
    for number in range(1, runners + 1):
        estate.sessions[f"runner-{number:03}"] = FakeSession({"docker ps": RUNNER + DISKS + APP})


def test_three_hosts(estate: Any, provision: Any, inventory: Callable[[int], str]) -> None:
    """Everything on one screen; a runner that never called is a problem: exit code 1."""
    good(estate, 2)
    ended = provision("status", "-i", inventory(2))
    assert ended.code == 1
    lines = [" ".join(line.split()) for line in ended.out.splitlines()]
    assert "gitlab gitlab-runsvdir, gitlab 1/1 gitlab-ce 19.3.0 20 % 1.2 1 minute" in lines
    runs = "docker, gitlab-runner docker-ce 28.5.2, gitlab-runner 19.3.0 72 % 0.5 2 hours"
    assert f"runner-001 {runs}" in lines
    assert "docker-builder never_contacted 19.3.0 never" in lines
    assert "hello gitlab.example.com:5555/sammy/hello:1.0 (abababababab) running, healthy runner-[001:002] (2)" in lines
    assert any(line.startswith("registry http://127.0.0.1") and line.endswith("answers 401") for line in lines)
    assert len(lines) < 30
    assert TOKEN not in ended.out + ended.err
    assert not any(estate.locked.values())


def test_an_image_of_the_own_registry(estate: Any, provision: Any, inventory: Callable[[int], str], web: Any) -> None:
    """It is shown by its name there; an image of another registry, or of another port, by its whole name."""
    own = APP.replace("gitlab.example.com:5555", web.url.removeprefix("http://"))
    estate.sessions |= {
        "gitlab": FakeSession({"docker ps": GITLAB}),
        "runner-001": FakeSession({"docker ps": own + APP}),
    }
    lines = [" ".join(line.split()) for line in provision("status", "-i", inventory(1)).out.splitlines()]
    images = {line.split()[1] for line in lines if line.startswith("hello ")}
    assert images == {"sammy/hello:1.0", "gitlab.example.com:5555/sammy/hello:1.0"}


def test_three_hundred_hosts(estate: Any, provision: Any, inventory: Callable[[int], str]) -> None:
    """Hosts that are alike share a row; those that differ have their own, and are named with their problem."""
    good(estate, 300)
    estate.sessions["runner-007"] = Unreachable("connection refused")
    broken = RUNNER.replace("gitlab-runner active", "gitlab-runner failed") + DISKS.replace("72", "97")
    estate.sessions["runner-123"] = FakeSession({"docker ps": broken})
    ended = provision("status", "-i", inventory(300))
    lines = [" ".join(line.split()) for line in ended.out.splitlines()]
    assert len(lines) < 30
    assert any(line.startswith("runner-[001:006,008:122,124:300] (298) docker, gitlab-runner") for line in lines)
    assert "runner-007 no answer" in lines
    assert "runner-123 gitlab-runner is failed" in lines
    assert "runner-123 /var/lib/docker is 97 % full" in lines
    assert "runner-007 connection refused" in lines


def test_json(estate: Any, provision: Any, inventory: Callable[[int], str]) -> None:
    """The same as data."""
    good(estate, 1)
    found = json.loads(provision("status", "--json", "-i", inventory(1)).out)
    assert found["schema"] == 1
    (gitlab, one) = found["hosts"]
    assert (gitlab["services"], one["disks"]["/var/lib/docker"]) == (1, {"percent": 72, "free": 512_000_000})
    assert (one["apps"][0]["name"], one["problems"], one["last_run"]) == ("hello", [], 7300)
    assert [(one["id"], one["state"]) for one in found["runners"]] == [(1, "online"), (2, "never_contacted")]


def test_gitlab_is_down(estate: Any, provision: Any, inventory: Callable[[int], str], web: Any, reply: Any) -> None:
    """The hosts are printed all the same."""
    good(estate, 1)
    web.answer = lambda _: reply(502, {})
    ended = provision("status", "-i", inventory(1))
    assert (ended.code, "runner-001" in ended.out, "answers 502, expected 401" in ended.out) == (1, True, True)
    assert "GitLab does not answer" in ended.out


def test_images(estate: Any, provision: Any, inventory: Callable[[int], str]) -> None:
    """Each tag with its size, and the app and hosts that run its digest."""
    good(estate, 2)
    ended = provision("images", "-i", inventory(2))
    lines = [" ".join(line.split()) for line in ended.out.splitlines()]
    assert ended.code == 0
    (first,) = [line for line in lines if line.startswith("sammy/hello 1.0 abababababab")]
    assert first.endswith("hello on runner-[001:002]")
    (second,) = [line for line in lines if line.startswith("latest cdcdcdcdcdcd")]
    assert second.endswith(" unknown"), "its age"
    found = json.loads(provision("images", "sammy/hello", "--json", "-i", inventory(2)).out)["images"]
    assert (found[0]["tag"], found[0]["digest"], found[0]["bytes"]) == ("1.0", DIGEST, 52_000_000)
    assert found[0]["runs"] == ["hello on runner-[001:002]"]


def test_nothing_is_written(estate: Any, provision: Any, inventory: Callable[[int], str], web: Any) -> None:
    """Only GET requests, and one command on each host; `images` asks the hosts with apps only."""
    good(estate, 1)
    provision("status", "-i", inventory(1))
    assert [len(estate.sessions[name].ran) for name in ("gitlab", "runner-001")] == [1, 1]
    provision("images", "-i", inventory(1))
    assert [len(estate.sessions[name].ran) for name in ("gitlab", "runner-001")] == [1, 2]
    assert {one.method for one in web.asked} == {"GET"}


def test_a_hostile_answer() -> None:
    """Lines that cannot be read are ignored."""
    found = read_status("h", (), "disk x y z\nunit\nload many\napp a|b\nlast -5\n\x1b[2J\nversion docker-ce 1\n")
    assert (found.versions, found.last_run, found.disks) == ({"docker-ce": "1"}, 0, {})


def test_the_script(local: Local, tmp_path: Path) -> None:
    """What it prints on a real machine, with a docker that has one container."""
    home, programs = tmp_path / "home", tmp_path / "bin"
    home.mkdir()
    programs.mkdir()
    (home / "state.json").write_text("{}")
    (home / "pending").write_text("restart docker\n")
    (programs / "docker").write_text('#!/bin/sh\n[ "$1 $2" = "ps -a" ] && echo "app one|running|Up|sha256:x|i"\n')
    (programs / "docker").chmod(0o755)
    session: LocalSession = local({"/var/lib/provision": home}, {"PATH": f"{programs}:{os.environ['PATH']}"})
    result = session.run(script("observe_status", "FORMAT", "provision.app", "no-such.service"), deadline=60)
    assert result.code == 0
    found = read_status("h", (), result.text)
    assert (found.pending, [one.name for one in found.apps]) == (1, ["one"])
    assert found.last_run is not None
    assert found.last_run < 600
    assert found.disks["/"][0] >= 0
    assert "no-such.service" in found.units
