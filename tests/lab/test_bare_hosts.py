"""Hosts as they are: the main job, a single task, and a run that changes nothing, on each.

All rows but one are in one inventory, and each step is one run. Hosts with IPv6 only are a lab of their own: GitLab, its
registry, S3 and apt are at IPv6 addresses there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from provision_lab import LabHost
from provision_lab.certificates import Authority
from provision_lab.harness import Harness
from provision_lab.run import run
from tests.support.certificates import handlers_run, served, upload
from tests.support.faults import Live, dpkg_held
from tests.support.runs import Outcome, applied, provision, strays, succeeds, unchanged
from tests.support.waiting import wait_for

# Traits that do not touch each other share a host: each host installs Docker.
SMALL_DISK, ENOUGH_DISK = 160, 2000  # MiB
HOSTS = {
    "gitlab": LabHost("gitlab", traits=("bare", "use-pty", "umask", "noexec-tmp", "noisy", "nameless")),
    "plain": LabHost("plain", traits=("bare",)),
    "strict": LabHost("strict", sudo="password", traits=("use-pty", "umask", "noexec-tmp", "noisy")),
    "fish": LabHost("fish", disk_mb=SMALL_DISK, traits=("fish", "nameless")),
    "csh": LabHost("csh", traits=("csh", "clock-behind")),
}
IPV6_HOSTS = {name: LabHost(name, traits=("bare",)) for name in ("gitlab", "six")}
ROWS = {
    "no curl, gpg, git, ufw, openssl, CAs": "plain",
    "unattended-upgrades holds apt": "plain",
    "sudo with use_pty and a password": "strict",
    "umask 077": "strict",
    "noexec /tmp": "strict",
    "noisy .bashrc and banner": "strict",
    "fish": "fish",
    "nameless": "fish",
    "low disk": "fish",
    "csh": "csh",
    "clock behind": "csh",
    "IPv6 only": "six",
}
FIXED_LATER = {"low disk": "the disk is full", "clock behind": "check the host's clock"}  # what the first run reports
MAIN = ["docker", "runner", "register", "verify", "deploy"]
TOOLS = ("curl", "gpg", "git", "ufw", "openssl")
DOCKERFILE = """\
FROM scratch
COPY busybox /bin/busybox
COPY index.html /www/index.html
CMD ["/bin/busybox", "httpd", "-f", "-p", "5001", "-h", "/www"]
"""


@pytest.fixture(scope="module")
def harness(harness_factory: Callable[..., Harness]) -> Harness:
    """The hosts with IPv4."""
    harness = harness_factory(*HOSTS.values())
    harness.inventory["hosts"]["plain"]["firewall"] = {"enable": True}
    return harness


@pytest.fixture(scope="module")
def ipv6(harness_factory: Callable[..., Harness]) -> Harness:
    """The hosts with IPv6 only; GitLab and its registry are named by address, which Docker 26 takes in image names."""
    harness = harness_factory(*IPV6_HOSTS.values(), ipv6=True)
    harness.inventory["gitlab"]["external_url"] = f"https://[{address_of(harness)}]"
    harness.inventory["registry"]["external_url"] = f"https://{registry_of(harness)}"
    # One certificate for both, where GitLab looks for it: /etc/gitlab/ssl/[ADDRESS].crt.
    del harness.inventory["gitlab"]["settings"]["nginx"]
    local = {"local_fullchain": "fullchain.pem", "local_key": "privkey.pem", "ca": "ca.pem"}
    harness.inventory["registry"]["certificate"] = {key: str(harness.lab.folder / file) for key, file in local.items()}
    return harness


def address_of(harness: Harness) -> str:
    """The GitLab host's only address."""
    return harness.lab.machine("gitlab").host.address


def registry_of(harness: Harness) -> str:
    """The registry's name in image names when its URL has the address."""
    return f"[{address_of(harness)}]:5555"


Labs = Mapping[bool, Harness]
Runs = Mapping[bool, Outcome]  # one in each lab


