"""Steps that outlive the connection: run, broken off, picked up again, all with a real sh."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from provision.host.pending import Handler, add_pending, detach, job_folder
from provision.shell import Command, Result, sh
from provision.testing import LocalSession
from tests.support.local import Local, one_shell
from tests.support.waiting import wait_for

PR_SET_CHILD_SUBREAPER: Final = 36  # prctl(2)
SLOW = sh("echo begun >&2; echo one; until [ -e /etc/go ]; do sleep 0.02; done; echo two; exit 3")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """What stands for /var/lib/provision."""
    home = tmp_path / "home"
    home.mkdir()
    return home


@pytest.fixture
def host(home: Path, tmp_path: Path, local: Local) -> LocalSession:
    """This machine as a host."""
    (tmp_path / "etc").mkdir()
    return local({"/var/lib/provision": home, "/etc": tmp_path / "etc"})


def here(host: LocalSession, command: Command) -> Command:
    """The step with this test's folders in it: a detached step's script travels on standard input."""
    return Command(host.here(command.script))


def follow(host: LocalSession, command: Command) -> Result:
    """Runs the step detached, to its end."""
    return host.run(detach("slow work", here(host, command)), deadline=20)


class Job(NamedTuple):
    """A step without a follower: its folder, and the thread that waits for its end."""

    folder: Path
    reaper: threading.Thread

    @property
    def pid(self) -> int:
        """Its process."""
        return int((self.folder / "pid").read_text())

    def end(self, home: Path) -> None:
        """Lets it go on, and waits until it has ended."""
        go(home)
        self.reaper.join(10)
        assert (self.folder / "done").read_text() == "3\n"


@pytest.fixture
def interrupted(host: LocalSession, home: Path, shell: tuple[str, ...]) -> Iterator[Job]:
    """A connection that broke while SLOW was running: the folder of its job. The job is let go in the end."""
    follower = detach("slow work", here(host, SLOW))
    process = subprocess.Popen(
        [*shell, "-c", host.here(follower.script)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdin is not None
    process.stdin.write(follower.stdin)
    process.stdin.close()
    job = home / "job" / "slow-work"
    out = job / "out"
    wait_for(lambda: out.exists() and b"one" in out.read_bytes(), "the step has begun")
    # The orphan comes to us, and is reaped as soon as it ends, as systemd does it.
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert process.stdout is not None
    process.stdout.close()
    libc.prctl(PR_SET_CHILD_SUBREAPER, 0)
    reaper = threading.Thread(target=os.waitpid, args=(int((job / "pid").read_text()), 0))
    reaper.start()
    yield Job(job, reaper)
    go(home)
    reaper.join(10)


def go(home: Path) -> None:
    """Lets SLOW end."""
    (home.parent / "etc" / "go").touch()


def test_output_and_result_arrive_and_nothing_is_left(host: LocalSession, home: Path) -> None:
    """As if it had run in the connection."""
    result = follow(host, sh("printf '%%s\\n' %s; echo why >&2; exit 3", "it's 50%"))
    assert (result.text, result.errors, result.code) == ("it's 50%\n", "why\n", 3)
    assert list(home.iterdir()) == []


@one_shell
def test_standard_error_of_a_successful_step_is_not_printed(host: LocalSession) -> None:
    """It keeps stderr for the cause of a failure."""
    result = follow(host, sh("echo fine; echo noise >&2"))
    assert (result.text, result.errors, result.code) == ("fine\n", "", 0)


def test_a_running_step_is_resumed(host: LocalSession, home: Path, interrupted: Job) -> None:
    """The next run sees all of its output and its result; it is not started a second time."""
    go(home)
    result = follow(host, sh("echo never"))
    assert result.text.startswith("resuming: the step has been running since ") or "the step ended while" in result.text
    assert result.text.endswith("one\ntwo\n")
    assert (result.errors, result.code) == ("begun\n", 3)
    assert not interrupted.folder.exists()


@one_shell
def test_an_ended_step_is_resumed(host: LocalSession, home: Path, interrupted: Job) -> None:
    """It ended while no run was connected: its result counts."""
    interrupted.end(home)
    result = follow(host, sh("echo never"))
    assert result.text == "resuming: the step ended while no run was connected\none\ntwo\n"
    assert result.code == 3


def test_a_stale_running_step_is_waited_for_and_run_again(host: LocalSession, home: Path, interrupted: Job) -> None:
    """It began before the change that needs it again: its result does not cover that change."""
    handler = Handler("slow work", "do it", sh("true"), detached=True)
    assert host.run(Command(add_pending((handler,))), deadline=10).code == 0
    go(home)
    result = follow(host, sh("echo again"))
    assert "never" not in result.text
    assert result.text.endswith("again\n")
    assert (
        result.text.replace("waiting for an earlier run of this step, which began before the last change\n", ""),
        result.code,
    ) == (
        "again\n",
        0,
    )
    assert not interrupted.folder.exists()


@one_shell
def test_a_stale_ended_step_is_run_again(host: LocalSession, home: Path, interrupted: Job) -> None:
    """Its old result is thrown away."""
    interrupted.end(home)
    (interrupted.folder / "stale").touch()
    result = follow(host, sh("echo again"))
    assert (result.text, result.code) == ("again\n", 0)


@one_shell
def test_a_step_of_before_a_reboot_is_run_again(host: LocalSession, home: Path) -> None:
    """Its process id means another process by now: the boot's id shows that."""
    job = home / "job" / "slow-work"
    job.mkdir(parents=True)
    (job / "pid").write_text(f"{os.getpid()}\n")
    (job / "boot").write_text("another-boot\n")
    (job / "out").write_text("half\n")
    assert follow(host, sh("echo again")).text == "again\n"


