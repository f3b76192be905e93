"""[gitlab]: the server itself."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from provision.inventory.secrets import SecretSource
from provision.inventory.tables.base import InvalidValue, Table, plain_data, version
from provision.inventory.tables.host import check_address
from provision.url import Url, UrlField

_ELSEWHERE = {"external_url": "[gitlab] external_url", "registry_external_url": "[registry] external_url"}


class Gitlab(Table):
    """The GitLab server: its package, its URL, and its gitlab.rb."""

    external_url: Annotated[Url, UrlField("https://gitlab.example.com")]
    """The URL of GitLab: scheme and host, optionally a port and a path."""
    edition: Literal["ce", "ee"] = "ce"
    """The package: gitlab-ce or gitlab-ee."""
    version: str | None = None
    """The version to hold, such as "19.3.0". Default: the newest at installation, then the installed one."""
    install: bool = True
    """false: GitLab must have been installed by other means."""
    api_token: SecretSource | None = None
    """A token for GitLab's API, with scope api, or create_runner if it only creates runners (a secret)."""
    api_address: str | None = None
    """The name or address that this program connects to for GitLab's API. Default: where the URL's name leads."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Any gitlab.rb setting: `gitlab_rails.time_zone = "UTC"` is gitlab_rails['time_zone'] = "UTC"."""

    @field_validator("version")
    @classmethod
    def _version(cls, text: str | None) -> str | None:
        return version(text)

    @field_validator("api_address")
    @classmethod
    def _api_address(cls, text: str | None) -> str | None:
        if text is not None:
            check_address(text)
        return text

    @field_validator("settings")
    @classmethod
    def _settings(cls, settings: dict[str, Any]) -> dict[str, Any]:
        for name, place in _ELSEWHERE.items():
            if name in settings:
                raise InvalidValue(f"is set by {place}: set it there", name)
        plain_data(settings)
        return settings