@pytest.fixture(scope="module")
def labs(harness: Harness, ipv6: Harness) -> Labs:
    """Both labs by whether they have IPv6 only. The bare hosts lack the tools and any authority."""
    labs = {False: harness, True: ipv6}
    there = f"for tool in {' '.join(TOOLS)}; do command -v $tool; done; ls -d /etc/ssl/certs/* 2>/dev/null; true"
    for lab, host in ((False, "gitlab"), (False, "plain"), (True, "gitlab"), (True, "six")):
        assert labs[lab].lab.inside(host, there) == ""
    return labs


def lab_of(host: str) -> bool:
    """Whether the host is in the lab with IPv6 only."""
    return host in IPV6_HOSTS


def tasks_of(host: str) -> list[str]:
    """The tasks of the main job on a runner host: with the firewall where the host has a [firewall]."""
    return ["firewall", *MAIN] if host == "plain" else MAIN


@pytest.fixture(scope="module")
def first(labs: Labs) -> Runs:
    """`all`, while another package manager holds one host's apt until the run waits for it."""
    with dpkg_held(labs[False], "plain"):
        live = Live(labs[False], "all")
        waits = "pgrep -x sleep"  # between two looks at the lock
        wait_for(lambda: succeeds(labs[False], "plain", waits), "the run waits for apt", 240)
    return {False: live.end(), True: applied(labs[True], "all")}


@pytest.fixture(scope="module")
def fixed(labs: Labs, first: Runs) -> Outcome:
    """`all` again, after one host got a larger disk, and another one the right time."""
    assert first[False].code == 1, first[False].errors
    harness = labs[False]
    run("mount", "-o", f"remount,size={ENOUGH_DISK}m", harness.lab.machine("fish").folder / "disk")
    harness.lab.inside("csh", "cd /usr/lib/provision-lab && for name in *; do mv $name /usr/bin/$name; done")
    return applied(harness, "all")


@pytest.fixture(scope="module")
def single(labs: Labs, fixed: Outcome) -> Runs:
    """Single tasks: one setting of GitLab, one of the runner."""
    assert fixed.code == 0
    for harness in labs.values():
        harness.inventory["runner"]["concurrent"] = 3
        harness.inventory["gitlab"]["settings"]["gitlab_rails"]["time_zone"] = "Europe/Lisbon"
    return {lab: applied(harness, "gitlab", "register") for lab, harness in labs.items()}


@pytest.fixture(scope="module")
def again(labs: Labs, single: Runs) -> Runs:
    """A run that changes nothing."""
    assert all(one.code == 0 for one in single.values())
    return {lab: unchanged(harness, "all") for lab, harness in labs.items()}


@pytest.fixture(scope="module")
def converged(labs: Labs, again: Runs) -> Harness:
    """The hosts with IPv6 only, after the matrix."""
    assert again[True].code == 0
    return labs[True]


@pytest.mark.parametrize("row", FIXED_LATER)
def test_a_condition_of_the_host_is_named(first: Runs, row: str) -> None:
    """One error, with what to do, before Docker is installed; the other hosts finish in the same run."""
    (error,) = first[False].of("error", host=ROWS[row])
    assert (error["task"], error["error"]) == ("docker", "ChangeFailed")
    assert FIXED_LATER[row] in error["hint"], error
    assert first[False].statuses(ROWS[row]) == {"docker": "failed"} | dict.fromkeys(MAIN[1:], "skipped")
    assert first[False].summary["failed"] == len(FIXED_LATER)


@pytest.mark.parametrize("lab", [False, True], ids=["IPv4", "IPv6 only"])
def test_the_gitlab_host(first: Runs, labs: Labs, lab: bool) -> None:
    """GitLab and its registry, on a bare host, and with all traits that can be had together."""
    harness, done = labs[lab], first[lab]
    assert done.statuses("gitlab") == {**dict.fromkeys(["firewall", "gitlab", "certificates", "registry"], "changed")}
    assert harness.lab.inside("gitlab", "stat -c %a /etc/gitlab/gitlab.rb") == "600\n"
    modes = harness.lab.inside(
        "gitlab", "stat -c %a /etc/apt/keyrings /etc/apt/keyrings/*.asc /etc/apt/sources.list.d/*"
    )
    assert set(modes.split()) == {"755", "644"}
    assert strays(harness, "gitlab") == []


