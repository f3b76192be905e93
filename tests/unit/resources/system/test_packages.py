"""`Packages`: what is installed at which version; the waiting for apt's locks is run with a real lock."""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from provision.errors import ProbeFailed
from provision.host.facts import Installed, System, read_packages, read_system
from provision.resources import Packages, Result
from provision.resources.base import Change
from provision.resources.system.packages import apt
from provision.shell import Command, sh
from provision.testing import LocalSession, observe, packages_are, planned

DOCKER = Packages(
    ("docker-ce", "docker-ce-cli", "containerd.io"),
    version="5:29.*",
    versioned=("docker-ce", "docker-ce-cli"),
    hold=True,
    conflicting=("docker.io", "runc"),
    downgrade=True,
)
CONVERGED = {"docker-ce": "5:29.1-1", "docker-ce-cli": "5:29.1-1", "containerd.io": "1.7"}


def plan(resource: Packages, versions: dict[str, str], held: tuple[str, ...] = ()) -> list[Change]:
    """The changes for what is installed."""
    return planned(resource, observe(resource, packages_are(versions, held)))


def install_line(change: Change) -> str:
    """The last line of a change's script: apt-get's own."""
    assert isinstance(change.run, Command)
    return change.run.script.strip().splitlines()[-1]


def test_bare() -> None:
    """All in one transaction, pinned ones with their version, then held."""
    install, hold = plan(DOCKER, {})
    assert install.summary == "install docker-ce, docker-ce-cli, containerd.io (version 5:29.*)"
    assert (install.action, install.deadline) == ("create", 1800)
    assert install_line(install).endswith(
        "--allow-change-held-packages --allow-downgrades -- 'docker-ce=5:29.*' 'docker-ce-cli=5:29.*' containerd.io"
    )
    assert hold.run == sh("apt-mark hold -- docker-ce docker-ce-cli")


def test_half_done() -> None:
    """One of a pinned pair at another version: both move together and are held anew; what has no version of ours stays out of it."""
    install, hold = plan(DOCKER, {**CONVERGED, "docker-ce": "5:28.0-1"}, ("docker-ce", "docker-ce-cli"))
    assert install.summary == "replace docker-ce 5:28.0-1 by version 5:29.*"
    assert install.action == "update"
    assert install_line(install).endswith("-- 'docker-ce=5:29.*' 'docker-ce-cli=5:29.*'")
    assert hold.run == sh("apt-mark hold -- docker-ce docker-ce-cli")


def test_one_is_missing() -> None:
    """Missing ones are installed, and named."""
    install, *_ = plan(DOCKER, {"docker-ce": "5:29.1-1", "docker-ce-cli": "5:29.1-1"}, ("docker-ce", "docker-ce-cli"))
    assert install.summary == "install containerd.io (version 5:29.*)"


def test_converged() -> None:
    """Installed at the version, and held."""
    assert plan(DOCKER, CONVERGED, ("docker-ce", "docker-ce-cli")) == []


def test_not_held() -> None:
    """Only the hold is missing, and only where it is."""
    (hold,) = plan(DOCKER, CONVERGED, ("docker-ce",))
    assert (hold.summary, hold.run) == ("hold docker-ce-cli", sh("apt-mark hold -- docker-ce-cli"))


def test_a_hold_of_ours_goes_with_its_pin() -> None:
    """Without a version any more, what we once held is let go of; what somebody else holds is not."""
    free = Packages(("docker-ce", "docker-ce-cli"))
    seen = observe(
        free,
        {
            "": packages_are({"docker-ce": "5:29.1-1", "docker-ce-cli": "5:29.1-1"}, ("docker-ce", "docker-ce-cli")),
        },
        record=["docker-ce"],
    )
    (change,) = planned(free, seen)
    assert change.summary == "unhold docker-ce"
    assert change.run == sh("apt-mark unhold -- docker-ce")
    assert change.record is None


def test_conflicting_ones_go_first() -> None:
    """Only those that are there."""
    remove, *rest = plan(DOCKER, {"runc": "1.0"})
    assert remove.summary == "remove runc: in conflict with docker-ce"
    assert remove.action == "delete"
    assert install_line(remove) == "apt-get -q remove -y -o DPkg::Lock::Timeout=120 -- runc"
    assert len(rest) == 2


def test_a_removed_package_with_its_configuration_left_is_not_installed() -> None:
    """dpkg's `rc`."""
    docker = Packages(("ufw",))
    seen = observe(docker, "ufw\t0.36\trc \n")
    assert [one.summary for one in planned(docker, seen)] == ["install ufw"]


def test_any_version_will_do_without_a_wish() -> None:
    """No version, no hold, no origin: what is there is left alone."""
    assert plan(Packages(("curl", "openssl")), {"curl": "1", "openssl": "0.1"}) == []


