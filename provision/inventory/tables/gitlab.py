"""[gitlab]: the server itself."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from provision.inventory.secrets import SecretSource
from provision.inventory.tables.base import InvalidValue, PackageVersion, Table, local_certificates, plain_data
from provision.inventory.tables.host import check_address
from provision.url import Url, UrlField

READY_SECONDS = 300  # Rails boots in 30 to 90 s on the machines that GitLab recommends
_ELSEWHERE = {"external_url": "[gitlab] external_url", "registry_external_url": "[registry] external_url"}


class Server(Table):
    """Another GitLab server, which a runner names in its `url`."""

    api_token: SecretSource | None = None
    """A token for that server's API, with scope api, or create_runner (a secret)."""
    ca: Path | None = None
    """Local file: the certificates of a private CA that this server's certificate is from."""

    @property
    def ca_text(self) -> bytes:
        """The CA certificate, read from its local file; b"" without one. Raises UsageError."""
        return local_certificates(self.ca, "gitlab.servers") if self.ca else b""


Role = Literal["guest", "planner", "reporter", "developer", "maintainer", "owner"]
Visibility = Literal["private", "internal", "public"]


class User(Table):
    """A user of GitLab, created if it is missing and never deleted. What is not named stays."""

    name: str | None = None
    """The full name. Default: the user name, when it is created."""
    email: str
    """The e-mail address."""
    password: SecretSource | None = None
    """The password when it is created (a secret), which is never changed later. Default: a random one."""
    admin: bool | None = None
    """Whether it is an administrator."""
    external: bool | None = None
    """Whether it sees only what it is a member of."""

    @field_validator("email")
    @classmethod
    def _email(cls, text: str) -> str:
        if not re.fullmatch(r"[^@\s,]+@[^@\s,]+", text):
            raise ValueError(f'expected one e-mail address, such as "sammy@example.com", got {text!r}')
        return text


class Group(Table):
    """A group of GitLab, created if it is missing and never deleted. What is not named stays."""

    visibility: Visibility | None = None
    """Who sees it. Default: GitLab's own, when it is created."""
    description: str | None = None
    """What it is for."""
    members: dict[str, Role] = Field(default_factory=dict)
    """Its members and their roles, by user name. Other members stay."""


_PART = r"[A-Za-z0-9_.](?:[A-Za-z0-9_.-]*[A-Za-z0-9_-])?"  # GitLab's lib/gitlab/path_regex.rb


class Gitlab(Table):
    """The GitLab server: its package, its URL, and its gitlab.rb."""

    external_url: Annotated[Url, UrlField("https://gitlab.example.com")]
    """The URL of GitLab: scheme and host, optionally a port and a path."""
    edition: Literal["ce", "ee"] = "ce"
    """The package: gitlab-ce or gitlab-ee."""
    version: PackageVersion = None
    """The version to hold, such as "19.3.0". Default: the newest at installation, then the installed one."""
    install: bool = True
    """false: GitLab must have been installed by other means."""
    api_token: SecretSource | None = None
    """A token for GitLab's API, with scope api, or create_runner if it only creates runners (a secret). Default: with `install`,
    the task access makes one where the inventory needs it, and keeps it on the GitLab host."""
    root_password: SecretSource | None = None
    """Root's password (a secret), set once, after GitLab was installed. Default: GitLab generates one."""
    api_address: str | None = None
    """The name or address that this program connects to for GitLab's API. Default: where the URL's name leads."""
    ready_timeout: Annotated[int, Field(ge=0)] = READY_SECONDS
    """Seconds to wait for GitLab after a reconfigure or an upgrade, and whenever it answers 502 or 503: Rails takes minutes
    to start. 0: do not wait."""
    users: dict[str, User] = Field(default_factory=dict)
    """Users, by user name."""
    groups: dict[str, Group] = Field(default_factory=dict)
    """Groups, by full path: [gitlab.groups."team/sub"]."""
    servers: dict[str, Server] = Field(default_factory=dict)
    """Other GitLab servers by URL. A server that is not here gets neither a token nor a CA of this inventory."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Any gitlab.rb setting: `gitlab_rails.time_zone = "UTC"` is gitlab_rails['time_zone'] = "UTC".

    A table without further tables is the value of its key, a hash; the keys of other tables are settings of their own.
    """

    @field_validator("api_address")
    @classmethod
    def _api_address(cls, text: str | None) -> str | None:
        if text is not None:
            check_address(text)
        return text

    @field_validator("users")
    @classmethod
    def _users(cls, users: dict[str, User]) -> dict[str, User]:
        addresses: dict[str, str] = {}
        for name, one in users.items():
            _check_path(name, _PART, "a user name")
            if addresses.setdefault(one.email.lower(), name) != name:
                raise InvalidValue(f"{addresses[one.email.lower()]} has this address, too", name, "email")
        return users

    @field_validator("groups")
    @classmethod
    def _groups(cls, groups: dict[str, Group]) -> dict[str, Group]:
        for path in groups:
            _check_path(path, rf"{_PART}(?:/{_PART})*", 'a group\'s path, such as "team/sub"')
        return groups

    @field_validator("servers")
    @classmethod
    def _servers(cls, servers: dict[str, Server]) -> dict[str, Server]:
        origins: dict[str, str] = {}
        for name in servers:
            try:
                origin = Url.parse(name, example="https://gitlab.example.org", path=False).origin
            except ValueError as error:
                raise InvalidValue(str(error), name) from None
            if origin in origins:
                raise InvalidValue(f"{origins[origin]} is the same server: keep one", name)
            origins[origin] = name
        return servers

    @model_validator(mode="after")
    def _other_servers(self) -> "Gitlab":
        for name in self.servers:
            if Url.parse(name).origin == self.external_url.origin:
                raise InvalidValue(
                    "is the server of gitlab.external_url: give gitlab.api_token and registry.certificate.ca instead",
                    "servers",
                    name,
                )
        return self

    @model_validator(mode="after")
    def _root_password(self) -> "Gitlab":
        if self.root_password is None:
            return self
        if not self.install:
            raise InvalidValue("only a GitLab that is installed here gets a first password", "root_password")
        rails = self.settings.get("gitlab_rails")
        for name in ("initial_root_password", "store_initial_root_password"):
            if isinstance(rails, dict) and name in rails:
                raise InvalidValue(
                    "goes with GitLab's generated password: remove it, or root_password",
                    "settings",
                    "gitlab_rails",
                    name,
                )
        return self

    def server(self, url: Url) -> Server | None:
        """The settings of another server by scheme, host and port; None when it is not among them."""
        return next((one for name, one in self.servers.items() if Url.parse(name).origin == url.origin), None)

    @field_validator("settings")
    @classmethod
    def _settings(cls, settings: dict[str, Any]) -> dict[str, Any]:
        for name, place in _ELSEWHERE.items():
            if name in settings:
                raise InvalidValue(f"is set by {place}: set it there", name)
        plain_data(settings)
        return settings


def _check_path(text: str, pattern: str, expected: str) -> None:
    if not re.fullmatch(pattern, text) or text.endswith((".git", ".atom")):
        raise InvalidValue(f"expected {expected} as GitLab allows it, got {text!r}", text)
