"""What the hosts of a lab are to be like: each host, and what the GitLab host has before anything runs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from provision_lab.run import LabError

_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,46}[a-z0-9])?", re.IGNORECASE)
Trait = Literal["bare", "use-pty", "umask", "noexec-tmp", "fish", "csh", "noisy", "nameless", "clock-behind"]
Preparation = Literal["", "server", "runner"]
_LIVE = "/etc/letsencrypt/live/gitlab.lab.test"


@dataclass(frozen=True)
class LabHost:
    """A host to boot.

    address     in the lab's subnet; empty: the next free one from .10 on
    ubuntu      put an os-release of Ubuntu 24.04 over the image's own, to use Ubuntu's code path; an image that is made
                like an Ubuntu keeps its own
    sshd_port   where sshd listens
    sudo        whether the user's sudo asks for a password (the lab's secret `sudo_password`)
    gitlab      the host is the GitLab host and has its certificate and seed; default: the host called gitlab
    names       more names that every host of the lab resolves to this one
    disk_mb     size of its disk in MiB; 0: as large as this machine's
    prepared    what it is already when it boots; a lab with such hosts needs `preparing.ensure`
                server  a GitLab host, as `provision server` makes one of inventories/lab.toml without S3
                runner  a host with Docker and gitlab-runner, which has no runners
    traits      what makes the host unlike the others:
                bare          no curl, gpg, git, ufw, openssl and ca-certificates
                use-pty       sudo runs commands in a terminal of its own
                umask         077 for logins, sudo and shells
                noexec-tmp    nothing in /tmp can be executed
                fish, csh     the user's login shell
                noisy         a .bashrc that prints, and a banner of 2,000 lines
                nameless      its own name does not resolve
                clock-behind  three days behind, for the programs that read the clock: apt-get, curl, date
    """

    name: str
    address: str = ""
    ubuntu: bool = False
    sshd_port: int = 22
    sudo: Literal["nopasswd", "password"] = "nopasswd"
    gitlab: bool | None = None
    names: tuple[str, ...] = ()
    disk_mb: int = 0
    traits: tuple[Trait, ...] = ()
    prepared: Preparation = ""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise LabError(f"{self.name!r} cannot be a lab host's name: letters, digits, dots and dashes, at most 48")

    @property
    def is_gitlab(self) -> bool:
        """Whether this host is the GitLab host."""
        return self.name == "gitlab" if self.gitlab is None else self.gitlab


@dataclass(frozen=True)
class Server:
    """What the lab's GitLab host has, so that the names and paths of an inventory are valid in the lab.

    names        its DNS names, for the certificate; every host of the lab resolves them
    fullchain    where its certificate is, as certbot leaves one; empty: nowhere
    key          where the certificate's key is
    username     the user that logs in to the registry, besides root
    project      a project that this user may push to
    bucket       the registry's bucket in the lab's S3
    region       the bucket's region
    seeded       GitLab begins with an API token, this user, and this project; else with nothing, as a new GitLab does
    """

    names: tuple[str, ...] = ("gitlab.lab.test",)
    fullchain: str = f"{_LIVE}/fullchain.pem"
    key: str = f"{_LIVE}/privkey.pem"
    username: str = "root"
    project: str = "root/hello_hapi"
    bucket: str = "registry"
    region: str = "us-east-1"
    seeded: bool = True
