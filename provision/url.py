"""One parsed URL type for everything that is reached by HTTP: GitLab, its registry, S3, mirrors, APIs.

    url = Url.parse("https://[2001:db8::1]:5555/")
    url.host        "2001:db8::1"              for connecting, and for certificates
    url.authority   "[2001:db8::1]:5555"       for image names, docker login and /etc/docker/certs.d
    str(url)        "https://[2001:db8::1]:5555"

Sources: RFC 3986 (section 3.2.2: IPv6 addresses are in brackets), distribution/reference (registry names).
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
    from pydantic_core import CoreSchema

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_EXAMPLE: Final = "https://gitlab.example.com"
# Names that no public authority issues certificates for. Sources: RFC 6761 (and 2606), RFC 6762 with its appendix G,
# RFC 7686, RFC 8375, RFC 9476; localdomain is what installers put into /etc/hosts.
_PRIVATE_ENDINGS: Final = re.compile(
    r"(^|\.)(test|invalid|localhost|example|example\.(com|net|org)|local|localdomain|internal|intranet|private|corp|home"
    r"|lan|onion|arpa|alt)$"
)


@dataclass(frozen=True, repr=False)
class Url:
    """An http or https URL. Build it with `Url.parse`; two URLs are equal when they name the same place.

    scheme  "http" or "https"
    host    a name in lower case, or an IP address without brackets
    port    the given one, or the scheme's default
    path    "" or "/group/name", without a slash at its end
    text    as it was written, so that a file does not change when only the spelling differs
    """

    scheme: str
    host: str
    port: int
    path: str = ""
    query: str = ""
    text: str = field(default="", compare=False)

    @classmethod
    def parse(cls, text: str, *, example: str = _EXAMPLE, path: bool = True, request: bool = False) -> Url:
        """The URL in `text`.

        path     whether it may have a path
        request  whether it may be a whole request: with a query, and with a user

        Raises ValueError with a message that describes the expected form and shows `example`.
        """
        unusable = ValueError(f'expected a URL with its scheme, such as "{example}", got {text!r}')
        try:
            parts = urlsplit(text)
            port = parts.port
        except ValueError:
            raise unusable from None
        host = parts.hostname or ""
        if parts.scheme not in _DEFAULT_PORTS or not _is_host(host) or port == 0 or re.search(r"\s", text):
            raise unusable
        if not request and (parts.query or parts.fragment or "@" in parts.netloc):
            raise unusable
        if not path and parts.path.strip("/"):
            raise ValueError(f'expected a URL without a path, such as "{example}", got {text!r}')
        stripped = parts.path.rstrip("/")
        return cls(parts.scheme, host, port or _DEFAULT_PORTS[parts.scheme], stripped, parts.query, text)

    @property
    def tls(self) -> bool:
        """Whether the scheme is https."""
        return self.scheme == "https"

    @property
    def is_ip(self) -> bool:
        """Whether the host is an IP address: SNI cannot contain one, and certificates name it in a field of its own."""
        return is_ip(self.host)

    @property
    def is_ipv6(self) -> bool:
        """Whether the host is an IPv6 address."""
        return ":" in self.host

    @property
    def is_public(self) -> bool:
        """Whether a public authority may issue a certificate for the host: a DNS name that is not reserved for private use.

        Where the name leads is not asked.
        """
        name = self.host.rstrip(".")
        return not self.is_ip and "." in name and not _PRIVATE_ENDINGS.search(name)

    @property
    def bracketed_host(self) -> str:
        """The host as written in URLs: an IPv6 address is in brackets."""
        return bracketed(self.host)

    @property
    def loopback(self) -> str:
        """Where its own host answers: see the function of this name."""
        return loopback(self.host)

    @property
    def authority(self) -> str:
        """Host and port as written in image names: without the scheme's default port."""
        own = self.port == _DEFAULT_PORTS[self.scheme]
        return self.bracketed_host if own else self.netloc

    @property
    def netloc(self) -> str:
        """`host:port`, always with the port: for connecting."""
        return f"{self.bracketed_host}:{self.port}"

    @property
    def origin(self) -> str:
        """Scheme and authority, without the path."""
        return f"{self.scheme}://{self.authority}"

    def __str__(self) -> str:
        """As it was written, without slashes at its end."""
        return (self.text or f"{self.origin}{self.path}{'?' if self.query else ''}{self.query}").rstrip("/")

    def __repr__(self) -> str:
        return f"Url({str(self)!r})"

    def __truediv__(self, path: str) -> Url:
        """The URL of something below this one: `url / "v2/"`. The text keeps the slash at its end."""
        joined = f"{self}/{path.lstrip('/')}"
        return Url.parse(joined)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return UrlField().__get_pydantic_core_schema__(source, handler)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"type": "string"}


@dataclass(frozen=True)
class UrlField:
    """The URLs that a setting accepts: `external_url: Annotated[Url, UrlField("https://…", path=False)]`."""

    example: str = _EXAMPLE
    path: bool = True
    request: bool = False

    def parse(self, value: object) -> Url:
        """The URL in a setting's value. Raises ValueError as `Url.parse` does, and for values that are not strings."""
        if isinstance(value, Url):
            return value
        if not isinstance(value, str):
            raise ValueError(f'expected a URL as a string, such as "{self.example}"')
        return Url.parse(value, example=self.example, path=self.path, request=self.request)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        from pydantic_core import core_schema

        return core_schema.no_info_plain_validator_function(self.parse)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"type": "string"}


def bracketed(host: str) -> str:
    """A host as written in URLs and in `host:port`: an IPv6 address in brackets, anything else unchanged."""
    return f"[{host}]" if ":" in host else host


def loopback(host: str) -> str:
    """The loopback address, as `host:port` has it, of a server that is named by `host`, to ask it on its own host.

    A server that is named by an IPv6 address listens on IPv6, so it is asked there; every other one on IPv4.
    """
    return "[::1]" if ":" in host else "127.0.0.1"


def is_ip(host: str) -> bool:
    """Whether `host` is an IPv4 or IPv6 address, without brackets."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_host(host: str) -> bool:
    # Only an IPv6 address has colons here; one with a zone (fe80::1%eth0) is valid on one machine only.
    return bool(host) and (":" not in host or (is_ip(host) and "%" not in host))
