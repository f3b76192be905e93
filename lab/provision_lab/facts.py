"""What a lab offers: addresses, keys, secrets, and ways into its hosts."""

from __future__ import annotations

import subprocess
from ipaddress import ip_network
from pathlib import Path

from provision_lab.host import LabHost
from provision_lab.image import Image
from provision_lab.machine import Machine
from provision_lab.run import LabError, run
from provision_lab.server import Server
from provision_lab.state import Record

USER = "ubuntu"


class Facts:
    """A lab as it stands, read only."""

    apt_port = 8080  # on the lab's own address, so the same in every lab
    s3_port = 9000
    _record: Record

    @property
    def name(self) -> str:
        """Its name."""
        return self._record.name

    @property
    def folder(self) -> Path:
        """Where all of it is kept."""
        return self._record.folder

    @property
    def hosts(self) -> tuple[LabHost, ...]:
        """Its hosts, with their addresses once it is up."""
        return self._record.hosts

    @property
    def user(self) -> str:
        """Who logs in on the hosts."""
        return USER

    @property
    def identity_file(self) -> Path:
        """The private key that lets `user` in."""
        return self.folder / "id_ed25519"

    @property
    def known_hosts(self) -> Path:
        """The hosts' true keys."""
        return self.folder / "known_hosts"

    @property
    def ca(self) -> Path:
        """The certificate that signed the GitLab host's."""
        return self.folder / "ca.pem"

    def secret(self, name: str) -> str:
        """One of api_token, registry_password, s3_access_key, s3_secret_key, sudo_password."""
        return (self.folder / name).read_text()

    @property
    def throwaway(self) -> bool:
        """Whether it goes with the process that owns it."""
        return self._record.owner is not None

    @property
    def complete(self) -> bool:
        """Whether it came up whole once."""
        return self._record.complete

    @property
    def image(self) -> Image:
        """Which system its hosts run."""
        return self._record.image

    @property
    def internet(self) -> bool:
        """Whether its hosts reach beyond this machine, and get real packages there."""
        return self._record.internet

    @property
    def server(self) -> Server:
        """What its GitLab host is like."""
        return self._record.server

    @property
    def hosts_file(self) -> str:
        """The /etc/hosts that every host has."""
        lines = ["127.0.0.1 localhost", "::1 localhost ip6-localhost ip6-loopback"]
        for host in self.hosts:
            names = (host.name, *host.names, *(self.server.names if host.is_gitlab else ()))
            lines.append(" ".join((host.address, *names)))
        return "\n".join(lines) + "\n"

    def secret_source(self, name: str) -> dict[str, str]:
        """The same as an inventory names it."""
        return {"file": str(self.folder / name)}

    @property
    def host_keys(self) -> dict[str, str]:
        """Each host's true SSH key, as known_hosts has it."""
        lines = (line.split(" ", 1) for line in self.known_hosts.read_text().splitlines())
        return {host.name: key for host, (_, key) in zip(self.hosts, lines, strict=True)}

    def mirrors(self, system: str = "debian") -> dict[str, dict[str, str]]:
        """An inventory's [apt] for hosts of `system` (debian, ubuntu): the lab's repositories and their keys."""
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
        return f"http://{self.gateway}:{self.apt_port}"

    @property
    def s3_url(self) -> str:
        """The lab's S3 endpoint."""
        return f"http://{self.gateway}:{self.s3_port}"

    def machine(self, host: str) -> Machine:
        """The host of that name: its tree (`root`), its first process (`leader`), its journal."""
        for one in self.hosts:
            if one.name == host:
                return Machine(self.name, one, self.folder / "hosts" / one.name)
        raise LabError(f"lab {self.name} has no host {host!r}", hint=f"it has {', '.join(h.name for h in self.hosts)}")

    @property
    def machines(self) -> list[Machine]:
        """All hosts."""
        return [self.machine(host.name) for host in self.hosts]

    def ssh_command(self, host: str) -> list[str]:
        """The argv of OpenSSH into that host; a command may be appended."""
        there = self.machine(host).host
        options = [
            "-o",
            "BatchMode=yes",
            "-o",
            "StrictHostKeyChecking=yes",
            "-o",
            f"UserKnownHostsFile={self.known_hosts}",
        ]
        options += ["-o", "IdentitiesOnly=yes", "-o", "ConnectTimeout=10", "-i", str(self.identity_file)]
        return ["ssh", "-F", "none", *options, "-p", str(there.sshd_port), f"{USER}@{there.address}"]

    def ssh(
        self, host: str, command: str, *, stdin: str = "", deadline: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command on the host as `user`, over OpenSSH."""
        return run(*self.ssh_command(host), command, stdin=stdin, deadline=deadline, check=False)

    def inside(self, host: str, script: str, *, stdin: str = "", deadline: float = 120) -> str:
        """Runs a script as root inside the host, not over the network; its output. Raises LabError when it fails."""
        leader = self.machine(host).leader
        if leader is None:
            raise LabError(f"host {host} of lab {self.name} does not run")
        environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}
        argv = ("nsenter", "-t", str(leader), "-a", "sh", "-c", script)
        return run(*argv, stdin=stdin, deadline=deadline, env=environment).stdout
