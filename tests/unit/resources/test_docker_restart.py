"""Docker's restart with its rollback, and waiting for CI jobs: run by each shell with fake programs."""

from __future__ import annotations

import dataclasses
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from provision.host.docker import between_ci_jobs, wait_for_ci_jobs
from provision.resources import Handler, JsonSettings, Result
from provision.resources.base import Change
from provision.resources.docker import DAEMON_JSON, RELOAD, RELOADED, ROLLBACK, restart
from provision.shell import Command, sh
from provision.testing import NO_FILE, file_is, observe, observe_on, planned
from tests.support.local import Local, one_shell

pytestmark = pytest.mark.slow


class Docker:
    """A host with Docker; its daemon starts unless daemon.json holds `broken`."""

    def __init__(self, folder: Path, local: Local) -> None:
        self.folder = folder
        for name in ("bin", "docker", "home/rollback"):
            (folder / name).mkdir(parents=True)
        self.file, self.copy = folder / "docker/daemon.json", folder / "home/rollback/daemon.json"
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
        """The rollback copy is deleted."""
        docker.file.write_text("{}")
        docker.copy.write_text("old")
        result = docker.restart()
        assert (result.code, result.errors) == (0, "")
        assert not docker.copy.parent.exists()

    def test_rolled_back(self, docker: Docker) -> None:
        """The previous file is restored, only this handler is cleared, and the cause is printed without the journal's other lines."""
        docker.file.write_text("broken")
        docker.copy.write_text("old")
        result = docker.restart()
        assert result.code == 1
        assert result.errors == (f"failed to start daemon: the cause\nrolled back to the previous {docker.file}\n")
        assert docker.file.read_text() == "old"
        assert not docker.copy.parent.exists()
        assert docker.pending.read_text() == "other\tx\nmy-restart-docker\ty\n"

    @one_shell
    def test_rolled_back_to_no_file(self, docker: Docker) -> None:
        """There was none before."""
        docker.file.write_text("broken")
        (docker.copy.parent / "daemon.json.none").touch()
        assert docker.restart().code == 1
        assert not docker.file.exists()
        assert not docker.copy.parent.exists()

    @one_shell
    def test_nothing_to_restore(self, docker: Docker) -> None:
        """The message says so, and the handler stays pending."""
        docker.file.write_text("broken")
        result = docker.restart()
        assert "there is no earlier version of" in result.errors
        assert "restart-docker\t" in docker.pending.read_text()

    @one_shell
    def test_the_old_one_does_not_start_either(self, docker: Docker) -> None:
        """Both are reported; the copy is kept."""
        docker.file.write_text("broken")
        docker.copy.write_text("broken too")
        result = docker.restart()
        assert "but Docker does not start with it either" in result.errors
        assert docker.copy.exists()
        assert "restart-docker\t" in docker.pending.read_text()

    def test_it_waits_for_jobs_unless_it_is_to_be_now(self) -> None:
        """And has the time for it."""
        assert "wait_for_ci_jobs" in restart().run.script
        assert "wait_for_ci_jobs" not in restart(now=True).run.script
        assert restart().deadline > restart(now=True).deadline + 1000
        assert restart().rolls_back


def end_job(runner: subprocess.Popen[bytes]) -> None:
    """Ends the job of the fixture `runner`."""
    assert runner.stdin is not None
    runner.stdin.close()


