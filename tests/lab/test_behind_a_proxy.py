"""Hosts that reach package servers, S3 and other registries only through the proxy of `[proxy]`: a real Squid.

nftables in the hosts' network namespaces refuses direct connections to the lab's servers. GitLab is reached directly.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from provision_lab import LabHost
from provision_lab.harness import Harness
from tests.support.runs import Outcome, applied, unchanged
from tests.support.waiting import wait_for

GITLAB, RUNNER = "gitlab", "runner-1"
FOREIGN = "registry.outside.test"


@dataclass(frozen=True)
class Proxy:
    """A running proxy: its URL, and the file with the first line of each request."""

    url: str
    log: Path

    def asked(self) -> list[str]:
        """The requests: `GET http://server/path` or `CONNECT server:443`."""
        return self.log.read_text("utf-8").splitlines()


@pytest.fixture(scope="module")
def harness(harness_factory: Callable[..., Harness]) -> Harness:
    """A bare GitLab host and a bare runner host."""
    return harness_factory(LabHost(GITLAB), LabHost(RUNNER))


@pytest.fixture(scope="module")
def proxy(harness: Harness) -> Iterator[Proxy]:
    """A proxy on the lab's gateway, and no direct way to its servers for the hosts."""
    with socket.create_server((harness.lab.gateway, 0)) as free:
        port = free.getsockname()[1]
    # Squid writes its log as its own user, who cannot enter the folders of pytest.
    folder = Path(tempfile.mkdtemp(prefix="provision-test-"))
    shutil.chown(folder, "proxy")
    log = folder / "access.log"
    (folder / "squid.conf").write_text(
        f"http_port {harness.lab.gateway}:{port}\nhttp_access allow all\ncache deny all\npid_filename none\n"
        f"logformat asked %rm %ru\naccess_log stdio:{log} asked\ncache_log {folder}/cache.log\n"
        f"buffered_logs off\nshutdown_lifetime 0 seconds\nvisible_hostname proxy\n"
    )
    # It ends with this process, even when that is killed.
    as_user = ["setpriv", "--reuid=proxy", "--regid=proxy", "--clear-groups", "--pdeathsig=TERM"]
    process = subprocess.Popen([*as_user, "squid", "-N", "-f", folder / "squid.conf"], stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: _listens(harness.lab.gateway, port), "the proxy listens")
        servers = ", ".join(str(urlsplit(url).port) for url in (harness.lab.apt_url, harness.lab.s3_url))
        for host in (GITLAB, RUNNER):
            refuse = f"ip daddr {harness.lab.gateway} tcp dport {{ {servers} }} reject"
            rules = f"table inet test {{\nchain output {{\ntype filter hook output priority 0\n{refuse}\n}}\n}}\n"
            leader = str(harness.lab.machine(host).leader)
            subprocess.run(["nsenter", "-t", leader, "-n", "nft", rules], check=True)
        yield Proxy(f"http://{harness.lab.gateway}:{port}", log)
    finally:
        process.terminate()
        process.wait(20)
        shutil.rmtree(folder)


def _listens(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), 1).close()
    except OSError:
        return False
    return True


@pytest.fixture(scope="module")
def first(harness: Harness, proxy: Proxy) -> Outcome:
    """`provision all` from bare hosts, through the proxy."""
    harness.inventory["proxy"] = {"http": proxy.url, "no_proxy": [".lab.test"]}
    return applied(harness, "all")


def test_packages_come_through_it(harness: Harness, first: Outcome, proxy: Proxy) -> None:
    """Those of GitLab, Docker and gitlab-runner; the hosts cannot reach their server otherwise."""
    assert first.code == 0
    asked = [line for line in proxy.asked() if harness.lab.apt_url in line and ".deb" in line]
    for package in ("gitlab-ce", "docker-ce_", "gitlab-runner"):
        assert any(package in line for line in asked), (package, asked)
    direct = harness.lab.machine(RUNNER)
    refused = subprocess.run(
        ["nsenter", "-t", str(direct.leader), "-n", "curl", "-sS", "--noproxy", "*", harness.lab.apt_url],
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode == 7, refused


def test_the_registry_stores_images_through_it(harness: Harness, first: Outcome, proxy: Proxy) -> None:
    """The image that `verify` pushed went to S3 by the registry's own requests."""
    assert first.code == 0
    asked = [line for line in proxy.asked() if line.startswith("PUT ") and harness.lab.s3_url in line]
    assert any("/docker/registry/v2/" in line for line in asked), asked


def test_docker_pulls_through_it(harness: Harness, first: Outcome, proxy: Proxy) -> None:
    """An image of a registry that only the proxy reaches; GitLab's own is pulled directly."""
    assert first.code == 0
    harness.lab.inside(RUNNER, f"docker pull {FOREIGN}/some/image || true")
    asked = proxy.asked()
    assert f"CONNECT {FOREIGN}:443" in asked
    assert not any("lab.test" in line and "CONNECT" in line for line in asked if FOREIGN not in line), asked


def test_services_have_it_in_their_environment(harness: Harness, proxy: Proxy, first: Outcome) -> None:
    """gitlab-runner's process; its unit does not name the proxy."""
    assert first.code == 0
    environment = harness.lab.inside(
        RUNNER, "tr '\\0' '\\n' < /proc/$(systemctl show -P MainPID gitlab-runner)/environ"
    )
    assert f"http_proxy={proxy.url}" in environment.splitlines()
    assert proxy.url not in harness.lab.inside(RUNNER, "systemctl cat gitlab-runner")


def test_a_second_run_changes_nothing(harness: Harness, first: Outcome) -> None:
    """Observing through the proxy finds what was applied."""
    assert first.code == 0
    unchanged(harness, "all")


def test_without_the_table_everything_is_removed(harness: Harness, first: Outcome, proxy: Proxy) -> None:
    """Files, variables of the services, and GitLab's settings."""
    assert first.code == 0
    # The registry cannot reach S3 any more without it: the hosts get their direct way back first.
    for host in (GITLAB, RUNNER):
        leader = str(harness.lab.machine(host).leader)
        subprocess.run(["nsenter", "-t", leader, "-n", "nft", "delete table inet test"], check=True)
    del harness.inventory["proxy"]
    applied(harness, "all")
    for host in (GITLAB, RUNNER):
        held = harness.lab.inside(host, f"grep -rls -- {proxy.url} /etc --exclude-dir=gitlab-standin || true")
        assert held.strip() == "", held
    unchanged(harness, "all")
