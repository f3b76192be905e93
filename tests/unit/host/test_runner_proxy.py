"""The proxy of gitlab-runner's service, which requests in its place use: lib/runner.sh with a stand-in for systemctl."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from provision.host.scripts import FOLDER
from provision.shell import Command
from tests.support.local import Local
from tests.support.waiting import wait_for

ASK: Final = (
    FOLDER / "lib/runner.sh"
).read_text() + 'set -- "a b" "*"; use_runner_proxy; echo "${http_proxy-}|${https_proxy-}|${no_proxy-}|$#"'
UNIT: Final = "[Service]\nEnvironment=HTTPS_PROXY=http://unit:1 NO_PROXY=.example.com\n"
Start = Callable[..., int]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a process with this environment, and returns its number: `start(http_proxy="http://process:1")`."""
    running: list[subprocess.Popen[bytes]] = []

    def begin(**environment: str) -> int:
        running.append(subprocess.Popen(["/bin/sleep", "600"], env=environment))
        # Its environment is its own from its exec on.
        arguments = Path(f"/proc/{running[-1].pid}/cmdline")
        wait_for(lambda: arguments.read_bytes().startswith(b"/bin/sleep"), "the process has its environment")
        return running[-1].pid

    yield begin
    for one in running:
        one.kill()
        one.wait()


@pytest.fixture
def proxy_of(local: Local, tmp_path: Path) -> Callable[..., tuple[str, bool]]:
    """What the script finds on a host, and whether it asked systemd.

    pid      the service's process; 0: it does not run
    unit     the text of the unit's file
    drop_in  the text of a drop-in file
    shown    what systemd shows as the unit's environment
    hidden   whether the file of the service's processes is missing
    """

    def find(
        pid: int = 0, unit: str = "[Service]\n", drop_in: str = "", shown: str = "", *, hidden: bool = False
    ) -> tuple[str, bool]:
        folders = {one: tmp_path / one.strip("/").replace("/", "_") for one in ("/etc/systemd", "/sys/fs/cgroup")}
        group = folders["/sys/fs/cgroup"] / "system.slice/gitlab-runner.service"
        units, asked = folders["/etc/systemd"] / "system", tmp_path / "asked"
        for one in (group, units / "gitlab-runner.service.d", tmp_path / "bin"):
            one.mkdir(parents=True)
        if not hidden and pid:
            (group / "cgroup.procs").write_text(f"{pid}\n")
        (units / "gitlab-runner.service").write_text(unit)
        if drop_in:
            (units / "gitlab-runner.service.d/proxy.conf").write_text(drop_in)
        systemctl = tmp_path / "bin/systemctl"
        systemctl.write_text(f"#!/bin/sh\n: > {asked}\necho 'Environment={shown}'\necho MainPID={pid}\n")
        systemctl.chmod(0o755)
        path = f"{tmp_path}/bin:/usr/bin:/bin"
        # The shell's own proxy is not the service's.
        host = local(folders, {"PATH": path, "http_proxy": "http://shell:1", "HTTPS_PROXY": "http://shell:1"})
        done = host.run(Command(ASK), deadline=30)
        assert (done.code, done.errors) == (0, "")
        return done.text.strip(), asked.exists()

    return find


def test_without_a_proxy_systemd_is_not_asked(proxy_of: Callable[..., tuple[str, bool]], start: Start) -> None:
    """Nothing of the service names one: asking would take longer than everything else."""
    assert proxy_of(start(HOME="/root")) == ("|||2", False)


def test_the_proxy_of_the_process(proxy_of: Callable[..., tuple[str, bool]], start: Start) -> None:
    """It may come from a file of the unit's environment, or from systemd's own."""
    pid = start(https_proxy="http://process:1", HTTP_PROXY="http://process:2")
    assert proxy_of(pid) == ("http://process:2|http://process:1||2", True)


@pytest.mark.parametrize("place", ["unit", "drop_in"])
def test_the_proxy_of_the_unit(proxy_of: Callable[..., tuple[str, bool]], start: Start, place: str) -> None:
    """The service has it after its next start: it precedes that of the process."""
    shown = "HTTPS_PROXY=http://unit:1 NO_PROXY=.example.com"
    found = proxy_of(start(HTTPS_PROXY="http://process:1"), **{place: UNIT}, shown=shown)
    assert found == ("|http://unit:1|.example.com|2", True)


def test_where_the_processes_are_not_found_systemd_is_asked(proxy_of: Callable[..., tuple[str, bool]]) -> None:
    """The service does not run, or cgroups have version 1."""
    assert proxy_of(shown="http_proxy=http://unit:1", hidden=True) == ("http://unit:1|||2", True)
