"""A rehearsal reads and contacts nothing of production: canary secrets, and a listener on production's address.

The address is one of this machine's for the time of the test. The program resolves production's names to it.
"""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
import tomlkit

from provision_lab import Lab, network, rehearsal
from provision_lab.harness import PROVISION
from tests.support.canaries import Canaries, files

ADDRESS = "203.0.113.10"
PORTS = (22, 80, 443, 2222, 3128, 5555)
NAMES = ("git.example.com", "ci-1.example.com", "s3.example.com", "bastion.example.com", "other.example.com")
MAIL = "canary-mail-Tt6yRe"
ESTATE = """
[ssh]
user = "ops"
identity_file = "production_key"
known_hosts = "production_hosts"
proxy_jump = "bastion.example.com"
become_password = { command = ["touch", "READ-sudo"] }
[hosts.git]
address = "203.0.113.10"
groups = ["gitlab"]
[hosts.ci-1]
address = "ci-1.example.com"
groups = ["runners"]
ssh.port = 2222
[gitlab]
external_url = "https://git.example.com"
api_token = { command = ["touch", "READ-token"] }
[gitlab.settings]
letsencrypt.enable = false
gitlab_rails.smtp_password = "canary-smtp-9fk2Lq"
gitlab_rails.incoming_email_password = { file = "canary" }
[registry]
external_url = "https://git.example.com:5555"
[registry.s3]
bucket = "images"
region = "nyc3"
regionendpoint = "https://s3.example.com"
accesskey = { command = ["touch", "READ-accesskey"] }
secretkey = "canary-s3-Pw7xZ1"
[registry.login]
username = "sammy"
password = { command = ["touch", "READ-login"] }
image = "sammy/hello_hapi"
[docker.daemon]
registry-mirrors = ["https://user:canary-mirror-3Hs8@other.example.com"]
[[runners]]
name = "builder"
url = "https://other.example.com"
executor = "docker"
token = { command = ["touch", "READ-runner"] }
environment = ["DEPLOY_TOKEN=canary-deploy-Vb4mN0"]
docker = { image = "docker:28" }
[projects."sammy/hello_hapi"]
variables.DATABASE = "postgres://app:canary-database-Kx5@db.example.com/x"
variables.PASSWORD = { command = ["touch", "READ-variable"] }
"""


class Listener:
    """Production's address: it counts who connects."""

    def __init__(self) -> None:
        self.connected: list[tuple[str, int]] = []
        self._sockets = [socket.create_server((ADDRESS, port)) for port in PORTS]
        for one in self._sockets:
            threading.Thread(target=self._accept, args=(one,), daemon=True).start()

    def _accept(self, listening: socket.socket) -> None:
        while True:
            try:
                connection, client = listening.accept()
            except OSError:  # it was closed
                return
            self.connected.append((client[0], listening.getsockname()[1]))
            connection.close()

    def close(self) -> None:
        """Stops listening."""
        for one in self._sockets:
            one.shutdown(socket.SHUT_RDWR)
            one.close()


@pytest.fixture(scope="module")
def listener() -> Iterator[Listener]:
    """A listener on an address that this machine has meanwhile."""
    place = (f"{ADDRESS}/32", "dev", "lo")
    # A run that is killed leaves the address. The next one takes it over, or the kernel removes it after an hour.
    subprocess.run(("ip", "address", "replace", *place, "valid_lft", "3600", "preferred_lft", "3600"), check=True)
    try:
        with closing(Listener()) as found:
            yield found
    finally:
        subprocess.run(("ip", "address", "del", *place), check=True)


@pytest.fixture(scope="module")
def estate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The production inventory, with the files of its secrets and the name resolution of this machine."""
    folder = tmp_path_factory.mktemp("production")
    (folder / "production.toml").write_text(ESTATE)
    (folder / "production.toml").chmod(0o600)
    (folder / "canary").write_text(MAIL)
    names = f"127.0.0.1 localhost\n{ADDRESS} {' '.join(NAMES)}\n"
    (folder / "hosts").write_text(names)
    return folder / "production.toml"


@pytest.fixture(scope="module")
def lab(lab_factory: Callable[..., Lab], estate: Path) -> Lab:
    """The rehearsal's lab and overlay, as `provision lab up -i production.toml` makes them."""
    hosts, server = rehearsal.plan([estate])
    lab = lab_factory(*hosts, server=server, isolated=True)
    overlay = lab.folder / "overlay.toml"
    overlay.write_text(tomlkit.dumps(rehearsal.overlay(lab, [estate])))
    overlay.chmod(0o600)
    return lab


