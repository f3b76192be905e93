"""[proxy]: the HTTP proxy that hosts use."""

from __future__ import annotations

import ipaddress
import re

from pydantic import field_validator

from provision.inventory.secrets import SecretSource
from provision.inventory.tables.base import Table, check_each
from provision.secret import Secret, reveal
from provision.url import Url

# Programs on a host reach each other without the proxy.
_LOCAL = ("localhost", "127.0.0.1", "::1")


class Proxy(Table, optional=True):
    """The HTTP proxy between hosts and the internet. Without the table, what it wrote on hosts is removed again."""

    http: str | SecretSource = ""
    """For http URLs: "http://proxy.example.com:3128". With a user and a password in it, give it as a secret."""
    https: str | SecretSource = ""
    """For https URLs; usually the same. Default: the one of `http`."""
    no_proxy: tuple[str, ...] = ()
    """Names, domains (".example.com"), addresses and networks that are reached directly. The host itself always is."""

    @field_validator("http", "https")
    @classmethod
    def _url(cls, value: str | SecretSource) -> str | SecretSource:
        if isinstance(value, str) and value:
            _check(value)
        return value

    @field_validator("no_proxy")
    @classmethod
    def _names(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        check_each(names, r"[A-Za-z0-9_.:*/\[\]-]+", "a name, a domain, an address or a network")
        return names

    @property
    def is_set(self) -> bool:
        """Whether there is a proxy at all."""
        return bool(self.http or self.https)

    def address(self, scheme: str) -> str | Secret:
        """The proxy for "http" or "https" URLs; "" for none. Raises ValueError for a secret that is no URL."""
        value = self.https or self.http if scheme == "https" else self.http
        if isinstance(value, SecretSource):
            secret = value.resolve()
            if secret.reveal():
                _check(secret.reveal(), shown=False)
            return secret
        return value

    @property
    def exceptions(self) -> str:
        """The value of the variable no_proxy."""
        return ",".join(dict.fromkeys((*_LOCAL, *self.no_proxy)))

    def spares(self, host: str) -> bool:
        """Whether a host is reached directly."""
        return any(_matches(host.lower(), name.lower()) for name in (*_LOCAL, *self.no_proxy))

    def variables(self) -> dict[str, str | Secret]:
        """The environment variables for programs, in small letters; GitLab and curl read http_proxy in no other way."""
        found = {f"{scheme}_proxy": self.address(scheme) for scheme in ("http", "https")}
        return {**{name: value for name, value in found.items() if reveal(value)}, "no_proxy": self.exceptions}

    def for_curl(self, scheme: str) -> str | Secret:
        """A configuration for `curl -K -`, which a secret reaches on standard input."""
        address = self.address(scheme)
        if not reveal(address):
            return ""
        text = f'proxy = "{reveal(address)}"\nnoproxy = "{self.exceptions}"\n'
        return Secret(text) if isinstance(address, Secret) else text


def _check(text: str, *, shown: bool = True) -> None:
    problem = ""
    try:
        Url.parse(text, example="http://proxy.example.com:3128", request=True)
    except ValueError as error:
        problem = str(error)
    if not problem and re.search(r"[\"'`$\\\x00-\x20\x7f]", text):
        problem = "a proxy's URL must not contain quotes, spaces, $ or backslashes: encode them as %XX"
    if problem:
        raise ValueError(problem if shown else "the secret is not the URL of a proxy: http://proxy.example.com:3128")
    if shown and "@" in text:
        raise ValueError('the URL contains a login: give it as a secret, such as { env = "PROXY_URL" }')


def _matches(host: str, name: str) -> bool:
    if "/" in name:
        try:
            return ipaddress.ip_address(host) in ipaddress.ip_network(name, strict=False)
        except ValueError:
            return False
    bare = name.removeprefix("*").removeprefix(".")
    return name == "*" or host == bare or host.endswith(f".{bare}")
