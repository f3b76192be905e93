"""A lab: its record on disk, and what it offers: addresses, keys, secrets and ways into its hosts.

Every lab has a folder below the state root, with its record in `lab.json`.
"""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import asdict, dataclass, field
from ipaddress import ip_network
from pathlib import Path

from provision.url import bracketed
from provision_lab.flavours import UBUNTU_24_04, OsRelease
from provision_lab.hosts import LabHost, Server
from provision_lab.image import Image
from provision_lab.machine import Machine
from provision_lab.processes import Identity
from provision_lab.run import LabError, run

HUB_PORT = 8443  # of the lab's Docker Hub
USER = "ubuntu"


def root() -> Path:
    """$PROVISION_LAB_STATE, else /var/lib/provision-lab. It holds a folder for each lab."""
    return Path(os.environ.get("PROVISION_LAB_STATE") or "/var/lib/provision-lab")


@dataclass(frozen=True)
class Record:
    """A lab as it was requested.

    owner      the process that the lab ends with; None: the lab stays until it is taken down
    complete   whether every part of it came up
    internet   whether its hosts reach beyond this machine
    ipv6       whether its hosts and services have IPv6 addresses only
    isolated   whether nothing outside the lab can be reached from its hosts; with `internet`: nothing in `forbidden`
    forbidden  addresses
    prepared   the folder of what prepared hosts need; empty: the lab has none of them
    kernel     the settings that were raised for it, with their values before any lab
    """

    name: str
    subnet: str
    hosts: tuple[LabHost, ...]
    image: Image
    server: Server
    owner: Identity | None = None
    complete: bool = False
    internet: bool = False
    ipv6: bool = False
    isolated: bool = False
    forbidden: tuple[str, ...] = ()
    prepared: str = ""
    kernel: dict[str, str] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """The folder with everything of the lab."""
        return root() / self.name

    def save(self) -> None:
        """Replaces `lab.json` atomically."""
        self.folder.mkdir(parents=True, exist_ok=True)
        draft = self.folder / "lab.json.draft"
        draft.write_text(json.dumps(asdict(self), indent=1))
        draft.rename(self.folder / "lab.json")


def load(name: str) -> Record | None:
    """The lab's record; None when there is no such lab, or one that was killed before it had a record.

    A record that another version of this program wrote is None too. Such a lab can be taken down by its name.
    """
    try:
        data = json.loads(root().joinpath(name, "lab.json").read_text())
        lists = ("names", "traits")
        hosts = tuple(LabHost(**{**host, **{key: tuple(host[key]) for key in lists}}) for host in data.pop("hosts"))
        server = Server(**{**data["server"], "names": tuple(data.pop("server")["names"])})
        image, owner = Image(**data.pop("image")), data.pop("owner")
        data["forbidden"] = tuple(data.get("forbidden", ()))
        return Record(**data, hosts=hosts, image=image, server=server, owner=owner and Identity(**owner))
    except (FileNotFoundError, KeyError, TypeError, ValueError):
        return None


def names() -> list[str]:
    """The names of all labs that have a folder."""
    return sorted(path.name for path in root().glob("*") if path.is_dir())


