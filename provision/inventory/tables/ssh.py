"""[ssh]: how hosts are reached."""

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from provision.inventory.secrets import SecretSource
from provision.inventory.tables.base import Table


class Ssh(Table):
    """How hosts are reached. What ~/.ssh/config says counts too; what stands here wins."""

    user: str | None = None
    """The user to log in as. Default: what ~/.ssh/config says, else your own name."""
    port: int | None = Field(default=None, ge=1, le=65535)
    """The SSH port. Default: what ~/.ssh/config says, else 22."""
    identity_file: Path | None = None
    """A private key on this machine. Default: ~/.ssh/config, the agent, the usual keys."""
    proxy_jump: str | None = None
    """Hosts to go through, as in `ssh -J`: `user@host:port`, several with commas; "none" for no jump."""
    known_hosts: Path | None = None
    """The file of known host keys on this machine. Default: ~/.ssh/known_hosts and the system's."""
    connect_timeout: float = Field(default=10, gt=0)
    """Seconds until a host that does not answer counts as unreachable."""
    host_keys: Literal["strict", "accept-new"] = "strict"
    """strict: unknown keys are refused; accept-new: they are noted in known_hosts. A changed key is always refused."""
    become: bool = True
    """Work as root through sudo. false: the login user already is root."""
    become_password: SecretSource | None = None
    """The password for sudo, where it asks for one (a secret)."""

    @field_validator("user", "proxy_jump")
    @classmethod
    def _one_word(cls, text: str | None) -> str | None:
        if text is not None and (not text or text.startswith("-") or any(letter.isspace() for letter in text)):
            raise ValueError(f"expected one word without spaces, got {text!r}")
        return text
