"""Brings up the parts of a lab: secrets, keys and certificate first, then services and hosts at the same time."""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

from provision.url import bracketed
from provision_lab import network, prepared, processes
from provision_lab.certificates import Authority, Pair
from provision_lab.flavours import OsRelease
from provision_lab.hosts import LabHost, Server
from provision_lab.machine import Machine, Tree
from provision_lab.run import LabError, hand_to_caller, run, write_private
from provision_lab.state import USER, LabInfo
from provision_lab.traits import apply_traits, bare_layer

_SERVICE_START = 30  # seconds until a service has to answer
_keepers: list[subprocess.Popen[bytes]] = []  # referenced for as long as this process lives: their input ends with it
Service = Literal["apt", "s3"]
SERVICES: tuple[Service, ...] = ("apt", "s3")
_AUTHORITIES = "etc/ca-certificates.conf"  # source: update-ca-certificates(8)
_FEW = 5
_MASKED_UNITS = (
    *("modprobe@.service", "kmod-static-nodes.service", "sys-kernel-debug.mount", "sys-kernel-tracing.mount"),
    *("dev-hugepages.mount", "systemd-tmpfiles-setup-dev-early.service", "systemd-tmpfiles-setup-dev.service"),
)
SECRETS = ("api_token", "registry_password", "s3_access_key", "s3_secret_key", "sudo_password", "rehearsal_secret")


def bring_up(lab: LabInfo, base: Path, repository: Path) -> None:
    """Makes everything of a lab whose folder and bridge exist. Raises LabError at the first part that fails."""
    if lab.throwaway:
        _keepers.append(_start_service(lab, "keeper", stdin=subprocess.PIPE))
    _make_secrets(lab)
    for key in repository.glob("*.asc"):
        lab.folder.joinpath(key.name).write_text(key.read_text())
    lab.folder.joinpath("repository").symlink_to(repository)
    authority = (
        Authority.load(prepared.shared(lab.prepared)) if lab.prepared else Authority(f"provision lab {lab.name} CA")
    )
    lab.ca.write_text(authority.certificate)
    write_private(lab.folder / "ca.key", authority.key)
    hub = authority.issue([], [lab.gateway])
    lab.folder.joinpath("hub.pem").write_text(hub.fullchain)
    write_private(lab.folder / "hub.key", hub.key)
    for service in SERVICES:
        start(lab, service)
    pair = _certificate(lab, authority)
    with ThreadPoolExecutor(max(1, len(lab.machines))) as pool:
        keys = list(pool.map(lambda machine: _boot(lab, machine, base, pair), lab.machines))
    lines = (f"{_known_as(machine)} {key}\n" for machine, key in zip(lab.machines, keys, strict=True))
    lab.known_hosts.write_text("".join(lines))
    for service in SERVICES:
        wait_for(lab, service)


def _make_secrets(lab: LabInfo) -> None:
    for name in SECRETS:
        shared = lab.prepared and prepared.shared(lab.prepared) / name
        write_private(lab.folder / name, shared.read_text() if shared else f"lab-{secrets.token_urlsafe(18)}")
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"lab {lab.name}", "-f", lab.identity_file)
    hand_to_caller(lab.identity_file)


def _certificate(lab: LabInfo, authority: Authority) -> Pair:
    """The GitLab host's certificate. It is also written into the lab's folder, for inventories that upload it."""
    servers = [host for host in lab.hosts if host.is_gitlab]
    names = [name for host in servers for name in (host.name, *host.names)]
    pair = authority.issue([*lab.server.names, *names], [host.address for host in servers])
    lab.folder.joinpath("fullchain.pem").write_text(pair.fullchain)
    write_private(lab.folder / "privkey.pem", pair.key)
    return pair


