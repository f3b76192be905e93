"""[runner]: the gitlab-runner program, and config.toml's top-level keys."""

from typing import Any, Literal

from pydantic import Field, field_validator

from provision.inventory.models.base import Table, plain_data, version
from provision.inventory.secrets import SecretSource


class RunnerProgram(Table):
    """The gitlab-runner program: its version, and config.toml's top-level keys. Absent keys are left as they are."""

    version: str | None = None
    """The version to hold, such as "19.3.0". Default: the newest when installed, then what is there."""
    concurrent: int | None = Field(default=None, ge=1)
    """Jobs at once on this host, over all its runners."""
    check_interval: int | None = Field(default=None, ge=0)
    """Seconds between two questions for jobs; 0: the program's default, 3."""
    log_level: Literal["debug", "info", "warn", "error", "fatal", "panic"] | None = None
    """What the program logs."""
    log_format: Literal["runner", "text", "json"] | None = None
    """How it logs."""
    listen_address: str | None = None
    """HOST:PORT for Prometheus. A change needs a restart of the program."""
    sentry_dsn: SecretSource | None = None
    """Where errors are reported (a secret)."""
    connection_max_age: str | None = None
    """How long a connection to GitLab is kept: "15m0s"."""
    shutdown_timeout: int | None = Field(default=None, ge=0)
    """Seconds until a forced shutdown."""
    session_server: dict[str, Any] | None = None
    """Interactive web terminals: listen_address, advertise_address, session_timeout."""
    experimental: dict[str, Any] | None = None
    """Whatever the program calls experimental."""

    @property
    def config(self) -> dict[str, Any]:
        """config.toml's top-level keys as given, without `version`; secrets are SecretSource: see `resolve`."""
        given = self.model_fields_set - {"version"}
        return {name: getattr(self, name) for name in type(self).model_fields if name in given}

    @field_validator("version")
    @classmethod
    def _version(cls, text: str | None) -> str | None:
        return version(text)

    @field_validator("session_server", "experimental")
    @classmethod
    def _plain(cls, table: dict[str, Any] | None) -> dict[str, Any] | None:
        plain_data(table or {})
        return table
