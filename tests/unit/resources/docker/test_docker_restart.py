"""Docker's restart that takes itself back, and waiting for CI jobs: real sh, programs that do as each test says."""

from __future__ import annotations

import dataclasses
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from provision.host.docker import wait_for_ci_jobs
from provision.resources import Handler, JsonSettings, Result
from provision.resources.base import Change
from provision.resources.docker.daemon import DAEMON_JSON, RELOAD, RELOADED, ROLLBACK, restart
from provision.resources.system.firewall import published
from provision.shell import Command, sh
from provision.testing import NO_FILE, file_is, observe, observe_on, planned
from tests.unit.conftest import Local

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="gives files to root: needs root")


class Docker:
    """A host with Docker; its daemon starts when daemon.json does not say `broken`."""

    def __init__(self, folder: Path, local: Local) -> None:
        self.folder = folder
        for name in ("bin", "docker", "home/rollback"):
            (folder / name).mkdir(parents=True)
        self.file, self.aside = folder / "docker/daemon.json", folder / "home/rollback/daemon.json"
        self.pending = folder / "home/pending"
        self.program("systemctl", f'[ "$1" = restart ] || exit 0; ! grep -qs broken {self.file}')
        self.program("docker", "exit 0")
        self.program("journalctl", "echo 'Starting docker'; echo 'failed to start daemon: the cause'")
        self.session = local(
            {
                "/var/lib/provision": folder / "home",
                "/etc/docker": folder / "docker",
                "/run/docker.sock": folder / "sock",
            },
            {"PATH": f"{folder}/bin:/usr/bin:/bin"},
        )

    def program(self, name: str, text: str) -> None:
        """What a program does."""
        (self.folder / "bin" / name).write_text(f"#!/bin/sh\n{text}\n")
        (self.folder / "bin" / name).chmod(0o755)

    def run(self, text: str) -> Result:
        """Runs shell text."""
        return self.session.run(Command(text), deadline=20)

    def restart(self) -> Result:
        """The handler, at once."""
        self.pending.write_text("other\tx\nrestart-docker\trestart docker\nmy-restart-docker\ty\n")
        return self.run(restart(now=True).run.script)


@pytest.fixture
def docker(tmp_path: Path, local: Local) -> Docker:
    """A host."""
    return Docker(tmp_path, local)


class TestRestart:
    """The handler."""

    def test_well(self, docker: Docker) -> None:
        """What was put aside goes."""
        docker.file.write_text("{}")
        docker.aside.write_text("old")
        result = docker.restart()
        assert (result.code, result.errors) == (0, "")
        assert not docker.aside.parent.exists()

    def test_taken_back(self, docker: Docker) -> None:
        """The old file is in force, its debt struck and no other, the cause told without the journal's noise."""
        docker.file.write_text("broken")
        docker.aside.write_text("old")
        result = docker.restart()
        assert result.code == 1
        assert result.errors == (f"failed to start daemon: the cause\nrolled back to the previous {docker.file}\n")
        assert docker.file.read_text() == "old"
        assert not docker.aside.parent.exists()
        assert docker.pending.read_text() == "other\tx\nmy-restart-docker\ty\n"

    def test_taken_back_to_no_file(self, docker: Docker) -> None:
        """There was none before."""
        docker.file.write_text("broken")
        (docker.aside.parent / "daemon.json.none").touch()
        assert docker.restart().code == 1
        assert not docker.file.exists()
        assert not docker.aside.parent.exists()

    def test_nothing_to_put_back(self, docker: Docker) -> None:
        """Said so; the debt stays."""
        docker.file.write_text("broken")
        result = docker.restart()
        assert "there is no earlier version of" in result.errors
        assert "restart-docker\t" in docker.pending.read_text()

    def test_the_old_one_does_not_start_either(self, docker: Docker) -> None:
        """Both are told; it is kept."""
        docker.file.write_text("broken")
        docker.aside.write_text("broken too")
        result = docker.restart()
        assert "but Docker does not start with it either" in result.errors
        assert docker.aside.exists()
        assert "restart-docker\t" in docker.pending.read_text()

    def test_it_waits_for_jobs_unless_it_is_to_be_now(self) -> None:
        """And has the time for it."""
        assert "wait_for_ci_jobs" in restart().run.script
        assert "wait_for_ci_jobs" not in restart(now=True).run.script
        assert restart().deadline > restart(now=True).deadline + 1000
        assert restart().rolls_back


class TestJobs:
    """`wait_for_ci_jobs`."""

    @pytest.fixture
    def socket_there(self, docker: Docker) -> Iterator[None]:
        """Docker's socket."""
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(docker.folder / "sock"))
            yield

    def test_no_job(self, docker: Docker) -> None:
        """Neither runner nor Docker: at once."""
        docker.program("systemctl", "echo 0")
        result = docker.run(wait_for_ci_jobs(5) + "echo done")
        assert (result.code, result.text) == (0, "done\n")

    def test_a_container_of_the_runner(self, docker: Docker, socket_there: None) -> None:
        """Named, and waited for."""
        del socket_there
        count = docker.folder / "count"
        docker.program("systemctl", "echo 0")
        docker.program("docker", f'[ -e {count} ] || {{ touch {count}; echo "container job-1"; }}')
        result = docker.run(wait_for_ci_jobs(5) + "echo done")
        assert result.text == "waiting for the CI jobs on this host to end: container job-1\ndone\n"

    def test_a_job_that_does_not_end(self, docker: Docker, socket_there: None) -> None:
        """Told, and nothing is restarted."""
        del socket_there
        docker.program("systemctl", "echo 0")
        docker.program("docker", "echo 'container a'; echo 'container b'")
        result = docker.run(wait_for_ci_jobs(0) + "echo done")
        assert result.code == 1
        assert result.errors == "CI jobs still run on this host after 0 s: container a,container b\n"
        assert "done" not in result.text

    def test_a_child_of_the_runner(self, docker: Docker) -> None:
        """A job of the shell executor; this test's own shell is the runner here."""
        docker.program("systemctl", "cat main")
        script = f"cd {docker.folder}; sleep 30 & echo $$ > main; trap 'kill $!' EXIT\n" + wait_for_ci_jobs(0)
        result = docker.run(script)
        assert result.code == 1
        assert "process " in result.errors


