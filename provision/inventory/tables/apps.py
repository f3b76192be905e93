"""[[apps]]: containers that run on hosts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Protocol, Self

from pydantic import Field, field_validator, model_validator

from provision.image_name import parse
from provision.inventory.secrets import SecretSource
from provision.inventory.tables.base import InvalidValue, Table, check_different_names, check_each
from provision.inventory.tables.images import RegistryLogin
from provision.url import Url, UrlField

_PORT = re.compile(
    r"(?:(?P<address>\[[0-9A-Fa-f:]+\]|[0-9.]+):)?(?P<host>\d{1,5}):(?P<container>\d{1,5})(?:/(?P<protocol>tcp|udp))?"
)
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h))+")
_RESTART = re.compile(r"no|always|unless-stopped|on-failure(?::\d+)?")


class Place(Protocol):
    """A host, as far as `[[apps]] on` selects hosts."""

    @property
    def name(self) -> str: ...
    @property
    def groups(self) -> tuple[str, ...]: ...


@dataclass(frozen=True)
class PublishedPort:
    """A container's port, published on the host; `address` is "" for all addresses of the host."""

    address: str
    host: int
    container: int
    protocol: str

    @classmethod
    def parse(cls, text: str) -> PublishedPort:
        """`[ADDRESS:]HOST:CONTAINER[/udp]`. Raises ValueError."""
        parts = _PORT.fullmatch(text)
        ports = (int(parts["host"]), int(parts["container"])) if parts else (0, 0)
        if parts is None or not all(0 < port < 65536 for port in ports):
            raise ValueError(f'expected HOST:CONTAINER such as "5001:5000" or "127.0.0.1:5001:5000/udp", got {text!r}')
        return cls((parts["address"] or "").strip("[]"), *ports, parts["protocol"] or "tcp")


class Health(Table):
    """Docker's own health check of the container."""

    command: str = Field(min_length=1)
    """The command, run by a shell in the container. Exit code 0: healthy."""
    interval: str | None = None
    """Time between two checks: "30s"."""
    timeout: str | None = None
    """Time limit of one check: "5s"."""
    start_period: str | None = None
    """Time after the start in which failures are ignored: "10s"."""
    retries: int | None = Field(default=None, ge=1)
    """Number of consecutive failures until the container is unhealthy."""

    @field_validator("interval", "timeout", "start_period")
    @classmethod
    def _duration(cls, text: str | None) -> str | None:
        if text is not None and not _DURATION.fullmatch(text):
            raise ValueError(f'expected a duration such as "30s" or "1m30s", got {text!r}')
        return text


class Check(Table):
    """The test of a new container. If it fails, the previous container is restored."""

    url: Annotated[Url, UrlField("http://localhost:5001/", request=True)] | None = None
    """The URL to request on the host: http://localhost:5001/."""
    status: int = Field(default=200, ge=100, le=599)
    """The expected HTTP status."""
    contains: str | None = None
    """Text that the answer must contain."""
    command: tuple[str, ...] | None = None
    """Instead of `url`: a command to run in the container. Exit code 0: success."""
    seconds: int = Field(default=30, ge=1, le=3600)
    """Time limit after the start, in seconds."""

    @model_validator(mode="after")
    def _one(self) -> Check:
        if (self.url is None) == (self.command is None):
            raise InvalidValue("expected url or command, one of them", "url" if self.url is None else "command")
        if self.command == ():
            raise InvalidValue("expected a program and its arguments", "command")
        return self


class App(Table, name="apps", occurs="array"):
    """An app: a container, the same on each of its hosts."""

    name: str
    """The app's and its container's name."""
    image: str
    """The image with its tag, written as in [[images]]. Default tag: latest."""
    on: str = "runners"
    """The group or host that it runs on."""
    ports: tuple[str, ...] = ()
    """Ports to publish: HOST:CONTAINER, ADDRESS:HOST:CONTAINER, optionally with /udp."""
    environment: dict[str, Any] = Field(default_factory=dict)
    """Variables of the container: strings and secrets, each of one line."""
    volumes: tuple[str, ...] = ()
    """NAME:/path or /host/path:/path, optionally with :ro."""
    restart: str = "unless-stopped"
    """Docker's restart policy: no, always, unless-stopped, on-failure or on-failure:5."""
    command: tuple[str, ...] = ()
    """Replaces the image's command."""
    health: Health | None = None
    """Docker's health check. Default: the image's own."""
    check: Check | None = None
    """The test after the start. Default: the container runs, and is healthy if it has a health check."""
    login: RegistryLogin | None = None
    """The login to pull with. Default for your registry: registry.login."""
    token_server: Annotated[Url, UrlField("https://gitlab.example.org")] | None = None
    """The server to which the image's registry sends clients for tokens. Default: a known one, or the registry's own host."""
    pull: bool = True
    """false: the image is already on the host, built there with push = false."""

    @classmethod
    def check_all(cls, tables: Mapping[str | int, Self]) -> None:
        """Checks that names differ, since they are names of containers."""
        check_different_names("apps", {place: one.name for place, one in tables.items()})

    @field_validator("name")
    @classmethod
    def _name(cls, text: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{1,63}", text) or ".provision-" in text:
            raise ValueError(f"expected a container's name of 2 to 64 letters, digits, '_', '.' and '-', got {text!r}")
        return text

    @field_validator("image")
    @classmethod
    def _image(cls, text: str) -> str:
        parse(text)
        return text

    @field_validator("ports")
    @classmethod
    def _ports(cls, ports: tuple[str, ...]) -> tuple[str, ...]:
        for place, text in enumerate(ports):
            try:
                PublishedPort.parse(text)
            except ValueError as error:
                raise InvalidValue(str(error), place) from None
        return ports

    @field_validator("environment")
    @classmethod
    def _environment(cls, environment: dict[str, Any]) -> dict[str, Any]:
        for name, value in environment.items():
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]*", name):
                raise InvalidValue(f"expected a variable's name, got {name!r}", name)
            if not isinstance(value, str | SecretSource):
                raise InvalidValue(f"expected a string or a secret, got {value!r}", name)
            if isinstance(value, str) and ("\n" in value or "\0" in value):
                raise InvalidValue("expected one line: Docker's env files allow only one; mount a file instead", name)
        return environment

    @field_validator("volumes")
    @classmethod
    def _volumes(cls, volumes: tuple[str, ...]) -> tuple[str, ...]:
        pattern = r"(?:/[^:]*|[A-Za-z0-9][A-Za-z0-9_.-]+):/[^:]*(?::[A-Za-z,]+)?"
        check_each(volumes, pattern, '"NAME:/path" or "/host/path:/path", optionally with ":ro"')
        return volumes

    @field_validator("restart")
    @classmethod
    def _restart(cls, text: str) -> str:
        if not _RESTART.fullmatch(text):
            raise ValueError(f"expected no, always, unless-stopped, on-failure or on-failure:N, got {text!r}")
        return text

    @property
    def published(self) -> tuple[PublishedPort, ...]:
        """Its ports, parsed."""
        return tuple(map(PublishedPort.parse, self.ports))

    def runs_on(self, host: Place) -> bool:
        """Whether it runs on this host."""
        return self.on in ("all", host.name, *host.groups)
