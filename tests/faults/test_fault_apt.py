"""apt fails: dpkg's lock is held, a repository is missing, a key is wrong. Each host waits or fails separately."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest

from provision_lab import LabHost
from provision_lab.harness import PROVISION, Harness
from tests.support.faults import DPKG_LOCK as LOCK
from tests.support.faults import Live, dpkg_held, fact
from tests.support.runs import Outcome, provision, running, unchanged

HELD, FREED, GONE, FORGED, WELL = HOSTS = ("held", "freed", "gone", "forged", "well")
LOCK_TIMEOUT = 80


@pytest.fixture(scope="module")
def harness(harness_factory: Callable[..., Harness]) -> Harness:
    """Bare runner hosts, one with a mirror that does not exist, one with a wrong key for it."""
    harness = harness_factory(*map(LabHost, HOSTS))
    mirror = harness.inventory["apt"]["runner"]
    harness.inventory["apt"]["lock_timeout"] = LOCK_TIMEOUT  # seconds; 15 minutes by default
    hosts = harness.inventory["hosts"]
    hosts[GONE]["apt"] = {"runner": {**mirror, "url": f"{harness.lab.apt_url}/gone"}}
    hosts[FORGED]["apt"] = {"runner": {**mirror, "key": str(harness.lab.folder / "docker.asc")}}
    return harness


_KILLED = """
mkdir -p /root/killed/DEBIAN && cd /root/killed
printf 'Package: killed\\nVersion: 1\\nArchitecture: all\\nMaintainer: x\\nDescription: x\\n' > DEBIAN/control
printf '#!/bin/sh\\n[ -e /root/once ] || { touch /root/once; kill -9 $PPID; }\\n' > DEBIAN/postinst
chmod 755 DEBIAN/postinst
dpkg-deb -b . /root/killed.deb > /dev/null
dpkg -i /root/killed.deb > /dev/null 2>&1 || ls /var/lib/dpkg/updates
"""


@pytest.fixture(scope="module")
def outcome(harness: Harness) -> Outcome:
    """One run on all hosts but one, with a lock that is not released; meanwhile the other host is tested.

    On the working host a dpkg was killed before.
    """
    assert harness.lab.inside(WELL, _KILLED).split(), "the killed dpkg left no journal"
    with dpkg_held(harness, HELD):
        run = Live(harness, "runner", "--limit", f"!{FREED}")
        (harness.folder / "freed.txt").write_text(waited(harness))
        return run.end()


def waited(harness: Harness) -> str:
    """The output and exit code of a run that waits for a lock which is released then."""
    path = harness.write(name="freed.toml")
    argv = [*PROVISION, "runner", "--limit", FREED, "-v", "-i", str(path)]
    message = []
    with running(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as run:
        assert run.stdout is not None
        with dpkg_held(harness, FREED):
            for line in run.stdout:
                message.append(line)
                if "waiting for" in line:
                    break
        message += [*run.stdout, f"exit code {run.wait()}\n"]
    return "".join(message)


def failure(outcome: Outcome, host: str) -> str:
    """The host's only error with its hint, at the task `runner`."""
    (error,) = outcome.of("error", host=host)
    assert (error["error"], error["task"]) == ("ChangeFailed", "runner")
    assert error["hint"]
    return f"{error['text']} → {error['hint']}"


def test_a_lock_that_stays(outcome: Outcome) -> None:
    """After `lock_timeout` the host fails, naming lock, holder and process; nothing was installed, exit code 1."""
    message = failure(outcome, HELD)
    assert f"{LOCK} has been held for {LOCK_TIMEOUT} s by unattended-upgr (pid " in message
    assert "wait until it ends" in message
    assert outcome.code == 1


def test_a_lock_that_is_released(outcome: Outcome, harness: Harness) -> None:
    """The run names the holder while it waits, and then installs."""
    assert outcome
    message = (harness.folder / "freed.txt").read_text()
    assert f"waiting for {LOCK}, held by unattended-upgr (pid " in message
    assert message.endswith("exit code 0\n")
    unchanged(harness, "runner", "--limit", FREED)


def test_a_repository_that_is_gone(outcome: Outcome) -> None:
    """apt's error with the address."""
    assert "/gone" in failure(outcome, GONE)


def test_a_key_of_somebody_else(outcome: Outcome) -> None:
    """Packages that the given key did not sign are not installed: apt's error."""
    message = failure(outcome, FORGED)
    assert "NO_PUBKEY" in message or "not signed" in message


def test_other_hosts_converge(outcome: Outcome, harness: Harness) -> None:
    """The working host did not wait, completed a dpkg that was killed earlier, and has the package; the broken ones have
    no part of it."""
    assert outcome.statuses(WELL) == {"runner": "changed"}
    assert outcome.summary["hosts"][WELL]["seconds"] < 60 < outcome.summary["hosts"][HELD]["seconds"]
    status = "dpkg-query -Wf '${db:Status-Status}' gitlab-runner 2>/dev/null; dpkg --audit; true"
    assert fact(harness, WELL, status) == "installed"
    assert [fact(harness, host, status) for host in (HELD, GONE, FORGED)] == ["", "", ""]


def test_once_fixed_it_converges(outcome: Outcome, harness: Harness) -> None:
    """With a free lock, the right address and the right key, all hosts converge."""
    assert outcome
    for host in (GONE, FORGED):
        del harness.inventory["hosts"][host]["apt"]
    done = provision(harness, "runner")
    assert (done.code, done.errors) == (0, "")
    unchanged(harness, "runner")
