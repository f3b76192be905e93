"""Hosts with IPv6 addresses only: `provision all` from bare hosts to a pushed image, and a second run without changes.

Docker decides how the registry can be named. Docker 26.1 (Debian 13) takes an IPv6 address in image names, Docker 20.10
(Debian 12) refuses it, so there the registry needs a DNS name. The hosts of Debian 12 show that `--suite bookworm` works.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from provision_lab import LabHost
from provision_lab.certificates import Authority
from provision_lab.harness import Harness
from provision_lab.image import Image
from tests.support.certificates import handlers_run, served, upload
from tests.support.runs import Outcome, applied, provision, refused, strays, unchanged, without_s3

HOSTS = ("gitlab", "runner-1")
BOTH = ["*", "[::]"]  # nginx listens on IPv4 only by default
DOCKERFILE = """\
FROM scratch
COPY busybox /bin/busybox
COPY index.html /www/index.html
CMD ["/bin/busybox", "httpd", "-f", "-p", "5001", "-h", "/www"]
"""
Factory = Callable[..., Harness]


def address_of(harness: Harness) -> str:
    """The GitLab host's only address."""
    return harness.lab.machine("gitlab").host.address


def registry_of(harness: Harness) -> str:
    """The registry's name in image names when its URL has the address."""
    return f"[{address_of(harness)}]:5555"


@pytest.fixture(scope="module")
def by_address(harness_factory: Factory) -> Harness:
    """GitLab and its registry at an IPv6 address, with a Docker that takes such a name. S3 and apt are on IPv6 too."""
    harness = harness_factory(*map(LabHost, HOSTS), ipv6=True)
    harness.inventory["apt"] = harness.lab.mirrors(harness.lab.image.system)
    harness.inventory["gitlab"]["external_url"] = f"https://[{address_of(harness)}]"
    harness.inventory["registry"]["external_url"] = f"https://{registry_of(harness)}"
    # One certificate for both, where GitLab looks for it: /etc/gitlab/ssl/[ADDRESS].crt.
    del harness.inventory["gitlab"]["settings"]["nginx"]
    local = {"local_fullchain": "fullchain.pem", "local_key": "privkey.pem", "ca": "ca.pem"}
    harness.inventory["registry"]["certificate"] = {key: str(harness.lab.folder / file) for key, file in local.items()}
    return harness


@pytest.fixture(scope="module")
def first(by_address: Harness) -> Outcome:
    """The first run on the bare hosts."""
    return applied(by_address, "all")


@pytest.fixture(scope="module")
def converged(by_address: Harness, first: Outcome) -> Harness:
    """The hosts after it."""
    assert first.code == 0
    return by_address


@pytest.fixture(scope="module")
def by_name(harness_factory: Factory) -> Harness:
    """Hosts of Debian 12 that are found by name, with Docker 20.10."""
    harness = without_s3(harness_factory(*map(LabHost, HOSTS), ipv6=True, image=Image("bookworm")))
    harness.inventory["gitlab"]["settings"]["nginx"]["listen_addresses"] = BOTH
    harness.inventory["gitlab"]["settings"]["registry_nginx"] = {"listen_addresses": BOTH}
    return harness


def outside_addresses(harness: Harness, host: str) -> list[str]:
    """The IPv4 addresses of the host's network interface."""
    links = json.loads(harness.lab.inside(host, "ip -j -4 address show dev host0"))
    return [one["local"] for link in links for one in link.get("addr_info", [])]


def test_bare_hosts_converge(by_address: Harness, first: Outcome) -> None:
    """Over SSH to IPv6 addresses; no host has an IPv4 address; the image was pushed, pulled and deleted."""
    assert [outside_addresses(by_address, host) for host in HOSTS] == [[], []]
    assert (first.summary["failed"], first.summary["unreachable"]) == (0, 0)
    assert all(one["changed"] > 0 and one["skipped"] == 0 for one in first.summary["hosts"].values())
    (checked,) = [one for one in first.of("message", task="verify") if "pull" in one["text"]]
    assert f"{registry_of(by_address)}/root/hello_hapi" in checked["text"]
    assert first.of("error") == []


def test_the_second_run_changes_nothing(converged: Harness) -> None:
    """Every task of every host is ok, and nothing of ours is left elsewhere."""
    again = unchanged(converged, "all")
    for host, tasks in (("gitlab", ["gitlab", "registry"]), ("runner-1", ["docker", "register", "verify"])):
        assert [again.statuses(host)[task] for task in tasks] == ["ok"] * len(tasks)
        assert strays(converged, host) == []


