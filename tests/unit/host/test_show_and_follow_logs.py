"""The scripts of `provision logs`, run by three shells with a docker that is a script."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from provision.host.scripts import script

DOCKER = """#!/bin/sh
case $1 in
container) [ "$3" = hello ] ;;
logs) echo "docker $*"; case $* in *-f*) exec sleep 60 ;; esac ;;
esac
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A PATH that begins with our docker."""
    docker = tmp_path / "bin" / "docker"
    docker.parent.mkdir()
    docker.write_text(DOCKER)
    docker.chmod(0o755)
    return {"PATH": f"{docker.parent}:{os.environ['PATH']}"}


@pytest.mark.parametrize(("app", "code", "output"), [("hello", 0, "docker logs --tail 5 hello\n"), ("other", 1, "")])
def test_the_last_lines(shell: tuple[str, ...], environment: dict[str, str], app: str, code: int, output: str) -> None:
    """They are docker's; a missing container is exit code 1."""
    ended = subprocess.run(
        [*shell, "-c", script("show_logs", app, 5).script], env=environment, capture_output=True, text=True
    )
    assert (ended.returncode, ended.stdout) == (code, output)


def test_following_ends_with_the_connection(
    shell: tuple[str, ...], environment: dict[str, str], tmp_path: Path
) -> None:
    """When the sshd process above the shell is gone, docker logs is ended too."""
    sshd = tmp_path / "sshd-test"
    shutil.copy("/bin/dash", sshd)
    line = shlex.join([*shell, "-c", script("follow_logs", "hello", 5).script])
    running = subprocess.Popen([sshd, "-c", f"{line}; :"], env=environment, stdout=subprocess.PIPE, text=True)
    assert running.stdout is not None
    assert running.stdout.readline() == "docker logs --tail 5 -f hello\n"
    running.kill()
    running.wait(10)
    started = time.monotonic()
    assert running.stdout.read() == "", "every process that holds our pipe has ended"
    assert time.monotonic() - started < 5


def test_following_ends_with_the_container(shell: tuple[str, ...], environment: dict[str, str], tmp_path: Path) -> None:
    """When docker logs ends, the script does."""
    docker = tmp_path / "bin" / "docker"
    docker.write_text(DOCKER.replace("exec sleep 60", "exit 0"))
    sshd = tmp_path / "sshd-test"
    shutil.copy("/bin/dash", sshd)
    line = shlex.join([*shell, "-c", script("follow_logs", "hello", 5).script])
    ended = subprocess.run([sshd, "-c", f"{line}; :"], env=environment, capture_output=True, text=True, timeout=10)
    assert ended.stdout == "docker logs --tail 5 -f hello\n"