def test_ipv6_is_all_that_they_have(labs: Labs) -> None:
    """No host of that lab has an IPv4 address on its network."""
    for host in IPV6_HOSTS:
        links = json.loads(labs[True].lab.inside(host, "ip -j -4 address show dev host0"))
        assert [one["local"] for link in links for one in link.get("addr_info", [])] == []


@pytest.mark.parametrize("row", ROWS)
def test_the_main_job(first: Runs, fixed: Outcome, labs: Labs, row: str) -> None:
    """From the first contact to Docker, a registered runner, and an image that is pushed and pulled."""
    host = ROWS[row]
    harness = labs[lab_of(host)]
    done = fixed if host in [ROWS[name] for name in FIXED_LATER] else first[lab_of(host)]
    statuses = done.statuses(host)
    assert list(statuses) == tasks_of(host)
    assert set(statuses.values()) <= {"ok", "changed"}
    assert any("verify push and pull" in one["text"] for one in done.of("message", task="verify", host=host))
    assert harness.lab.inside(host, "systemctl is-active docker gitlab-runner").split() == ["active", "active"]
    assert strays(harness, host) == []


@pytest.mark.parametrize("row", ROWS)
def test_a_single_task(single: Runs, labs: Labs, row: str) -> None:
    """One setting of the runner: one change."""
    host = ROWS[row]
    assert single[lab_of(host)].statuses(host) == {"register": "changed"}
    assert "concurrent = 3" in labs[lab_of(host)].lab.inside(host, "cat /etc/gitlab-runner/config.toml")


@pytest.mark.parametrize("lab", [False, True], ids=["IPv4", "IPv6 only"])
def test_a_single_task_on_the_gitlab_host(single: Runs, labs: Labs, lab: bool) -> None:
    """One setting of gitlab.rb."""
    assert single[lab].statuses("gitlab") == {"gitlab": "changed"}
    assert "Europe/Lisbon" in labs[lab].lab.inside("gitlab", "cat /etc/gitlab/gitlab.rb")


@pytest.mark.parametrize("row", ROWS)
def test_the_last_run_changes_nothing(again: Runs, row: str) -> None:
    """Every task of the row is ok, within 9 round trips; nothing is reported."""
    host = ROWS[row]
    done = again[lab_of(host)]
    assert done.statuses(host) == dict.fromkeys(tasks_of(host), "ok")
    assert done.summary["hosts"][host]["round_trips"] <= 9
    assert done.of("message", host=host) == []


def test_a_runner_host_has_its_firewall(again: Runs, harness: Harness) -> None:
    """Only SSH comes in, and the registry was reached all the same."""
    assert again[False].code == 0
    status = harness.lab.inside("plain", "ufw status")
    assert status.startswith("Status: active")
    assert [line.split()[0] for line in status.splitlines() if "ALLOW" in line] == ["22/tcp", "22/tcp"]


def test_gitlabs_nginx_listens_on_ipv6(converged: Harness) -> None:
    """An IPv6 address in a URL asks for it; GitLab's default is IPv4 only."""
    listening = converged.host("gitlab").check_output("ss -Hltn")
    assert {port for port in ("443", "5555") if re.search(rf"\[::\]:{port}\s", listening)} == {"443", "5555"}


