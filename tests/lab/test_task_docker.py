"""The task `docker` on three kinds of hosts: half configured by hand, bare with an os-release of Ubuntu, with Debian's Docker.

The tests run in order; each starts where the one before ended.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from provision_lab import LabHost
from provision_lab.harness import Harness
from tests.support.labs import release
from tests.support.runs import applied, provision, refused, twice, unchanged, untouched

HALF, BARE, DISTRO = "half", "bare", "distro"
DAEMON = "/etc/docker/daemon.json"
OLD_LIST = "# kept by hand\ndeb [arch=amd64 signed-by=/usr/share/keyrings/docker.gpg] %s/docker/linux/%s %s stable\n"
FOREIGN = {"debug": False, "labels": ["rack=7"]}


@pytest.fixture(scope="module")
def harness(harness_factory: Callable[..., Harness]) -> Harness:
    """Three hosts, each with another way to install Docker."""
    harness = harness_factory(LabHost(HALF), LabHost(BARE, ubuntu=True), LabHost(DISTRO))
    harness.inventory["hosts"][DISTRO]["docker"] = {"source": "distro"}
    return harness


@pytest.fixture(scope="module", autouse=True)
def half_done(harness: Harness) -> None:
    """The work of an administrator: Debian's Docker, an old entry for Docker's repository, a daemon.json."""
    inside = harness.lab.inside
    debian = "docker.io docker-cli docker-buildx docker-compose"
    inside(HALF, f"apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy {debian}")
    inside(DISTRO, "cat > /etc/apt/apt.conf.d/99-lean", stdin='APT::Install-Recommends "0";\n')
    inside(HALF, "mkdir -p /usr/share/keyrings && cat > /usr/share/keyrings/docker.gpg", stdin="no longer a key\n")
    inside(HALF, "cat > /etc/apt/sources.list.d/docker.list", stdin=old_list(harness))
    inside(HALF, f"mkdir -p /etc/docker && cat > {DAEMON} && chmod 640 {DAEMON}", stdin=json.dumps(FOREIGN))


def old_list(harness: Harness) -> str:
    """The file of the old entry, for the host's release."""
    return OLD_LIST % (harness.lab.apt_url, *release(harness.lab, HALF))


def daemon(harness: Harness, host: str) -> dict[str, Any]:
    """The daemon.json of a host."""
    found: dict[str, Any] = json.loads(harness.lab.inside(host, f"cat {DAEMON}"))
    return found


def pid(harness: Harness, host: str) -> str:
    """The process of dockerd."""
    return harness.lab.inside(host, "systemctl show docker -p MainPID --value").strip()


def installed(harness: Harness, host: str) -> str:
    """The installed version of docker-ce."""
    return harness.lab.inside(host, "dpkg-query -W -f '${Version}' docker-ce")


def upstream(harness: Harness) -> str:
    """The version of Docker that the lab has: 5:26.1.5."""
    return installed(harness, BARE).partition("-")[0]


def test_all_three_get_docker(harness: Harness) -> None:
    """One run, and a second without changes; Docker runs and starts at boot on each host."""
    outcome = applied(harness, "docker")
    assert [outcome.statuses(name) for name in (HALF, BARE, DISTRO)] == [{"docker": "changed"}] * 3
    unchanged(harness, "docker")
    for name in (HALF, BARE, DISTRO):
        there = harness.host(name)
        assert there.service("docker").is_running
        assert there.service("docker").is_enabled
        assert "docker" in there.user("ubuntu").groups
        assert there.check_output("docker info -f '{{.LoggingDriver}}'") == "json-file"
        assert there.file("/etc/docker/certs.d/gitlab.lab.test:5555/ca.crt").content == harness.lab.ca.read_bytes()


def test_docker_com_on_a_half_done_host(harness: Harness) -> None:
    """Debian's package is replaced, the old entry, which made apt fail, is a comment now; all packages are Docker's."""
    there = harness.host(HALF)
    for name in ("docker-ce", "docker-ce-cli", "containerd.io", "docker-buildx-plugin", "docker-compose-plugin"):
        assert there.package(name).is_installed
    for name in ("docker.io", "docker-cli", "docker-buildx", "docker-compose"):
        assert not there.package(name).is_installed
    comment, entry = there.file("/etc/apt/sources.list.d/docker.list").content_string.splitlines()
    assert comment == "# kept by hand"
    assert entry.startswith(f"# {old_list(harness).splitlines()[1]} # disabled: ")
    assert [name for name in there.file("/var/lib/provision/backup").listdir() if "docker.list" in name]
    assert there.run("apt-get update").rc == 0
    policy = there.check_output("apt-cache policy docker-ce")
    assert "{}/docker/linux/{} {}/stable".format(harness.lab.apt_url, *release(harness.lab, HALF)) in policy


