"""Lays the files of a host into its tree before it boots: who it is, who may enter, whom it knows."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from provision_lab.certificates import Pair
from provision_lab.host import LabHost
from provision_lab.run import run
from provision_lab.server import Server

USER = "ubuntu"
_UBUNTU = """\
PRETTY_NAME="Ubuntu 24.04.3 LTS"
NAME="Ubuntu"
VERSION_ID="24.04"
VERSION="24.04.3 LTS (Noble Numbat)"
VERSION_CODENAME=noble
ID=ubuntu
ID_LIKE=debian
HOME_URL="https://www.ubuntu.com/"
UBUNTU_CODENAME=noble
"""
_LSB = 'DISTRIB_ID=Ubuntu\nDISTRIB_RELEASE=24.04\nDISTRIB_CODENAME=noble\nDISTRIB_DESCRIPTION="Ubuntu 24.04.3 LTS"\n'


@dataclass(frozen=True)
class Tree:
    """A host's tree, written from outside; every path is the host's, without the leading slash."""

    root: Path

    def write(self, path: str, text: str, mode: int = 0o644, owner: int = 0) -> None:
        """A whole file with that mode and owner (user and group id); its folder is made when it is missing."""
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
            stream.write(text)
            os.fchmod(stream.fileno(), mode)
            os.fchown(stream.fileno(), owner, owner)


def identity(tree: Tree, host: LabHost, hosts_file: str) -> None:
    """Name, names of the others, machine id, and the system it says it is."""
    tree.write("etc/hostname", f"{host.name}\n")
    tree.write("etc/hosts", hosts_file)
    tree.write("etc/machine-id", f"{secrets.token_hex(16)}\n", 0o444)
    tree.write("etc/resolv.conf", "# This host knows names from /etc/hosts only.\n")
    if host.ubuntu:
        tree.write("usr/lib/os-release", _UBUNTU)
        tree.write("etc/lsb-release", _LSB)


def access(tree: Tree, host: LabHost, public_key: str, sudo_password: str) -> str:
    """The user, who may enter with the lab's key and become root; sshd with a key of its own, which is returned."""
    uid = (tree.root / "home" / USER).stat().st_uid
    ssh = tree.root / "home" / USER / ".ssh"
    ssh.mkdir(mode=0o700)
    os.chown(ssh, uid, uid)
    tree.write(f"home/{USER}/.ssh/authorized_keys", public_key, 0o600, uid)
    run("chroot", tree.root, "chpasswd", stdin=f"{USER}:{sudo_password}\n")
    rights = "NOPASSWD: ALL" if host.sudo == "nopasswd" else "ALL"
    tree.write("etc/sudoers.d/90-lab", f"{USER} ALL=(ALL:ALL) {rights}\n", 0o440)
    tree.write("etc/ssh/sshd_config.d/lab.conf", f"Port {host.sshd_port}\nPasswordAuthentication no\nUseDNS no\n")
    key = tree.root / "etc/ssh/ssh_host_ed25519_key"
    key.unlink(missing_ok=True)
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"root@{host.name}", "-f", key)
    return " ".join(key.with_suffix(".pub").read_text().split()[:2])


def apt_source(tree: Tree, url: str, suite: str, key: str) -> None:
    """The one repository that the host starts with: the lab's part of Debian."""
    tree.write("usr/share/keyrings/lab-debian.asc", key)
    source = (
        f"Types: deb\nURIs: {url}\nSuites: {suite}\nComponents: main\nSigned-By: /usr/share/keyrings/lab-debian.asc\n"
    )
    tree.write("etc/apt/sources.list.d/debian.sources", source)


def outside(tree: Tree, source: str) -> None:
    """The system's own archive, and this machine's name servers."""
    tree.write("etc/apt/sources.list.d/system.sources", source)
    # A local stub of systemd-resolved cannot be reached from a host of the lab; what it asks can.
    found = (Path(path) for path in ("/run/systemd/resolve/resolv.conf", "/etc/resolv.conf"))
    tree.write("etc/resolv.conf", next(path.read_text() for path in found if path.exists()))


def server(tree: Tree, wanted: Server, pair: Pair, seed: str) -> None:
    """What the GitLab host has before anything runs: a certificate as certbot leaves it, and the stand-in's seed, if any."""
    if wanted.fullchain:
        tree.write(wanted.fullchain.lstrip("/"), pair.fullchain)
        tree.write(wanted.key.lstrip("/"), pair.key, 0o600)
    if seed:
        tree.write("etc/gitlab-standin/seed.json", seed, 0o600)
