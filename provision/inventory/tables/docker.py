"""[docker]: Docker Engine."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from provision.inventory.secrets import SecretSource
from provision.inventory.tables.base import InvalidValue, PackageVersion, Subtable, Table, check_each, plain_data


class RegistryTrust(Table):
    """One private registry, with local files for /etc/docker/certs.d/HOST:PORT."""

    ca: Path | None = None
    """Local file: the CA that signed the registry's certificate."""
    cert: Path | None = None
    """Local file: the client certificate for the registry. Requires `key`."""
    key: Path | None = None
    """Local file: the client certificate's key."""

    @model_validator(mode="after")
    def _pair(self) -> "RegistryTrust":
        for given, missing in (("cert", "key"), ("key", "cert")):
            if getattr(self, given) is not None and getattr(self, missing) is None:
                raise InvalidValue(f"{missing} is missing: {given} requires it", given)
        return self


class Docker(Table):
    """Docker Engine: its packages, its users, and its daemon.json."""

    source: Literal["docker.com", "distro"] = "docker.com"
    """docker.com: Docker's own packages (docker-ce); distro: the distribution's (docker.io, with client, buildx and Compose)."""
    version: PackageVersion = None
    """The package version to hold, `*` allowed: "5:29.*". Default: the newest at installation, then the installed one."""
    users: tuple[str, ...] = ()
    """Users in the docker group, which gives root access."""
    daemon: Annotated[dict[str, Any], Subtable("log-opts")] | None = None
    """/etc/docker/daemon.json, with its own keys. Absent: keys that we set earlier are removed, others are unchanged."""
    restart: Literal["when-idle", "now"] = "when-idle"
    """when-idle: gitlab-runner takes no new jobs, and the restart waits until none runs, at most half an hour. now: it
    does not wait."""
    buildkit: dict[str, Any] | None = None
    """/etc/buildkit/buildkitd.toml, with its own keys. Absent: the file is unchanged."""
    registries: dict[str, RegistryTrust] = Field(default_factory=dict)
    """By HOST or HOST:PORT: the CA and the client certificate for that registry, in /etc/docker/certs.d."""

    @field_validator("users")
    @classmethod
    def _users(cls, users: tuple[str, ...]) -> tuple[str, ...]:
        check_each(users, r"[a-z_][a-z0-9_.-]*\$?", "a user name")
        return users

    @field_validator("registries")
    @classmethod
    def _registries(cls, registries: dict[str, RegistryTrust]) -> dict[str, RegistryTrust]:
        for name in registries:
            if not re.fullmatch(r"([A-Za-z0-9][A-Za-z0-9.-]*|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?", name):
                raise InvalidValue(f"expected HOST or HOST:PORT, got {name!r}", name)
        return registries

    @field_validator("buildkit")
    @classmethod
    def _buildkit(cls, buildkit: dict[str, Any] | None) -> dict[str, Any] | None:
        plain_data(buildkit or {})
        return buildkit

    @field_validator("daemon")
    @classmethod
    def _daemon(cls, daemon: dict[str, Any] | None) -> dict[str, Any] | None:
        plain_data(daemon or {})
        options = (daemon or {}).get("log-opts", {})
        for name, value in options.items() if isinstance(options, dict) else ():
            if not isinstance(value, str | SecretSource):  # dockerd refuses anything else
                raise InvalidValue(
                    f'log-opts are strings: expected "{value}" in quotes, got {value!r}', "log-opts", name
                )
        return daemon