def _boot(lab: LabInfo, machine: Machine, base: Path, pair: Pair) -> str:
    """Writes the host's files and boots it; its public SSH key."""
    bare = (bare_layer(lab.image, base),) if "bare" in machine.host.traits else ()
    kind = machine.host.prepared
    ready = (prepared.layer(lab.prepared, kind),) if kind and lab.prepared else ()
    machine.mount(*ready, *bare, base)
    tree, host = Tree(machine.root), machine.host
    _write_identity(tree, host, lab.hosts_file, lab.os_release(host))
    key = _write_access(tree, host, lab.identity_file.with_suffix(".pub").read_text(), lab.secret("sudo_password"))
    if lab.internet:
        _write_public_archive(tree, lab.image.source)
    else:
        debian_key = (lab.folder / "debian.asc").read_text()
        _write_apt_source(tree, f"{lab.apt_url}/debian", lab.image.suite, debian_key)
        _keep_few_authorities(tree)
        _mask_generators(tree)
        _mask_units(tree)
    if host.is_gitlab:
        _write_server(tree, lab.server, pair, _seed(lab) if lab.server.seeded and not lab.internet else "")
    apply_traits(tree, host)
    if kind and lab.prepared:
        prepared.readdress(lab.prepared, kind, tree.root, lab.gateway, lab.server_address)
    machine.boot(network.bridge_name(lab.name))
    machine.connect(lab.gateway)
    machine.wait()
    machine.allow_docker()
    if kind:
        prepared.wait(machine, kind)
    return key


def _known_as(machine: Machine) -> str:
    """The host's names in known_hosts: all that a client may connect by."""
    host = machine.host
    names = (host.address, host.name)
    return ",".join(names if host.sshd_port == 22 else (f"[{name}]:{host.sshd_port}" for name in names))


def _seed(lab: LabInfo) -> str:
    """What the stand-in of GitLab creates at its first start, as JSON."""
    users = dict.fromkeys(("root", lab.server.username), lab.secret("registry_password"))
    members = [{"user": lab.server.username, "path": lab.server.project, "role": "maintainer"}]
    seed = {"api_token": lab.secret("api_token"), "users": users, "project": lab.server.project, "members": members}
    return json.dumps(seed)


def start(lab: LabInfo, service: Service) -> None:
    """Starts apt or S3 (with an empty bucket)."""
    source = str(lab.folder.joinpath("repository").resolve()) if service == "apt" else lab.server.bucket
    _start_service(lab, service, lab.gateway, str(_port(lab, service)), source)


def stop(lab: LabInfo, service: Service) -> None:
    """Ends apt or S3."""
    processes.end(processes.of_service(lab.folder, service))


def wait_for(lab: LabInfo, service: Service) -> None:
    """Waits until the service answers. Raises LabError with its log when it does not answer in time."""
    port = _port(lab, service)
    ends = time.monotonic() + _SERVICE_START
    while True:
        try:
            socket.create_connection((lab.gateway, port), timeout=1).close()
            return
        except OSError:
            if time.monotonic() > ends:
                log = lab.folder.joinpath(f"{service}_server.log").read_text()[-2000:]
                raise LabError(
                    f"{service}: no answer on {bracketed(lab.gateway)}:{port} in {_SERVICE_START} s:\n{log}"
                ) from None
            time.sleep(0.02)


def _port(lab: LabInfo, service: Service) -> int:
    return lab.apt_port if service == "apt" else lab.s3_port


def _start_service(
    lab: LabInfo, service: str, *arguments: str, stdin: int = subprocess.DEVNULL
) -> subprocess.Popen[bytes]:
    argv = [sys.executable, "-m", "provision_lab.services", service, *arguments, str(lab.folder)]
    log = f"{service}_server.log" if service in SERVICES else f"{service}.log"
    return processes.start(argv, lab.folder / log, stdin=stdin)


def _write_identity(tree: Tree, host: LabHost, hosts_file: str, os_release: OsRelease | None) -> None:
    """The host's name, machine id and os-release unless it has its own, and the names of the other hosts."""
    tree.write("etc/hostname", f"{host.name}\n")
    tree.write("etc/hosts", hosts_file)
    tree.write("etc/machine-id", f"{secrets.token_hex(16)}\n", 0o444)
    tree.write("etc/resolv.conf", "# This host resolves names with /etc/hosts only.\n")
    for name in ("etc/.updated", "var/.updated"):
        # As on a host that booted before. Without it, systemd rebuilds the linker's cache, the journal's catalog and the
        # system's users at the boot. Source: systemd-update-done.service(8).
        tree.write(name, "")
    for path, text in os_release.files.items() if os_release else ():
        tree.write(path, text)