def test_an_origin_is_asserted_before_installing() -> None:
    """The addresses that apt would fetch from are compared, in one transaction; the environment is apt's own."""
    runner = Packages(
        ("gitlab-runner", "gitlab-runner-helper-images"),
        version="19.3.0-*",
        origin="https://packages.gitlab.com/",
        environment=("NO_DOCKER_PRUNE=1",),
    )
    install, *_ = plan(runner, {})
    assert isinstance(install.run, Command)
    assert "set -- 'gitlab-runner=19.3.0-*' 'gitlab-runner-helper-images=19.3.0-*'\n" in install.run.script
    assert "for origin in https://packages.gitlab.com/; do\n  for package; do" in install.run.script
    assert install_line(install).startswith("NO_DOCKER_PRUNE=1 apt-get -q install -y")
    assert "--allow-downgrades" not in install_line(install)


def test_without_an_origin_nothing_is_asserted() -> None:
    """The loop runs over nothing; sh takes it."""
    install, *_ = plan(Packages(("ufw",)), {})
    assert isinstance(install.run, Command)
    assert "for origin in ; do" in install.run.script
    assert subprocess.run(["sh", "-n"], input=install.run.script.encode(), check=False).returncode == 0


def test_a_label_names_the_first_and_counts_the_others() -> None:
    """As plans show it."""
    assert DOCKER.label == "Packages docker-ce +2"
    assert Packages(("ufw",)).label == "Packages ufw"


class TestFacts:
    """What dpkg and os-release say."""

    def test_packages(self) -> None:
        """Installed ones with version and hold; half installed ones (`iF`, `iU`) are not."""
        text = "a\t1:2~rc1\tii \nb\t2\thi \nc\t3\trc \nd\t\tun \ne\t5\tiU \n"
        found = read_packages(Result(text.encode()))
        assert found["a"] == Installed("1:2~rc1", held=False)
        assert found["b"] == Installed("2", held=True)
        assert set(found) == {"a", "b"}

    def test_no_dpkg(self) -> None:
        """Broken."""
        with pytest.raises(ProbeFailed, match=r"dpkg-query: .*not found"):
            read_packages(Result(b"", b"sh: dpkg-query: not found\n", 127))

    def test_system(self) -> None:
        """The four lines."""
        assert read_system(Result(b"ubuntu\nnoble\n24.04\namd64\n")) == System("ubuntu", "noble", "24.04", "amd64")

    @pytest.mark.parametrize(
        "result",
        [Result(b"fedora\n\n41\n"), Result(b"fedora\n\n41\namd64\n"), Result(b"", b"no os-release", 2)],
    )
    def test_another_system(self, result: Result) -> None:
        """Only what apt governs."""
        with pytest.raises(ProbeFailed, match="not a Debian or Ubuntu"):
            read_system(result)


class TestLocks:
    """Waiting for apt's locks, with a lock that a process really holds."""

    @pytest.fixture
    def locks(self, tmp_path: Path) -> Path:
        """The files that dpkg and apt lock."""
        for name in ("dpkg/lock-frontend", "dpkg/lock", "apt/lists/lock"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        return tmp_path

    @staticmethod
    def here(locks: Path, seconds: int, script: str) -> Result:
        """Runs a script behind the waiting, with another patience."""
        session = LocalSession({"/var/lib/dpkg": locks / "dpkg", "/var/lib/apt": locks / "apt"})
        text = re.sub(
            r"-ge 120|for 120 s", lambda found: found.group().replace("120", str(seconds)), apt(script).script
        )
        return session.run(Command(text), deadline=20)

    def test_free_locks_are_not_waited_for(self, locks: Path) -> None:
        """The script runs at once; a lock file that is not there is no lock."""
        result = self.here(locks, 5, "echo ran")
        assert (result.text, result.errors) == ("ran\n", "")

    def test_who_holds_it_is_named(self, locks: Path) -> None:
        """By the name and number of the process, on the lock that it holds; in the end it is a failure."""
        with (locks / "apt/lists/lock").open("w") as held:
            fcntl.lockf(held, fcntl.LOCK_EX)
            result = self.here(locks, 1, "echo ran")
        who = f"{Path('/proc/self/comm').read_text().strip()} (pid {os.getpid()})"
        assert result.text == f"waiting for {locks}/apt/lists/lock, held by {who}\n"
        assert result.errors == f"{locks}/apt/lists/lock has been held for 1 s by {who}\n"
        assert result.code == 100

    def test_it_goes_on_when_the_lock_is_let_go(self, locks: Path) -> None:
        """Another process holds it for a moment."""
        holding = (
            "import fcntl, sys, time; f = open(sys.argv[1], 'w'); fcntl.lockf(f, fcntl.LOCK_EX); "
            "print('held', flush=True); time.sleep(0.5)"
        )
        holder = subprocess.Popen([sys.executable, "-c", holding, locks / "dpkg/lock-frontend"], stdout=subprocess.PIPE)
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        result = self.here(locks, 10, "echo ran")
        holder.wait()
        holder.stdout.close()
        assert re.fullmatch(rf"waiting for .*lock-frontend, held by \S+ \(pid {holder.pid}\)\nran\n", result.text)

    def test_a_failing_script_stops_at_its_first_failure(self, locks: Path) -> None:
        """`set -e` holds behind the waiting."""
        result = self.here(locks, 5, "false\necho went on")
        assert (result.code, result.text) == (1, "")