class TestJobs:
    """`wait_for_ci_jobs`."""

    @pytest.fixture
    def socket_there(self, docker: Docker) -> Iterator[None]:
        """Docker's socket."""
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(docker.folder / "sock"))
            yield

    @one_shell
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

    @one_shell
    def test_a_job_that_does_not_end(self, docker: Docker, socket_there: None) -> None:
        """Reported, and nothing is restarted."""
        del socket_there
        docker.program("systemctl", "echo 0")
        docker.program("docker", "echo 'container a'; echo 'container b'")
        result = docker.run(wait_for_ci_jobs(0) + "echo done")
        assert result.code == 1
        assert result.errors == "CI jobs still run on this host after 0 s: container a,container b\n"
        assert "done" not in result.text

    RUNNER: Final = """
import os, pathlib, signal, sys
reader, writer = os.pipe()
def on_quit(*_):
    pathlib.Path(sys.argv[1], "got-quit").touch()
    os.write(writer, b"x")
signal.signal(signal.SIGQUIT, on_quit)
print("ready", flush=True)
sys.stdin.read()  # the job runs until standard input is closed
os.read(reader, 1)
os._exit(0)  # at once: an interpreter that is ending has no handler for another SIGQUIT
"""

    @pytest.fixture
    def runner(self, docker: Docker) -> Iterator[subprocess.Popen[bytes]]:
        """gitlab-runner with a job that is visible nowhere: it pulls its image. Its job ends with its standard input."""
        command = [sys.executable, "-c", self.RUNNER, str(docker.folder)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            docker.program(
                "systemctl",
                f"cd {docker.folder}; case $* in *=MainPID*) echo {process.pid} ;; *=Restart*) cat restart ;; "
                "*=SubState*) cat state ;; restart*) touch started ;; esac",
            )
            (docker.folder / "restart").write_text("always\n")
            (docker.folder / "state").write_text("running\n")
            reaper = threading.Thread(target=process.wait)
            reaper.start()
            yield process
            process.kill()
            reaper.join()

    def test_a_job_that_pulls_its_image(self, docker: Docker, runner: subprocess.Popen[bytes]) -> None:
        """The runner is asked to end after its jobs, and its end is waited for."""
        result = docker.run(wait_for_ci_jobs(4) + "echo done")
        assert (docker.folder / "got-quit").exists()
        assert result.code == 1
        assert result.text == "waiting for the CI jobs on this host to end: a job that is being prepared\n"
        assert result.errors == (
            "CI jobs still run on this host after 4 s: a job that is being prepared\n"
            "gitlab-runner takes no new jobs until they have ended; then systemd starts it again\n"
        )
        end_job(runner)
        assert docker.run(wait_for_ci_jobs(5) + "echo done").text.endswith("done\n")
        assert runner.wait() == 0

    @one_shell
    def test_an_idle_runner_ends_without_a_word(self, docker: Docker, runner: subprocess.Popen[bytes]) -> None:
        """Nothing is waited for."""
        end_job(runner)
        assert docker.run(wait_for_ci_jobs(5) + "echo done").text == "done\n"
        assert runner.wait() == 0

    CONNECTED: Final = """
import socket, sys
client = socket.socket(socket.AF_UNIX)
client.connect(sys.argv[1])
print("ready", flush=True)
sys.stdin.read()
"""

    @one_shell
    def test_a_runner_that_would_not_come_back_is_not_ended(
        self, docker: Docker, runner: subprocess.Popen[bytes]
    ) -> None:
        """Its unit has no Restart=; its connection to Docker shows that a job uses Docker."""
        del runner
        (docker.folder / "restart").write_text("no\n")
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(docker.folder / "sock"))
            listening.listen()
            assert docker.run(wait_for_ci_jobs(0) + "echo done").text == "done\n"
            command = [sys.executable, "-c", self.CONNECTED, str(docker.folder / "sock")]
            with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
                assert process.stdout is not None
                assert process.stdout.readline() == b"ready\n"
                accepted, _ = listening.accept()
                docker.program("systemctl", f"case $* in *=MainPID*) echo {process.pid} ;; *) echo no ;; esac")
                result = docker.run(wait_for_ci_jobs(0) + "echo done")
                process.communicate()
                accepted.close()
        assert result.errors == "CI jobs still run on this host after 0 s: a job that uses Docker\n"
        assert not (docker.folder / "got-quit").exists()

    @one_shell
    @pytest.mark.parametrize(("state", "starts"), [("auto-restart", True), ("dead", False), ("running", False)])
    def test_it_is_started_again(
        self, docker: Docker, runner: subprocess.Popen[bytes], state: str, starts: bool
    ) -> None:
        """At once, whatever the code of the command; a runner that somebody stopped stays stopped."""
        end_job(runner)
        (docker.folder / "state").write_text(f"{state}\n")
        assert docker.run(between_ci_jobs(Command("set -e; false; echo no")).script).code == 1
        assert (docker.folder / "started").exists() == starts

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
    """Which handler a change of daemon.json notifies, and the rollback copy."""

    @staticmethod
    def plan(wanted: dict[str, Any], found: Result, ours: list[str]) -> list[Change]:
        """The changes."""
        resource = settings(wanted)
        return planned(resource, observe(resource, {"file": found}, record=ours))

    @pytest.mark.parametrize(
        ("before", "wanted", "ours", "handler"),
        [
            ('{"debug": false}', {"debug": True}, [], "reload-docker"),
            ('{"bip": "x"}', {"debug": True}, [], "reload-docker"),
            ('{"debug": true, "labels": ["a"]}', {"debug": True}, ["labels"], "reload-docker"),
            ('{"debug": false}', {"debug": True, "log-driver": "local"}, [], "restart-docker"),
            ("{}", {"features": {"containerd-snapshotter": True}}, [], "restart-docker"),
            ('{"mtu": 1400, "debug": true}', {"debug": True}, ["mtu"], "restart-docker"),
        ],
    )
    def test_reload_where_that_suffices(
        self, before: str, wanted: dict[str, Any], ours: list[str], handler: str
    ) -> None:
        """By the keys that are touched."""
        (change,) = self.plan(wanted, file_is(before), ours)
        assert [one.name for one in change.notify] == [handler]

    def test_both_are_declared(self) -> None:
        """So that the task runs either of them when it is pending."""
        assert [one.name for one in settings({}).handlers] == ["restart-docker", "reload-docker"]

    def test_a_file_of_others_is_not_even_read(self) -> None:
        """Nothing wanted, nothing of ours: broken JSON does not matter."""
        assert self.plan({}, file_is("{broken"), []) == []

    def execute(self, docker: Docker, wanted: dict[str, Any]) -> None:
        """Edits."""
        resource = dataclasses.replace(settings(wanted), check="")
        for change in planned(resource, observe_on(docker.session, resource)):
            assert isinstance(change.run, Command)
            assert docker.session.run(change.run, deadline=10).code == 0

    @pytest.mark.root
    def test_the_file_is_copied_once(self, docker: Docker) -> None:
        """Before the first change whose restart has not succeeded yet."""
        docker.file.write_text('{"mtu": 1}')
        self.execute(docker, {"mtu": 2})
        self.execute(docker, {"mtu": 3})
        assert docker.copy.read_text() == '{"mtu": 1}'

    @pytest.mark.root
    def test_a_missing_file_is_marked(self, docker: Docker) -> None:
        """And not overwritten by the second edit."""
        self.execute(docker, {"mtu": 2})
        self.execute(docker, {"mtu": 3})
        assert [one.name for one in docker.copy.parent.iterdir()] == ["daemon.json.none"]

    @pytest.mark.root
    def test_a_reload_makes_no_copy(self, docker: Docker) -> None:
        """It cannot keep Docker from coming up."""
        self.execute(docker, {"debug": True})
        assert list(docker.copy.parent.iterdir()) == []

    def test_bare(self) -> None:
        """A restart, where a key needs one."""
        (change,) = self.plan({"log-driver": "local"}, NO_FILE, [])
        assert [one.name for one in change.notify] == ["restart-docker"]
        assert isinstance(change.notify[0], Handler)


def test_reload_is_a_signal_that_is_answered() -> None:
    """Docker must answer after it."""
    assert RELOAD.run == sh("systemctl reload docker && docker version >/dev/null")
