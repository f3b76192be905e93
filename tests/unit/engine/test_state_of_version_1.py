"""A run over a host whose state.json is of version 0.1.0: nothing is verified again, nothing changes, nothing is lost."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from provision.formats.build_context import Context
from provision.gitlab.api import Api
from provision.host.docker import RegistryAccess
from provision.host.state import HostState
from provision.image_name import parse
from provision.resources import (
    BuiltImage,
    ImageCheck,
    JsonSettings,
    PipelineFile,
    ProjectSettings,
    RunnerSettings,
    S3Bucket,
    WantedProject,
    WantedVariable,
)
from provision.secret import Secret
from provision.tasks.base import Task
from provision.testing import FakeSession, LocalSession, file_is
from provision.url import Url
from tests.support.data import DATA

RECORDED = (DATA / "state.json.0.1.0").read_text()
REGISTRY = Url.parse("https://gitlab.example.com:5555")
NOBODY = Api(Url.parse("https://gitlab.example.com"), Secret("the-api-token"))  # a request would be refused in tests
DAEMON = JsonSettings("/etc/docker/daemon.json", {"log-driver": "json-file", "log-opts": {"max-size": "10m"}})


@pytest.fixture
def tasks(toys: Any, tmp_path: Path) -> list[Task]:
    """The tasks that recorded it, with the settings that they had."""
    token, login = Secret("glrt-the-token-of-builder"), Secret("the-login-password")
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    context = Context(tmp_path)
    variables = (WantedVariable("TOKEN", "plain-value"), WantedVariable("URL", "https://x", scope="staging"))
    project = WantedProject("root/hello", (("shared_runners_enabled", False),), (), (), variables)
    endpoint = Url.parse("https://nyc3.example.com")
    bucket = S3Bucket("registry", "nyc3", endpoint, Secret("the-access-key"), Secret("the-secret-key"))
    name = parse("gitlab.example.com:5555/root/hello")
    image = BuiltImage(name, ("1.0", "latest"), context, context.digest(), RegistryAccess(str(REGISTRY), "root", login))
    return [
        toys.task("docker", DAEMON),
        toys.task("registry", bucket),
        toys.task("register", RunnerSettings("builder", NOBODY, {"description": "builder", "paused": False}, token)),
        toys.task("verify", ImageCheck(REGISTRY, "root", login, "root/hello", "/etc/ca.crt")),
        toys.task("project", ProjectSettings(project, NOBODY)),
        toys.task("pipeline", PipelineFile("root/hello", NOBODY, "a: 1\n", "message")),
        toys.task("image", image),
    ]


@pytest.mark.parametrize("check", [True, False])
def test_the_same_settings_change_nothing(engine: Any, tasks: list[Task], check: bool) -> None:
    """No change, no verification, no API asked, nothing written."""
    host = FakeSession(
        {
            re.compile("^test ! -e /var/lib/provision/state.json"): RECORDED,
            "/etc/docker/daemon.json": file_is('{"log-driver": "json-file", "log-opts": {"max-size": "10m"}}'),
            "date +%s": "<ListBucketResult/>\n200\n",
        }
    )
    report = engine({"web1": host}, tasks, check=check)
    assert (report.errors, report.changes, report.messages, host.ran) == ([], [], [], [])


def test_a_change_keeps_all_records(engine: Any, toys: Any, tmp_path: Path) -> None:
    """The file is of version 2 after it; every other record is what it was."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "state.json").write_text(RECORDED)
    (tmp_path / "etc").mkdir()
    more = toys.task("my_exporter", JsonSettings("/etc/my-exporter.json", {"port": 9100, "log": "json"}))
    host = LocalSession({"/var/lib/provision": home, "/etc": tmp_path / "etc"})
    assert engine({"web1": host}, [more]).changes == ["web1: create /etc/my-exporter.json"]
    before = HostState.parse(RECORDED)
    text = (
        (home / "state.json").read_text().replace(str(tmp_path / "etc"), "/etc")
    )  # the session replaces it in scripts
    after = HostState.parse(text)
    assert after == before.updated("my_exporter", {"/etc/my-exporter.json": ["log", "port"]})
    assert engine({"web1": host}, [more]).changes == []
