"""Brings a lab's parts up: secrets, keys and certificate, then services and hosts side by side."""

from __future__ import annotations

import json
import secrets
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from provision_lab import furnish, network, processes
from provision_lab.certificates import Authority, Pair
from provision_lab.furnish import Tree
from provision_lab.machine import Machine
from provision_lab.run import LabError, hand_to_caller, run, write_private

if TYPE_CHECKING:
    from provision_lab.lab import Lab

_SERVICE_START = 30  # seconds until a service has to answer
_lifelines: list[subprocess.Popen[bytes]] = []  # keepers, whose standard input ends when this process does
Service = Literal["apt", "s3"]
SERVICES: tuple[Service, ...] = ("apt", "s3")
SECRETS = ("api_token", "registry_password", "s3_access_key", "s3_secret_key", "sudo_password")


def build(lab: Lab, base: Path, repository: Path) -> None:
    """Makes everything of a lab whose folder and bridge are there. Raises LabError at the first part that fails."""
    if lab.throwaway:
        _lifelines.append(_service(lab, "keeper", stdin=subprocess.PIPE))
    _secrets(lab)
    for key in repository.glob("*.asc"):
        lab.folder.joinpath(key.name).write_text(key.read_text())
    lab.folder.joinpath("repository").symlink_to(repository)
    for service in SERVICES:
        start(lab, service)
    authority = Authority(f"provision lab {lab.name} CA")
    lab.ca.write_text(authority.certificate)
    write_private(lab.folder / "ca.key", authority.key)
    pair = _certificate(lab, authority)
    with ThreadPoolExecutor(max(1, len(lab.machines))) as pool:
        keys = list(pool.map(lambda machine: _host(lab, machine, base, pair), lab.machines))
    lines = (f"{_address(machine)} {key}\n" for machine, key in zip(lab.machines, keys, strict=True))
    lab.known_hosts.write_text("".join(lines))
    for service in SERVICES:
        wait_for(lab, service)


def _certificate(lab: Lab, authority: Authority) -> Pair:
    """The GitLab host's certificate; also laid into the lab's folder, for inventories that upload it."""
    servers = [host for host in lab.hosts if host.is_gitlab]
    names = [name for host in servers for name in (host.name, *host.names)]
    pair = authority.issue([*lab.server.names, *names], [host.address for host in servers])
    lab.folder.joinpath("fullchain.pem").write_text(pair.fullchain)
    write_private(lab.folder / "privkey.pem", pair.key)
    return pair


def _host(lab: Lab, machine: Machine, base: Path, pair: Pair) -> str:
    """Boots one host; its public key."""
    machine.mount(base)
    tree, host = Tree(machine.root), machine.host
    furnish.identity(tree, host, lab.hosts_file)
    key = furnish.access(tree, host, lab.identity_file.with_suffix(".pub").read_text(), lab.secret("sudo_password"))
    if lab.internet:
        furnish.outside(tree, lab.image.source)
    else:
        furnish.apt_source(tree, f"{lab.apt_url}/debian", lab.image.suite, (lab.folder / "debian.asc").read_text())
    if host.is_gitlab:
        furnish.server(tree, lab.server, pair, "" if lab.internet else _seed(lab))
    machine.boot(network.bridge_name(lab.name))
    machine.connect(lab.gateway)
    machine.wait()
    machine.allow_docker()
    return key


def _address(machine: Machine) -> str:
    """How known_hosts names it: every name that one may connect by."""
    host = machine.host
    names = (host.address, host.name)
    return ",".join(names if host.sshd_port == 22 else (f"[{name}]:{host.sshd_port}" for name in names))


def _secrets(lab: Lab) -> None:
    for name in SECRETS:
        write_private(lab.folder / name, f"lab-{secrets.token_urlsafe(18)}")
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"lab {lab.name}", "-f", lab.identity_file)
    hand_to_caller(lab.identity_file)


def _seed(lab: Lab) -> str:
    users = dict.fromkeys(("root", lab.server.username), lab.secret("registry_password"))
    return json.dumps({"api_token": lab.secret("api_token"), "users": users, "project": lab.server.project})


def start(lab: Lab, service: Service) -> None:
    """Starts apt or S3 (with an empty bucket)."""
    what = str(lab.folder.joinpath("repository").resolve()) if service == "apt" else lab.server.bucket
    _service(lab, f"{service}_server", lab.gateway, str(_port(lab, service)), what)


def service_processes(lab: Lab, service: Service) -> list[int]:
    """The processes of that service of the lab."""
    return processes.of_service(lab.folder, f"provision_lab.{service}_server")


def _port(lab: Lab, service: Service) -> int:
    return lab.apt_port if service == "apt" else lab.s3_port


def _service(lab: Lab, module: str, *arguments: str, stdin: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
    argv = [sys.executable, "-m", f"provision_lab.{module}", *arguments, str(lab.folder)]
    return processes.start(argv, lab.folder / f"{module}.log", stdin=stdin)


def wait_for(lab: Lab, service: Service) -> None:
    """Waits until the service answers. Raises LabError with its log when it does not in time."""
    port = _port(lab, service)
    ends = time.monotonic() + _SERVICE_START
    while True:
        try:
            socket.create_connection((lab.gateway, port), timeout=1).close()
            return
        except OSError:
            if time.monotonic() > ends:
                log = lab.folder.joinpath(f"{service}_server.log").read_text()[-2000:]
                raise LabError(f"{service}: no answer on {lab.gateway}:{port} in {_SERVICE_START} s:\n{log}") from None
            time.sleep(0.02)