def test_another_process_with_its_number_is_not_the_job(host: LocalSession, home: Path) -> None:
    """The job ended, and its number was given away: the start time shows that, or the arguments for a job of 0.1.0."""
    job = home / "job" / "slow-work"
    boot = Path("/proc/sys/kernel/random/boot_id").read_text()
    for start in ("1\n", None):
        job.mkdir(parents=True)
        (job / "pid").write_text(f"{os.getpid()}\n")
        (job / "boot").write_text(boot)
        (job / "out").write_text("half\n")
        if start:
            (job / "start").write_text(start)
        assert follow(host, sh("echo again")).text == "again\n"


def test_a_running_job_of_version_0_1_0_is_resumed(host: LocalSession, home: Path, interrupted: Job) -> None:
    """It has no start time; its process has its folder as an argument."""
    (interrupted.folder / "start").unlink()
    go(home)
    assert follow(host, sh("echo never")).text.endswith("one\ntwo\n")


@one_shell
def test_a_step_that_was_killed_is_a_failure(host: LocalSession, interrupted: Job, shell: tuple[str, ...]) -> None:
    """Killed while it is followed: reported, with code 143."""
    follower = detach("slow work", here(host, SLOW))
    process = subprocess.Popen(
        [*shell, "-c", host.here(follower.script)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert b"resuming" in process.stdout.readline()
    assert process.stdout.readline() == b"one\n"
    os.killpg(interrupted.pid, signal.SIGKILL)
    out, errors = process.communicate(timeout=20)
    assert out == b""
    assert errors == b"the step was killed\nbegun\n"
    assert process.returncode == 143


@one_shell
def test_the_job_survives_in_a_session_of_its_own(interrupted: Job) -> None:
    """A hang-up of the connection's terminal or process group does not reach it."""
    assert os.getsid(interrupted.pid) == interrupted.pid
    assert interrupted.reaper.is_alive()


@one_shell
@pytest.mark.root
def test_a_full_disk_fails_at_once(tmp_path: Path, local: Local) -> None:
    """A step that cannot be started is reported at once."""
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", small], check=True)
    try:
        (small / "filler").write_bytes(b"x" * 65536)
        host = local({"/var/lib/provision": small})
        started = time.monotonic()
        result = host.run(detach("slow work", sh("echo never")), deadline=5)
        assert time.monotonic() - started < 3
        assert result.code != 0
        assert "No space left on device" in result.errors
        assert b"never" not in result.stdout
    finally:
        subprocess.run(["umount", small], check=True)


@pytest.mark.parametrize(
    ("name", "folder"),
    [("reconfigure", "reconfigure"), ("install docker-ce, x=1", "install-docker-ce-x-1"), ("../x", "x")],
)
def test_a_job_has_a_plain_folder(name: str, folder: str) -> None:
    """Whatever the step is called, it stays below ours."""
    assert job_folder(name) == f"/var/lib/provision/job/{folder}"