def test_docker_logs_in_pushes_and_pulls(converged: Harness) -> None:
    """The Docker CLI of a plain user, by the CA in certs.d; the certificate has the address among its names."""
    registry = registry_of(converged)
    image, there = f"{registry}/root/hello_hapi:mine", converged.host("six", sudo=False)
    assert there.file(f"/etc/docker/certs.d/{registry}/ca.crt").content == converged.lab.ca.read_bytes()
    password = converged.lab.secret("registry_password")
    login = f"DOCKER_CONFIG=/tmp/login docker login -u root --password-stdin '{registry}'"
    done = converged.lab.ssh("six", login, stdin=password)
    assert done.returncode == 0, done.stderr
    script = f"""
    export DOCKER_CONFIG=/tmp/login
    mkdir -p /tmp/image && echo hello > /tmp/image/text && tar -C /tmp/image -c . | docker import - '{image}' &&
    docker push '{image}' && docker image rm '{image}' && docker pull -q '{image}' && docker image rm '{image}'
    code=$?; rm -r /tmp/image /tmp/login; exit $code
    """
    done = converged.lab.ssh("six", script)
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_image_is_built_and_an_app_runs(converged: Harness, tmp_path: Path) -> None:
    """Their names begin with the registry's address; a second run changes nothing."""
    context = tmp_path / "hello"
    context.mkdir()
    (context / "busybox").write_bytes((converged.lab.machine("six").root / "usr/bin/busybox").read_bytes())
    (context / "busybox").chmod(0o755)
    (context / "index.html").write_text("hello over IPv6\n")
    (context / "Dockerfile").write_text(DOCKERFILE)
    app = {"name": "hello", "image": "root/hello_hapi:1.0", "ports": ["5001:5001"]}
    app["check"] = {"url": "http://[::1]:5001/", "contains": "hello over IPv6"}
    changes = {
        "images": [{"name": "root/hello_hapi", "tags": ["1.0"], "context": str(context)}],
        "apps": [app],
    }
    applied(converged, "image", "deploy", changes=changes)
    unchanged(converged, "image", "deploy", changes=changes)
    image = converged.lab.inside("six", "docker inspect -f '{{.Config.Image}}' hello").strip()
    assert image == f"{registry_of(converged)}/root/hello_hapi:1.0"
    converged.lab.inside("six", f"docker rm -f hello; docker image rm '{image}'")


def test_the_runner_trusts_gitlab(converged: Harness) -> None:
    """It is registered at the address, and GitLab takes its token."""
    config = converged.lab.inside("six", "cat /etc/gitlab-runner/config.toml")
    assert f'url = "https://[{address_of(converged)}]"' in config
    assert "is valid" in converged.lab.inside("six", "gitlab-runner verify 2>&1")


def test_the_firewall_allows_the_registry(converged: Harness) -> None:
    """ufw has the rules for IPv6 too: another port is closed, and SSH stays open."""
    status = converged.host("gitlab").check_output("ufw status")
    for port in ("22/tcp", "5555/tcp"):
        assert re.search(rf"^{port} \(v6\) +ALLOW +Anywhere \(v6\)", status, re.MULTILINE), status
    converged.lab.inside("gitlab", "systemd-run -q --unit=listener busybox httpd -f -p '[::]:8099'")
    connect = f"timeout 2 bash -c 'exec 3<>/dev/tcp/{address_of(converged)}/%d'"
    assert converged.lab.ssh("six", connect % 5555).returncode == 0
    assert converged.lab.ssh("six", connect % 8099).returncode != 0
    converged.lab.inside("gitlab", "systemctl stop listener")
    assert converged.lab.ssh("gitlab", "true").returncode == 0


def test_a_certificate_of_another_ca_is_served(converged: Harness) -> None:
    """nginx reads it without a reconfigure, and all consumers trust the CA. One for another address is refused."""
    authority, address = Authority("another CA"), address_of(converged)
    before = served(converged)

    def uploaded(name: str) -> dict[str, Any]:
        return {"registry": {"certificate": upload(converged, authority, authority.issue([], [name]))}}

    wrong = provision(converged, "all", changes=uploaded("2001:db8:ffff::1"))
    assert wrong.code == 2
    assert address in wrong.stderr
    changes = uploaded(address)
    done = applied(converged, "all", changes=changes)
    assert served(converged) != before
    assert handlers_run(done) == ["hup-certificates"]
    unchanged(converged, "all", changes=changes)