def test_daemon_json_keeps_what_is_not_ours(harness: Harness) -> None:
    """Foreign keys stay beside ours, and so do the file's mode and owner."""
    assert daemon(harness, HALF) == FOREIGN | harness.inventory["docker"]["daemon"]
    assert harness.host(HALF).file(DAEMON).mode == 0o640


def test_ubuntu_gets_ubuntus_packages(harness: Harness) -> None:
    """A host with an os-release of Ubuntu (over Debian) uses Ubuntu's repository."""
    there = harness.host(BARE)
    system, codename = release(harness.lab, BARE)
    assert system == "ubuntu"
    assert re.search(rf"~ubuntu\.2\d\.04~{codename}$", installed(harness, BARE))
    source = there.file("/etc/apt/sources.list.d/docker.sources").content_string
    assert f"/docker/linux/ubuntu\nSuites: {codename}\nComponents: stable\n" in source
    assert there.file("/etc/apt/keyrings/docker.asc").mode == 0o644


def test_the_distributions_own_docker(harness: Harness) -> None:
    """source = "distro": docker.io, and no repository of Docker's on the host.

    Client and plug-ins are there, too, although apt installs no recommended packages.
    """
    there = harness.host(DISTRO)
    assert there.package("docker.io").is_installed
    assert there.check_output("docker --version").startswith(f"Docker version {upstream(harness)[2:]}")
    assert "buildx" in there.check_output("docker buildx version")
    assert "Compose version" in there.check_output("docker compose version")
    assert not there.package("docker-ce").is_installed
    assert not there.file("/etc/apt/sources.list.d/docker.sources").exists


def test_a_pin_moves_to_an_older_version_and_holds_it(harness: Harness) -> None:
    """docker-ce and its CLI change together, and apt does not upgrade them afterwards."""
    newest = installed(harness, BARE)
    assert "-2~" in newest
    pinned = {"docker": {"version": f"{upstream(harness)}-1*"}}
    twice(harness, "docker", "--limit", BARE, changes=pinned)
    assert installed(harness, BARE) == newest.replace("-2~", "-1~")
    held = harness.host(BARE).check_output("apt-mark showhold").split()
    assert set(held) == {"docker-ce", "docker-ce-cli"}
    assert "0 upgraded" in harness.lab.inside(BARE, "apt-get -s upgrade")


def test_a_newer_pin_upgrades_what_is_held(harness: Harness) -> None:
    """With a newer pin, both held packages are upgraded and held again; Docker runs."""
    twice(harness, "docker", "--limit", BARE, changes={"docker": {"version": f"{upstream(harness)}-2*"}})
    assert "-2~" in installed(harness, BARE)
    there = harness.host(BARE)
    assert set(there.check_output("apt-mark showhold").split()) == {"docker-ce", "docker-ce-cli"}
    assert there.service("docker").is_running


def test_a_version_that_is_nowhere_changes_nothing(harness: Harness) -> None:
    """apt's error, exit code 1, and the version stays."""
    before = installed(harness, BARE)
    outcome = refused(harness, "docker", "--limit", BARE, changes={"docker": {"version": "5:99.*"}})
    assert "5:99.*" in outcome.errors
    assert installed(harness, BARE) == before


def test_another_setting_restarts_docker_once(harness: Harness) -> None:
    """A changed value is active after one restart; only daemon.json changed."""
    before = pid(harness, HALF)
    daemon_table = {"docker": {"daemon": {"log-opts": {"max-size": "20m", "max-file": "3"}}}}
    outcome = twice(harness, "docker", "--limit", HALF, changes=daemon_table)
    assert outcome.changes() == [f"update {DAEMON}", "restart docker"]
    assert daemon(harness, HALF)["log-opts"]["max-size"] == "20m"
    after = pid(harness, HALF)
    assert after != before
    unchanged(harness, "docker", "--limit", HALF, changes=daemon_table)
    assert pid(harness, HALF) == after


