"""The main job on hosts like Ubuntu 26.04: sudo-rs, uutils, apt 3, systemd 258 or newer, OpenSSH with penalties.

The tests run in order on the same two hosts; the runner host's sudo requires a password.
"""

from __future__ import annotations

import json
import re
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from provision_lab import LabHost
from provision_lab.harness import Harness
from provision_lab.image import Image
from tests.support.faults import Live, fact, on_host, pending, wait_until_free
from tests.support.images import HELLO, IMAGE, REGISTRY, answer, base_image, write_app
from tests.support.runs import Outcome, applied, provision, refused, strays, twice, unchanged
from tests.support.waiting import wait_for

GITLAB, RUNNER = HOSTS = ("gitlab", "runner-1")
STARTED = "systemctl show docker --property=ExecMainStartTimestampMonotonic --value"
CHECK = ("docker", "--check", "--limit", RUNNER)
in_order = pytest.mark.usefixtures("first")


@pytest.fixture(scope="module")
def harness(harness_factory: Callable[..., Harness]) -> Harness:
    """inventories/lab.toml on two bare hosts."""
    runner = LabHost(RUNNER, sudo="password")
    return harness_factory(LabHost(GITLAB), runner, image=Image.like("ubuntu-26.04"))


@pytest.fixture(scope="module")
def first(harness: Harness) -> Outcome:
    """The first run."""
    return applied(harness, "all")


def test_the_hosts_are_like_it(harness: Harness) -> None:
    """The programs that differ between Debian and Ubuntu 26.04 are those of Ubuntu."""
    for host in HOSTS:
        assert (
            fact(harness, host, ". /etc/os-release; echo $ID $VERSION_ID $VERSION_CODENAME") == "ubuntu 26.04 resolute"
        )
        versions = fact(harness, host, "sudo --version; ls --version; chroot --version; cp --version | head -1")
        assert re.fullmatch(
            r"sudo-rs 0\.\S+\nls \(uutils coreutils\) \S+\nchroot \(uutils coreutils\) \S+\ncp \(GNU coreutils\) \S+",
            versions,
        ), versions
        apt, systemd, ssh = (
            int(fact(harness, host, f"{command} | grep -o '[0-9]*' | head -1"))
            for command in ("apt --version", "systemctl --version", "sshd -V 2>&1")
        )
        assert (apt >= 3, systemd >= 258, ssh >= 10) == (True, True, True)


def test_all_from_bare_hosts(first: Outcome) -> None:
    """Every task changed something and none failed, with sudo's password on one of the hosts."""
    assert all(one["changed"] > 0 and one["skipped"] == 0 for one in first.summary["hosts"].values())
    assert [one["host"] for one in first.of("message", task="verify") if "verify push and pull" in one["text"]] == [
        RUNNER
    ]
    assert any(summary.startswith("switch ufw on") for summary in first.changes(host=GITLAB))


@in_order
def test_the_next_run_changes_nothing(harness: Harness) -> None:
    """No change on any host, and nothing is left beside what is documented."""
    again = unchanged(harness, "all")
    assert max(one["round_trips"] for one in again.summary["hosts"].values()) <= 9
    assert [strays(harness, host) for host in HOSTS] == [[], []]


@in_order
def test_docker_is_ubuntus(harness: Harness) -> None:
    """Docker comes from the repository for `resolute`, and is the newest that Debian has."""
    version = fact(harness, RUNNER, "dpkg-query -W -f '${Version}' docker-ce")
    assert version.endswith("~ubuntu.26.04~resolute")
    assert int(version.partition(":")[2].partition(".")[0]) >= 28


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("wrong", ("sudo refused the password for ubuntu", "become_password", "NOPASSWD")),
        ("", ("sudo does not give ubuntu a root shell without a password", "-K", "become_password", "NOPASSWD")),
    ],
    ids=["wrong", "none"],
)
def test_sudo_refuses(harness: Harness, tmp_path: Path, given: str, words: tuple[str, ...]) -> None:
    """sudo-rs with a wrong password or none: the reason, and what helps; the password is not shown."""
    (tmp_path / "password").write_text(given)
    del harness.inventory["hosts"][RUNNER]["ssh"]
    try:
        password = {"become_password": {"file": str(tmp_path / "password")}} if given else {}
        outcome = refused(harness, *CHECK, changes={"hosts": {RUNNER: {"ssh": password}}})
    finally:
        harness.inventory["hosts"][RUNNER]["ssh"] = {"become_password": harness.lab.secret_source("sudo_password")}
    (error,) = outcome.of("error")
    assert error["error"] == "BecomeError"
    assert [word for word in words if word not in outcome.errors] == []
    assert not given or given not in error["text"]


def test_sudo_does_not_allow_the_user(harness: Harness) -> None:
    """sudo-rs's own sentence for a user who is not in sudoers is not taken for a wrong password."""
    rights = "/etc/sudoers.d/90-lab"
    with on_host(harness, RUNNER, f"mv {rights} /root/rights", f"mv /root/rights {rights}"):
        outcome = refused(harness, *CHECK)
    assert "sudo refuses ubuntu" in outcome.errors
    assert "sudoers" in outcome.errors


