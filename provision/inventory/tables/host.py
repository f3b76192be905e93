"""[hosts.NAME]: the host's own keys; all other keys there override tables. And [ssh]: connections to hosts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import Field, field_validator

from provision.inventory.secrets import SecretSource
from provision.inventory.tables.base import InvalidValue, Table

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_ADDRESS = re.compile(r"[A-Za-z0-9_:][A-Za-z0-9_.:%-]*")  # names, IPv4 and IPv6
_PIN = r"SHA256:[A-Za-z0-9+/]{43}=?|(?:ssh|ecdsa|sk-ssh|sk-ecdsa)-[a-z0-9@.-]+ AAAA[A-Za-z0-9+/]+={0,3}( .*)?"


def check_name(name: str, what: str = "name") -> None:
    """Raises ValueError for a name of a host or group that contains spaces or looks like an option."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"expected a {what} of letters, digits, '.', '_' and '-', not starting with '-', got {name!r}")


def check_address(address: str) -> None:
    """Raises ValueError for text that is neither a host name nor an address."""
    if not _ADDRESS.fullmatch(address):
        hint = " (give the user in ssh.user)" if "@" in address else ""
        raise ValueError(f"expected a host name or an IP address without brackets, got {address!r}{hint}")
    labels = [] if ":" in address else address.removesuffix(".").split(".")
    if "" in labels:
        raise ValueError(f"expected a host name, got {address!r}, which has two dots in a row")
    if long := next((label for label in labels if len(label) > 63), ""):  # RFC 1035, section 2.3.4
        raise ValueError(f"expected a host name, got {address!r}: {long!r} is longer than 63 characters")


class Hop(NamedTuple):
    """One jump host. None: the value of ~/.ssh/config, or ssh's own default."""

    address: str
    user: str | None
    port: int | None


# Compiled when used: few inventories name a jump host.
_HOP = r"(?:ssh://)?(?:(?P<user>[^,]+)@)?(?:\[(?P<ipv6>[^]@,]+)\]|(?P<name>[^@,\[\]:/]+))(?::(?P<port>\d{1,5}))?/?"
_BARE_IPV6 = r"(?:(?P<user>[^,]+)@)?(?P<address>[0-9A-Fa-f.]*(?::[0-9A-Fa-f.]*){2,}(?:%\w+)?)"


def jump_hosts(text: str) -> list[Hop]:
    """The jump hosts in `user@host:port,…`, an IPv6 address in brackets, also as ssh:// URLs.

    Raises ValueError for anything else. Source: ssh_config(5), ProxyJump.
    """
    hops = []
    for part in text.split(","):
        part = part.strip()
        if (bare := re.fullmatch(_BARE_IPV6, part)) is not None:  # without brackets, and so without a port
            hops.append(Hop(bare["address"], bare["user"], None))
            continue
        found = re.fullmatch(_HOP, part)
        if found is None or not 0 < int(found["port"] or 22) < 65536:
            raise ValueError(f"expected user@host:port, several separated by commas, got {part!r}")
        address = found["ipv6"] or found["name"]
        check_address(address)
        hops.append(Hop(address, found["user"], int(found["port"]) if found["port"] else None))
    return hops


class HostTable(Table):
    """A host. Any top-level table may be given below it, for this host only."""

    address: str | None = None
    """Its name or IP address, with the same ranges as the host's name. Default: the host's name."""
    groups: tuple[str, ...] = ()
    """Its groups; settings of later ones win over those of earlier ones."""
    host_key: str | None = None
    """Its SSH host key: "SHA256:…" or "ssh-ed25519 AAAA…". Default: the key in known_hosts."""

    @field_validator("groups")
    @classmethod
    def _groups(cls, groups: tuple[str, ...]) -> tuple[str, ...]:
        for place, group in enumerate(groups):
            if group in groups[:place]:
                raise InvalidValue(f"{group!r} is listed twice", place)
            try:
                check_name(group, "group name")
            except ValueError as error:
                raise InvalidValue(str(error), place) from None
        return groups

    @field_validator("host_key")
    @classmethod
    def _pin(cls, text: str | None) -> str | None:
        if text is not None and not re.fullmatch(_PIN, text):
            raise ValueError(
                f'expected "SHA256:…" (43 letters, from ssh-keygen -lf) or "ssh-ed25519 AAAA…", got {text!r}'
            )
        return text


class Ssh(Table):
    """Connections to hosts. Settings of ~/.ssh/config are used too; these take precedence."""

    user: str | None = None
    """The user to log in as. Default: ~/.ssh/config, else your user name."""
    port: int | None = Field(default=None, ge=1, le=65535)
    """The SSH port. Default: ~/.ssh/config, else 22."""
    identity_file: Path | None = None
    """A private key on this machine. Default: from ~/.ssh/config, the agent, the default keys."""
    proxy_jump: str | None = None
    """Jump hosts, as in `ssh -J`: `user@host:port`, several with commas; "none" for no jump."""
    known_hosts: Path | None = None
    """The file of known host keys on this machine. Default: ~/.ssh/known_hosts and the system's."""
    connect_timeout: float = Field(default=10, gt=0)
    """Seconds after which a host that does not answer is unreachable."""
    host_keys: Literal["strict", "accept-new"] = "strict"
    """strict: unknown keys are refused; accept-new: they are added to known_hosts. A changed key is always refused."""
    become: bool = True
    """Use sudo to become root. false: the login user is root."""
    become_password: SecretSource | None = None
    """The password for sudo, if it requires one (a secret)."""

    @field_validator("user", "proxy_jump")
    @classmethod
    def _one_word(cls, text: str | None) -> str | None:
        if text is not None and (not text or text.startswith("-") or any(letter.isspace() for letter in text)):
            raise ValueError(f"expected one word without spaces, got {text!r}")
        return text

    @field_validator("proxy_jump")
    @classmethod
    def _jump(cls, text: str | None) -> str | None:
        if text is not None and text.lower() != "none":
            jump_hosts(text)
        return text