def _mask_generators(tree: Tree) -> None:
    """Masks systemd's own generators, which find nothing to do on a host without internet. Source: systemd.generator(7).

    systemd runs all of them at each daemon-reload, of which installing Docker or GitLab needs about ten: a reload takes
    78 ms of processor time without them, and 178 ms with them. Those of other packages stay, such as the one by which
    Ubuntu's sshd gets its port.
    """
    masks = tree.root / "etc/systemd/system-generators"
    masks.mkdir(parents=True, exist_ok=True)
    for generator in (tree.root / "usr/lib/systemd/system-generators").glob("systemd-*"):
        (masks / generator.name).symlink_to("/dev/null")


def _mask_units(tree: Tree) -> None:
    """Masks units that have nothing to do in a container. They take 0.1 s of processor time at each boot."""
    units = tree.root / "etc/systemd/system"
    for name in _MASKED_UNITS:
        (units / name).unlink(missing_ok=True)  # a prepared host has the link already
        (units / name).symlink_to("/dev/null")


def _write_access(tree: Tree, host: LabHost, public_key: str, sudo_password: str) -> str:
    """The user's key and sudo rights, and sshd with a key of its own. Returns sshd's public key."""
    uid = (tree.root / "home" / USER).stat().st_uid
    ssh = tree.root / "home" / USER / ".ssh"
    ssh.mkdir(mode=0o700)
    os.chown(ssh, uid, uid)
    tree.write(f"home/{USER}/.ssh/authorized_keys", public_key, 0o600, uid)
    # Without a method, PAM hashes and checks the password, which takes 70 ms of processor time.
    run("chroot", tree.root, "chpasswd", "-c", "SHA512", "-s", "1000", stdin=f"{USER}:{sudo_password}\n")
    rights = "NOPASSWD: ALL" if host.sudo == "nopasswd" else "ALL"
    tree.write("etc/sudoers.d/90-lab", f"{USER} ALL=(ALL:ALL) {rights}\n", 0o440)
    tree.write("etc/ssh/sshd_config.d/lab.conf", f"Port {host.sshd_port}\nPasswordAuthentication no\nUseDNS no\n")
    key = tree.root / "etc/ssh/ssh_host_ed25519_key"
    key.unlink(missing_ok=True)
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"root@{host.name}", "-f", key)
    return " ".join(key.with_suffix(".pub").read_text().split()[:2])


def _write_apt_source(tree: Tree, url: str, suite: str, key: str) -> None:
    """The only repository that a host starts with: the lab's part of Debian."""
    tree.write("usr/share/keyrings/lab-debian.asc", key)
    source = (
        f"Types: deb\nURIs: {url}\nSuites: {suite}\nComponents: main\nSigned-By: /usr/share/keyrings/lab-debian.asc\n"
    )
    tree.write("etc/apt/sources.list.d/debian.sources", source)


def _keep_few_authorities(tree: Tree) -> None:
    """Selects the first of the system's authorities: a host without internet needs no more of them.

    update-ca-certificates starts several processes for each one, which takes a second of processor time for all of them.
    """
    path = tree.root / _AUTHORITIES
    if not path.exists():  # a bare host
        return
    selected = path.read_text().splitlines()
    first = [line for line in selected if not line.startswith(("#", "!"))][:_FEW]
    tree.write(_AUTHORITIES, "".join(f"{line}\n" for line in first))


def _write_public_archive(tree: Tree, source: str) -> None:
    """The system's own archive, and this machine's name servers."""
    tree.write("etc/apt/sources.list.d/system.sources", source)
    # A host cannot reach the local stub of systemd-resolved. It can reach the servers that the stub asks.
    found = (Path(path) for path in ("/run/systemd/resolve/resolv.conf", "/etc/resolv.conf"))
    tree.write("etc/resolv.conf", next(path.read_text() for path in found if path.exists()))


def _write_server(tree: Tree, wanted: Server, pair: Pair, seed: str) -> None:
    """The GitLab host's certificate, as certbot leaves it, and the stand-in's seed unless it is empty."""
    if wanted.fullchain:
        tree.write(wanted.fullchain.lstrip("/"), pair.fullchain)
        tree.write(wanted.key.lstrip("/"), pair.key, 0o600)
    if seed:
        tree.write("etc/gitlab-standin/seed.json", seed, 0o600)
