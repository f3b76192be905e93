"""What a host of a lab is to be like."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from provision_lab.run import LabError

_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,46}[a-z0-9])?", re.IGNORECASE)


@dataclass(frozen=True)
class LabHost:
    """A host to boot.

    address     in the lab's subnet; empty: the next free one from .10 on
    ubuntu      lays an os-release of Ubuntu 24.04 over Debian, to walk Ubuntu's code path
    sshd_port   where sshd listens
    sudo        whether the user's sudo asks for a password (`Lab.sudo_password`)
    gitlab      is the GitLab host: has the certificate and the stand-in's seed; default: by its name
    names       further names that every host of the lab resolves to this one
    disk_mb     size of its disk in MiB; 0: no bound but this machine's
    """

    name: str
    address: str = ""
    ubuntu: bool = False
    sshd_port: int = 22
    sudo: Literal["nopasswd", "password"] = "nopasswd"
    gitlab: bool | None = None
    names: tuple[str, ...] = ()
    disk_mb: int = 0

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise LabError(f"{self.name!r} cannot be a lab host's name: letters, digits, dots and dashes, at most 48")

    @property
    def is_gitlab(self) -> bool:
        """Whether the GitLab host's certificate and seed belong here."""
        return self.name == "gitlab" if self.gitlab is None else self.gitlab