def settings(wanted: dict[str, Any]) -> JsonSettings:
    """daemon.json, as the task `docker` asks for it."""
    return JsonSettings(
        DAEMON_JSON, wanted, notify=(restart(now=True),), rollback=ROLLBACK, reload=RELOAD, reloaded=RELOADED
    )


class TestDaemonJson:
    """What an edit of daemon.json owes, and what is put aside for it."""

    @staticmethod
    def plan(wanted: dict[str, Any], found: Result, ours: list[str]) -> list[Change]:
        """The changes."""
        resource = settings(wanted)
        return planned(resource, observe(resource, {"file": found}, record=ours))

    @pytest.mark.parametrize(
        ("before", "wanted", "ours", "owed"),
        [
            ('{"debug": false}', {"debug": True}, [], "reload-docker"),
            ('{"bip": "x"}', {"debug": True}, [], "reload-docker"),
            ('{"debug": true, "labels": ["a"]}', {"debug": True}, ["labels"], "reload-docker"),
            ('{"debug": false}', {"debug": True, "log-driver": "local"}, [], "restart-docker"),
            ('{"mtu": 1400, "debug": true}', {"debug": True}, ["mtu"], "restart-docker"),
        ],
    )
    def test_reload_where_that_suffices(self, before: str, wanted: dict[str, Any], ours: list[str], owed: str) -> None:
        """By the keys that are touched."""
        (change,) = self.plan(wanted, file_is(before), ours)
        assert [one.name for one in change.notify] == [owed]

    def test_both_are_declared(self) -> None:
        """So that either debt is paid by this task."""
        assert [one.name for one in settings({}).handlers] == ["restart-docker", "reload-docker"]

    def test_a_file_of_others_is_not_even_read(self) -> None:
        """Nothing wanted, nothing of ours: broken JSON is nobody's business."""
        assert self.plan({}, file_is("{broken"), []) == []

    def execute(self, docker: Docker, wanted: dict[str, Any]) -> None:
        """Edits."""
        resource = dataclasses.replace(settings(wanted), check="")
        for change in planned(resource, observe_on(docker.session, resource)):
            assert isinstance(change.run, Command)
            assert docker.session.run(change.run, deadline=10).code == 0

    @needs_root
    def test_what_was_in_force_is_put_aside_once(self, docker: Docker) -> None:
        """Before the first unpaid edit."""
        docker.file.write_text('{"mtu": 1}')
        self.execute(docker, {"mtu": 2})
        self.execute(docker, {"mtu": 3})
        assert docker.aside.read_text() == '{"mtu": 1}'

    @needs_root
    def test_that_there_was_no_file_is_noted(self, docker: Docker) -> None:
        """And not overwritten by the second edit."""
        self.execute(docker, {"mtu": 2})
        self.execute(docker, {"mtu": 3})
        assert [one.name for one in docker.aside.parent.iterdir()] == ["daemon.json.none"]

    @needs_root
    def test_a_reload_puts_nothing_aside(self, docker: Docker) -> None:
        """It cannot keep Docker from coming up."""
        self.execute(docker, {"debug": True})
        assert list(docker.aside.parent.iterdir()) == []

    def test_bare(self) -> None:
        """A restart is owed where a key needs one."""
        (change,) = self.plan({"log-driver": "local"}, NO_FILE, [])
        assert [one.name for one in change.notify] == ["restart-docker"]
        assert isinstance(change.notify[0], Handler)


@pytest.mark.parametrize(
    ("text", "ports"),
    [
        ("", []),
        ("web 0.0.0.0:8080->80/tcp, [::]:8080->80/tcp\n", ["8080/tcp (container web)"]),
        ("web 0.0.0.0:8080->80/tcp, :::8080->80/tcp\n", ["8080/tcp (container web)"]),
        ("db 127.0.0.1:5432->5432/tcp, [::1]:5432->5432/tcp\n", []),
        ("dns 0.0.0.0:53->53/udp, 0.0.0.0:53->53/tcp\n", ["53/tcp (container dns)", "53/udp (container dns)"]),
        ("many 192.0.2.1:9000-9001->9000-9001/tcp\n", ["9000-9001/tcp (container many)"]),
        ("b 0.0.0.0:443->443/tcp\na 0.0.0.0:80->80/tcp\n", ["80/tcp (container a)", "443/tcp (container b)"]),
        ("inside 80/tcp\n", []),
    ],
)
def test_ports_that_docker_publishes_past_the_firewall(text: str, ports: list[str]) -> None:
    """By port; those on loopback do not count."""
    assert published(text) == ports


def test_reload_is_a_signal_that_is_answered() -> None:
    """Docker must answer after it."""
    assert RELOAD.run == sh("systemctl reload docker && docker version >/dev/null")