def test_a_dropped_setting_goes_and_foreign_ones_stay(harness: Harness) -> None:
    """A setting that the inventory no longer has is removed; others' settings stay."""
    kept = harness.inventory["docker"]["daemon"].pop("log-opts")
    twice(harness, "docker", "--limit", HALF)
    assert daemon(harness, HALF) == FOREIGN | {"log-driver": "json-file"}
    harness.inventory["docker"]["daemon"]["log-opts"] = kept
    twice(harness, "docker", "--limit", HALF)


@pytest.mark.parametrize(
    ("text", "reason"), [('{"debug": true,\n}', "line 2: not JSON"), ("[]", "holds no JSON object")]
)
def test_a_broken_daemon_json_is_refused_and_unchanged(harness: Harness, text: str, reason: str) -> None:
    """The line is named, nothing changes, Docker keeps running; once fixed, the run succeeds."""
    good, before = harness.lab.inside(HALF, f"cat {DAEMON}"), pid(harness, HALF)
    harness.lab.inside(HALF, f"cat > {DAEMON}", stdin=text)
    with untouched(harness, HALF, "/etc", "/var/lib/provision"):
        outcome = refused(harness, "docker", "--limit", HALF)
    assert f"{DAEMON} {reason}" in outcome.errors
    assert pid(harness, HALF) == before
    harness.lab.inside(HALF, f"cat > {DAEMON}", stdin=good)
    unchanged(harness, "docker", "--limit", HALF)


def test_settings_that_docker_refuses_are_rolled_back(harness: Harness) -> None:
    """dockerd's error, exit code 1, the previous daemon.json is restored and Docker runs."""
    wrong = {"docker": {"daemon": {"log-driver": "no-such-driver"}}}
    with untouched(harness, HALF, DAEMON):
        outcome = refused(harness, "docker", "--limit", HALF, changes=wrong)
    assert "no-such-driver" in outcome.errors
    assert harness.host(HALF).service("docker").is_running
    unchanged(harness, "docker", "--limit", HALF)


def test_stopped_and_disabled_it_is_brought_back(harness: Harness) -> None:
    """Docker was disabled and the user removed from its group: both are fixed, nothing else changes."""
    harness.lab.inside(DISTRO, "systemctl disable --now docker docker.socket; gpasswd -d ubuntu docker")
    outcome = twice(harness, "docker", "--limit", DISTRO)
    assert sorted(outcome.changes()) == ["add ubuntu to group docker", "enable docker at boot", "start docker"]
    assert harness.host(DISTRO).service("docker").is_running


def test_the_ca_is_fixed_without_a_restart(harness: Harness) -> None:
    """Docker reads certs.d at each connection."""
    before = pid(harness, BARE)
    harness.lab.inside(BARE, "echo tampered > /etc/docker/certs.d/gitlab.lab.test:5555/ca.crt")
    outcome = twice(harness, "docker", "--limit", BARE, changes={"docker": {"version": f"{upstream(harness)}-2*"}})
    assert outcome.changes() == ["update /etc/docker/certs.d/gitlab.lab.test:5555/ca.crt"]
    assert pid(harness, BARE) == before


def test_a_user_that_is_not_there_is_named(harness: Harness) -> None:
    """docker.users is checked before anything changes."""
    with untouched(harness, DISTRO, "/etc", "/var/lib/provision"):
        outcome = refused(harness, "docker", "--limit", DISTRO, changes={"docker": {"users": ["nobody-here"]}})
    assert "user 'nobody-here' does not exist" in outcome.errors


def test_a_host_that_fails_leaves_the_others_alone(harness: Harness) -> None:
    """One host fails: the others are converged, and the exit code is 1."""
    harness.lab.inside(HALF, f"cp {DAEMON} /root/kept; echo '[' > {DAEMON}")
    harness.lab.inside(DISTRO, "systemctl stop docker.socket docker")
    outcome = provision(harness, "docker")
    assert outcome.code == 1
    assert outcome.statuses(HALF) == {"docker": "failed"}
    assert outcome.statuses(DISTRO) == {"docker": "changed"}
    harness.lab.inside(HALF, f"cp /root/kept {DAEMON}")
    unchanged(harness, "docker")