@in_order
def test_image_and_deploy(harness: Harness) -> None:
    """Built with BuildKit, pushed, deployed, changed and deployed again; the app answers."""
    base_image(harness, RUNNER)
    write_app(harness)
    harness.inventory |= {"images": [IMAGE], "apps": [HELLO]}
    outcome = twice(harness, "image", "deploy")
    assert outcome.changes() == [
        f"build and push {REGISTRY}/root/hello_hapi:1.0, latest",
        f"deploy hello: {REGISTRY}/root/hello_hapi:1.0",
    ]
    assert answer(harness, RUNNER) == "hello world!"
    write_app(harness, "hello beautiful world!")
    assert len(twice(harness, "image", "deploy").changes()) == 2
    assert answer(harness, RUNNER) == "hello beautiful world!"


@in_order
def test_prune(harness: Harness) -> None:
    """An old image is removed; the app's image and the app stay."""
    harness.lab.inside(RUNNER, "tar -C /etc -c hostname | docker import - old:1")
    wanted = {"prune": {"days": 0}}
    planned = applied(harness, "prune", "--check", changes=wanted).changes()
    assert ["old:1" in one for one in planned] == [True]
    assert twice(harness, "prune", changes=wanted).changes() == planned
    assert "old:1" not in fact(harness, RUNNER, "docker images --format '{{.Repository}}:{{.Tag}}'").split()
    assert answer(harness, RUNNER) == "hello beautiful world!"
    unchanged(harness, "image", "deploy")


@in_order
def test_the_controller_is_killed(harness: Harness) -> None:
    """kill -9 right after daemon.json was written: the restart stays pending, and the next run makes it."""
    changes, started = {"docker": {"daemon": {"log-opts": {"max-size": "12m"}}}}, fact(harness, RUNNER, STARTED)
    run = Live(harness, "docker", "--limit", RUNNER, changes=changes)
    run.until("change", resource="JsonSettings /etc/docker/daemon.json")
    run.kill()
    wait_until_free(harness, RUNNER)
    outcome = applied(harness, "docker", "--limit", RUNNER, changes=changes)
    # Killed in time it was still to do; else it had been done by the step that went on.
    assert outcome.changes() in (["restart docker"], [])
    assert int(fact(harness, RUNNER, STARTED)) > int(started)
    assert json.loads(fact(harness, RUNNER, "cat /etc/docker/daemon.json"))["log-opts"]["max-size"] == "12m"
    assert pending(harness, RUNNER) == []
    unchanged(harness, "docker", "--limit", RUNNER, changes=changes)
    wait_for(lambda: answer(harness, RUNNER).startswith("hello"), "the app runs again")


@in_order
def test_a_firewall_that_locks_us_out_is_rolled_back(harness: Harness) -> None:
    """The guard's timer and its fresh login work: the change is undone, and once fixed, ufw is enabled."""
    rule = f"deny from {harness.lab.gateway}"
    with on_host(harness, GITLAB, f"ufw disable; ufw insert 1 {rule}", f"ufw delete {rule}"):
        outcome = refused(harness, "firewall")
        assert "a fresh login failed" in outcome.errors
        assert "it was rolled back, and logins work again" in outcome.errors
        assert fact(harness, GITLAB, "ufw status") == "Status: inactive"
    assert twice(harness, "firewall").changes() == ["switch ufw on"]
    assert fact(harness, GITLAB, "systemctl list-units --all --no-legend 'provision-guard*'") == ""


def penalties(harness: Harness) -> list[str]:
    """What sshd has logged about connections without a login since it was started."""
    start = "$(systemctl show ssh -p ActiveEnterTimestamp --value)"
    lines = fact(harness, RUNNER, f'journalctl -u ssh -o cat --since "{start}"').splitlines()
    return [line for line in lines if re.search(r"child_reap: preauth child .* exited", line)]


def test_sshd_penalises_what_a_failed_run_leaves(harness: Harness, tmp_path: Path) -> None:
    """One connection for a refused host key and one for a refused login; none for a good run."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "key"], check=True)
    log = "/etc/ssh/sshd_config.d/00-log.conf"
    with on_host(
        harness,
        RUNNER,
        f"echo LogLevel DEBUG1 > {log}; systemctl restart ssh",
        f"rm {log}; systemctl restart ssh",
    ):
        wait_for(lambda: harness.lab.ssh(RUNNER, "true").returncode == 0, "sshd answers")
        applied(harness, *CHECK)
        assert penalties(harness) == []
        assert provision(harness, *CHECK, changes={"ssh": {"known_hosts": str(tmp_path / "none")}}).code == 4
        wait_for(lambda: len(penalties(harness)) == 1, "the log of the refused host key")
        assert re.search(r"exited with status \d+$", penalties(harness)[0])
        assert provision(harness, *CHECK, changes={"ssh": {"identity_file": str(tmp_path / "key")}}).code == 4
        wait_for(lambda: len(penalties(harness)) == 2, "the log of the refused login")
        assert penalties(harness)[1].endswith("exited after unsuccessful auth attempt")
        applied(harness, *CHECK)
        assert len(penalties(harness)) == 2

        # One connection is enough with this weight, also on a busy machine.
        harness.lab.inside(RUNNER, f"echo PerSourcePenalties noauth:60 >> {log}; systemctl restart ssh")
        there = harness.lab.machine(RUNNER).host

        def is_refused() -> bool:
            with socket.create_connection((there.address, there.sshd_port), timeout=5) as probe:
                return probe.recv(3) == b"Not"

        wait_for(is_refused, "sshd refuses this machine")
        outcome = provision(harness, *CHECK)
        assert outcome.code == 4
        assert "refuses connections from this machine for now" in outcome.errors
        assert "PerSourcePenalties" in outcome.errors
    applied(harness, *CHECK)