def test_gitlabs_nginx_listens_on_ipv6(converged: Harness) -> None:
    """An IPv6 address in a URL asks for it; GitLab's default is IPv4 only."""
    listening = converged.host("gitlab").check_output("ss -Hltn")
    assert {port for port in ("443", "5555") if re.search(rf"\[::\]:{port}\s", listening)} == {"443", "5555"}


def test_docker_logs_in_pushes_and_pulls(converged: Harness) -> None:
    """The Docker CLI of a plain user, by the CA in certs.d; the certificate has the address among its names."""
    registry = registry_of(converged)
    image, there = f"{registry}/root/hello_hapi:mine", converged.host("runner-1", sudo=False)
    assert there.file(f"/etc/docker/certs.d/{registry}/ca.crt").content == converged.lab.ca.read_bytes()
    password = converged.lab.secret("registry_password")
    login = f"DOCKER_CONFIG=/tmp/login docker login -u root --password-stdin '{registry}'"
    done = converged.lab.ssh("runner-1", login, stdin=password)
    assert done.returncode == 0, done.stderr
    script = f"""
    export DOCKER_CONFIG=/tmp/login
    mkdir -p /tmp/image && echo hello > /tmp/image/text && tar -C /tmp/image -c . | docker import - '{image}' &&
    docker push '{image}' && docker image rm '{image}' && docker pull -q '{image}' && docker image rm '{image}'
    code=$?; rm -r /tmp/image /tmp/login; exit $code
    """
    done = converged.lab.ssh("runner-1", script)
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_image_is_built_and_an_app_runs(converged: Harness, tmp_path: Path) -> None:
    """Their names begin with the registry's address; a second run changes nothing."""
    context = tmp_path / "hello"
    context.mkdir()
    (context / "busybox").write_bytes((converged.lab.machine("runner-1").root / "usr/bin/busybox").read_bytes())
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
    image = converged.lab.inside("runner-1", "docker inspect -f '{{.Config.Image}}' hello").strip()
    assert image == f"{registry_of(converged)}/root/hello_hapi:1.0"
    converged.lab.inside("runner-1", f"docker rm -f hello; docker image rm '{image}'")


def test_the_runner_trusts_gitlab(converged: Harness) -> None:
    """It is registered at the address, and GitLab takes its token."""
    config = converged.lab.inside("runner-1", "cat /etc/gitlab-runner/config.toml")
    assert f'url = "https://[{address_of(converged)}]"' in config
    assert "is valid" in converged.lab.inside("runner-1", "gitlab-runner verify 2>&1")


def test_the_firewall_allows_the_registry(converged: Harness) -> None:
    """ufw has the rules for IPv6 too: another port is closed, and SSH stays open."""
    status = converged.host("gitlab").check_output("ufw status")
    for port in ("22/tcp", "5555/tcp"):
        assert re.search(rf"^{port} \(v6\) +ALLOW +Anywhere \(v6\)", status, re.MULTILINE), status
    converged.lab.inside("gitlab", "systemd-run -q --unit=listener busybox httpd -f -p '[::]:8099'")
    connect = f"timeout 2 bash -c 'exec 3<>/dev/tcp/{address_of(converged)}/%d'"
    assert converged.lab.ssh("runner-1", connect % 5555).returncode == 0
    assert converged.lab.ssh("runner-1", connect % 8099).returncode != 0
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


def test_by_name_with_an_older_docker(by_name: Harness) -> None:
    """The name has an IPv6 address only. nginx's settings are those of the inventory."""
    assert by_name.host("gitlab").check_output("getent ahostsv4 gitlab.lab.test || :") == ""
    done = applied(by_name, "all")
    assert [one for one in done.of("message", task="verify") if "pull" in one["text"]]
    unchanged(by_name, "all")


def test_an_older_docker_refuses_the_address(by_name: Harness) -> None:
    """In image names; `verify` says so, and what to do."""
    url = f"https://{registry_of(by_name)}"
    done = refused(by_name, "docker", "verify", changes={"registry": {"external_url": url}})
    (error,) = done.of("error", task="verify")
    assert "Docker 20.10.24" in error["text"]
    assert "refuses image names with an IPv6 address" in error["text"]
    assert "give the registry a DNS name (registry.external_url)" in error["text"]