class LabInfo:
    """What a lab offers; read only."""

    apt_port = 8080  # on the lab's own address, so the same in every lab
    s3_port = 9000
    _record: Record

    @property
    def name(self) -> str:
        """The lab's name."""
        return self._record.name

    @property
    def folder(self) -> Path:
        """The folder with everything of the lab."""
        return self._record.folder

    @property
    def hosts(self) -> tuple[LabHost, ...]:
        """The lab's hosts; they have addresses once the lab is up."""
        return self._record.hosts

    @property
    def user(self) -> str:
        """The user that logs in on the hosts."""
        return USER

    @property
    def identity_file(self) -> Path:
        """The private key that `user` logs in with."""
        return self.folder / "id_ed25519"

    @property
    def known_hosts(self) -> Path:
        """The hosts' true keys."""
        return self.folder / "known_hosts"

    @property
    def ca(self) -> Path:
        """The certificate of the authority that signed the GitLab host's."""
        return self.folder / "ca.pem"

    def secret(self, name: str) -> str:
        """The value of one of the secrets: api_token, registry_password, sudo_password, … (`bringup.SECRETS`)."""
        return (self.folder / name).read_text()

    def secret_source(self, name: str) -> dict[str, str]:
        """The same secret as an inventory refers to it."""
        return {"file": str(self.folder / name)}

    @property
    def throwaway(self) -> bool:
        """Whether the lab ends with the process that owns it."""
        return self._record.owner is not None

    @property
    def complete(self) -> bool:
        """Whether every part of the lab came up."""
        return self._record.complete

    @property
    def image(self) -> Image:
        """The system that the hosts run."""
        return self._record.image

    @property
    def internet(self) -> bool:
        """Whether the hosts reach beyond this machine and install the publishers' packages."""
        return self._record.internet

    @property
    def server(self) -> Server:
        """What the GitLab host has."""
        return self._record.server

    @property
    def prepared(self) -> Path | None:
        """The folder of what prepared hosts need; None when the lab has none of them."""
        return Path(self._record.prepared) if self._record.prepared else None

    @property
    def server_address(self) -> str:
        """The address of the first GitLab host; empty without one."""
        return next((host.address for host in self.hosts if host.is_gitlab), "")

    @property
    def hosts_file(self) -> str:
        """The /etc/hosts of every host."""
        lines = ["127.0.0.1 localhost", "::1 localhost ip6-localhost ip6-loopback"]
        for host in self.hosts:
            names = (host.name, *host.names, *(self.server.names if host.is_gitlab else ()))
            lines.append(" ".join((host.address, *names)))
        return "\n".join(lines) + "\n"

    @property
    def host_keys(self) -> dict[str, str]:
        """The true SSH key of each host by name, in the format of known_hosts."""
        lines = (line.split(" ", 1) for line in self.known_hosts.read_text().splitlines())
        return {host.name: key for host, (_, key) in zip(self.hosts, lines, strict=True)}

    def system(self, host: LabHost) -> str:
        """What the host says it is: debian or ubuntu."""
        return "ubuntu" if host.ubuntu else self.image.system

    def os_release(self, host: LabHost) -> OsRelease | None:
        """What replaces the host's own os-release; None: nothing. A flavour is like an Ubuntu itself."""
        flavour = self.image.made_like
        return flavour.os_release if flavour else UBUNTU_24_04 if host.ubuntu else None

    def mirrors(self, system: str = "debian") -> dict[str, dict[str, str]]:
        """The table [apt] of an inventory for hosts of `system` (debian, ubuntu): the lab's repositories and keys."""
        paths = {
            "docker": f"docker/linux/{system}",
            "gitlab": f"gitlab/gitlab-ce/{system}/{self.image.codenames[system]}",
            "runner": f"runner/gitlab-runner/{system}",
        }
        keys = {name: self.folder / f"{'docker' if name == 'docker' else 'gitlab'}.asc" for name in paths}
        return {name: {"url": f"{self.apt_url}/{path}", "key": str(keys[name])} for name, path in paths.items()}

    @property
    def gateway(self) -> str:
        """This machine's address in the lab."""
        return str(ip_network(self._record.subnet)[1])

    @property
    def apt_url(self) -> str:
        """The root of the lab's apt server."""
        return f"http://{bracketed(self.gateway)}:{self.apt_port}"

    @property
    def docker_hub(self) -> dict[str, list[str]]:
        """The key of daemon.json that puts the lab's Docker Hub in place of the real one. Its certificate is the lab's.

        It has TLS, because the BuildKit in Docker 26 asks every mirror by https.
        """
        return {"registry-mirrors": [f"https://{bracketed(self.gateway)}:{HUB_PORT}"]}

    @property
    def s3_url(self) -> str:
        """The lab's S3 endpoint."""
        return f"http://{bracketed(self.gateway)}:{self.s3_port}"

    def machine(self, host: str) -> Machine:
        """The host of that name as this machine runs it. Raises LabError when there is none."""
        for one in self.hosts:
            if one.name == host:
                return Machine(self.name, one, self.folder / "hosts" / one.name)
        raise LabError(
            f"lab {self.name} has no host {host!r}", hint=f"its hosts: {', '.join(one.name for one in self.hosts)}"
        )

    @property
    def machines(self) -> list[Machine]:
        """All hosts as this machine runs them."""
        return [self.machine(host.name) for host in self.hosts]

    def ssh_command(self, host: str) -> list[str]:
        """The argv of OpenSSH for that host; a command may be appended."""
        there = self.machine(host).host
        settings = (
            "BatchMode=yes",
            "StrictHostKeyChecking=yes",
            f"UserKnownHostsFile={self.known_hosts}",
            "IdentitiesOnly=yes",
            "ConnectTimeout=10",
        )
        options = [word for setting in settings for word in ("-o", setting)]
        login = ["-i", str(self.identity_file), "-p", str(there.sshd_port), f"{USER}@{there.address}"]
        return ["ssh", "-F", "none", *options, *login]

    def ssh(
        self, host: str, command: str, *, stdin: str = "", deadline: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command on the host as `user`, over OpenSSH; `deadline` in seconds."""
        return run(*self.ssh_command(host), command, stdin=stdin, deadline=deadline, check=False)

    def inside(self, host: str, script: str, *, stdin: str = "", deadline: float = 120) -> str:
        """The output of a script that runs as root in the host, without the network. Raises LabError when it fails."""
        leader = self.machine(host).leader
        if leader is None:
            raise LabError(f"host {host} of lab {self.name} does not run")
        environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}
        argv = ("nsenter", "-t", str(leader), "-a", "sh", "-c", script)
        return run(*argv, stdin=stdin, deadline=deadline, env=environment).stdout
