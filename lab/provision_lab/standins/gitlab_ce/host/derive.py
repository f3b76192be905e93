"""From what gitlab.rb assigns to what runs: sites, certificates, the registry. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from .gitlab_rb import Settings
from .versions import Version, nested_nginx

Table = dict[str, Any]


class ConfigurationError(Exception):
    """The settings are Ruby, and make no sense."""


@dataclass(frozen=True)
class Site:
    """One server of the front end."""

    url: str
    host: str
    path: str
    listen: tuple[str, ...]  # addresses
    port: int
    https: bool
    certificate: str
    key: str
    redirect_port: int | None  # plain HTTP that is sent to https
    max_body: str


@dataclass(frozen=True)
class Registry:
    """The registry behind its site. `storage` is written as it is."""

    site: Site | None  # None: registry['nginx']['enable'] is false
    address: str
    debug_address: str | None
    storage: Table
    storage_extras: Table  # omnibus's own `cache` and `delete`, where unset
    settings: Table
    env: dict[str, str]


@dataclass(frozen=True)
class Wanted:
    """What a reconfigure brings about."""

    external: Site
    front_end: bool
    registry: Registry | None
    letsencrypt: bool | None
    monitoring: list[str]
    root_password: str | None


def derive(settings: Settings, version: Version) -> Wanted:
    """What is to run. Raises ConfigurationError with omnibus's own words."""
    if not settings.get("external_url"):
        raise ConfigurationError("GitLab external URL must include a schema and FQDN, e.g. http://gitlab.example.com/")
    nginx = _moved(settings, "nginx", "gitlab_rails", version)
    rails = _table(settings, "gitlab_rails")
    external = _site(str(settings["external_url"]), nginx, "GitLab external URL", "external URL", "250m")
    return Wanted(
        external=external,
        front_end=_table(settings, "nginx").get("enable") is not False,
        registry=_registry(settings, version),
        letsencrypt=_table(settings, "letsencrypt").get("enable"),
        monitoring=list(rails.get("monitoring_whitelist") or ["127.0.0.0/8", "::1/128"]),
        root_password=rails.get("initial_root_password") or None,
    )


def _registry(settings: Settings, version: Version) -> Registry | None:
    url = settings.get("registry_external_url")
    own = _table(settings, "registry")
    if not url or own.get("enable") is False:
        return None
    nginx = _moved(settings, "registry_nginx", "registry", version)
    site = _site(str(url), nginx, "GitLab Container Registry external URL", "GitLab Registry external URL", "0")
    if site.path:
        raise ConfigurationError(f"Unsupported GitLab Registry external URL path: {site.path}")
    storage = own.get("storage") or {
        "filesystem": {"rootdirectory": "/var/opt/gitlab/gitlab-rails/shared/registry"},
    }
    deletes = own.get("storage_delete_enabled")
    extras = {"cache": {"blobdescriptor": "inmemory"}, "delete": {"enabled": True if deletes is None else deletes}}
    return Registry(
        site=site if nginx.get("enable") is not False else None,
        address=own.get("registry_http_addr") or "127.0.0.1:5000",
        debug_address=own.get("debug_addr"),
        storage=storage,
        storage_extras={key: value for key, value in extras.items() if not storage.get(key)},
        settings=own,
        env={str(key): str(value) for key, value in _table(own, "env").items()},
    )


def _site(url: str, nginx: Table, missing: str, unsupported: str, max_body: str) -> Site:
    parts = urlsplit(url)
    if not parts.hostname:
        raise ConfigurationError(f"{missing} must include a schema and FQDN, e.g. https://gitlab.example.com/")
    if parts.scheme not in ("http", "https"):
        raise ConfigurationError(f"Unsupported {unsupported} scheme: {parts.scheme}")
    default = 443 if parts.scheme == "https" else 80
    port = int(nginx.get("listen_port") or parts.port or default)
    https = bool(nginx.get("listen_https", nginx.get("https")) if _says_https(nginx) else parts.scheme == "https")
    redirect = nginx.get("redirect_http_to_https")
    return Site(
        url=url.rstrip("/"),
        host=parts.hostname,
        path=parts.path.rstrip("/"),
        listen=tuple(nginx.get("listen_addresses") or ["*"]),
        port=port,
        https=https,
        certificate=str(nginx.get("ssl_certificate") or f"/etc/gitlab/ssl/{parts.hostname}.crt"),
        key=str(nginx.get("ssl_certificate_key") or f"/etc/gitlab/ssl/{parts.hostname}.key"),
        redirect_port=int(nginx.get("redirect_http_to_https_port") or 80) if https and redirect else None,
        max_body=str(nginx.get("client_max_body_size") or max_body),
    )


def _says_https(nginx: Table) -> bool:
    return nginx.get("listen_https") is not None or nginx.get("https") is not None


def _moved(settings: Settings, old: str, owner: str, version: Version) -> Table:
    """The keys of `old[...]`, and from 19.2 those of `owner['nginx'][...]` over them, key by key."""
    keys = dict(_table(settings, old))
    if nested_nginx(version):
        keys |= _table(_table(settings, owner), "nginx")
    return keys


def _table(settings: Table, name: str) -> Table:
    value = settings.get(name)
    return value if isinstance(value, dict) else {}