def run(lab: Lab, estate: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The program with the overlay, on a machine that resolves production's names to production."""
    bind = f'mount --bind {estate.parent / "hosts"} /etc/hosts && exec "$@"'
    argv = [*PROVISION, *arguments, "-i", str(estate), "-i", str(lab.folder / "overlay.toml")]
    return subprocess.run(
        ("unshare", "-m", "--propagation", "private", "sh", "-c", bind, "sh", *argv),
        capture_output=True,
        text=True,
        timeout=300,
        stdin=subprocess.DEVNULL,
        check=False,
    )


def test_production_is_neither_read_nor_contacted(lab: Lab, estate: Path, listener: Listener) -> None:
    """A whole run: no connection, no command of a secret, no canary on a host or in the output."""
    socket.create_connection((ADDRESS, 443), timeout=5).close()
    canaries = Canaries({text: text for text in [*re.findall(r"canary-[\w-]+", ESTATE), MAIL]})
    assert len(canaries.texts) == 6
    done = run(lab, estate, "all", "project", "-vv", "--diff")
    output = done.stdout + done.stderr
    assert done.returncode == 0, output[-3000:]
    assert "verify push and pull of git.example.com:5555/sammy/hello_hapi" in output
    assert "create builder in GitLab" in output
    assert not canaries.inside(output.encode())
    for machine in lab.machines:
        changed = lab.folder / "hosts" / machine.host.name / "disk"
        assert [path for path in files(changed) if canaries.inside(path.read_bytes())] == []
    assert not [path.name for path in estate.parent.iterdir() if path.name.startswith("READ")]
    assert listener.connected == [(ADDRESS, 443)]


def test_hosts_of_a_rehearsal_cannot_leave_the_lab(lab: Lab, listener: Listener) -> None:
    """Neither another address of this machine nor anything beyond it; the lab's own services answer."""
    before = list(listener.connected)
    done = lab.ssh("ci-1", f"timeout 5 bash -c '</dev/tcp/{ADDRESS}/443'")
    assert (done.returncode, "refused" in done.stderr) == (1, True), done
    assert lab.ssh("ci-1", f"curl -sS -o /dev/null {lab.apt_url}/").returncode == 0
    assert listener.connected == before


NETWORKS = """
set -e
ip link set lo up
echo 1 > /proc/sys/net/ipv4/ip_forward
unshare -n sleep 60 & host=$!
unshare -n sleep 60 & outside=$!
trap 'kill $host $outside' EXIT
for one in $host $outside; do  # until each has its own network
    until [ "$(readlink /proc/$one/ns/net)" != "$(readlink /proc/self/ns/net)" ]; do sleep 0.02; done
done
ip link add pv-x type bridge
ip address add 198.18.9.1/24 dev pv-x
ip link set pv-x up
ip link add to-host type veth peer name host0 netns $host
ip link set to-host master pv-x up
ip link add to-outside type veth peer name eth0 netns $outside
ip address add 192.0.2.1/24 dev to-outside
ip link set to-outside up
nsenter -t $host -n ip -batch - <<END
address add 198.18.9.10/24 dev host0
link set host0 up
route add default via 198.18.9.1
END
nsenter -t $outside -n ip -batch - <<END
address add 192.0.2.2/24 dev eth0
address add 192.0.2.3/24 dev eth0
link set eth0 up
link set lo up
route add default via 192.0.2.1
END
nsenter -t $outside -n "$1" -m http.server 80 >/dev/null 2>&1 & server=$!
trap 'kill $host $outside $server' EXIT
for attempt in 1 2 3 4 5 6 7 8 9; do sleep 0.3; nsenter -t $outside -n curl --noproxy '*' -so /dev/null http://192.0.2.2/ && break; done
printf '%s' "$2" | nft -f -
for target in 192.0.2.2 192.0.2.3; do
    nsenter -t $host -n curl --noproxy '*' -sm 5 -o /dev/null http://$target/ && echo reached || echo $?
done
"""


@pytest.mark.parametrize(
    ("forbidden", "results"),
    [(None, ["7", "7"]), ((), ["reached", "reached"]), (("192.0.2.2", "192.0.2.9"), ["7", "reached"])],
    ids=["no internet", "internet", "internet but production"],
)
def test_what_lies_beyond_this_machine(forbidden: tuple[str, ...] | None, results: list[str]) -> None:
    """curl's exit code 7: refused. Without internet nothing is reached, with `--real` all but production's addresses."""
    rules = network.isolation("x", "198.18.9.1", forbidden)
    done = subprocess.run(
        ("unshare", "-n", "bash", "-c", NETWORKS, "bash", sys.executable, rules),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.stdout.split() == results, done.stderr
