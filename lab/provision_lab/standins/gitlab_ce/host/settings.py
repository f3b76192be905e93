"""gitlab.rb: evaluated by real Ruby, checked for removed settings, and turned into what runs.

Unknown top-level names are refused, nested keys are free.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from .layout import Version, nested_nginx

Settings = dict[str, Any]

RUBY = "/opt/gitlab/embedded/bin/ruby"
EVALUATOR = Path(__file__).resolve().parent.parent / "rb/evaluate.rb"


class EvaluationError(Exception):
    """gitlab.rb cannot be evaluated: `kind` is the class of Ruby's error, `line` its line in the file (or None)."""

    def __init__(self, kind: str, message: str, line: int | None) -> None:
        super().__init__(message)
        self.kind = kind
        self.line = line


def evaluate(path: Path, *, ruby: str = RUBY, evaluator: Path = EVALUATOR) -> Settings:
    """Everything that the file assigns. Raises EvaluationError."""
    reading, writing = os.pipe()
    with subprocess.Popen(
        [ruby, "--disable=gems", str(evaluator), str(path), str(writing)], pass_fds=[writing]
    ) as process:
        os.close(writing)
        with os.fdopen(reading) as answers:
            text = answers.read()
    if not text:
        raise EvaluationError("SystemExit", f"{path} ended Ruby with status {process.returncode}", None)
    answer = json.loads(text)
    if "error" in answer:
        error = answer["error"]
        raise EvaluationError(error["class"], error["message"], error["line"])
    settings: Settings = answer["settings"]
    return settings


@dataclass(frozen=True)
class Gone:
    """A removed setting: deprecated since, removed in, and what to use.

    key, only  the key of the setting that is gone, "" for all; the value that is refused, None for any
    """

    name: str
    deprecated: str
    removed: tuple[int, int]
    note: str
    key: str = ""
    only: object = None


REMOVED = (
    Gone("unicorn", "13.10", (14, 0), "Starting with GitLab 14.0, Unicorn is no longer supported: use Puma."),
    Gone("repmgr", "13.3", (14, 0), "Repmgr is no longer supported: use Patroni."),
    Gone("grafana", "16.0", (16, 3), "The bundled Grafana is gone: run your own."),
    Gone("git_data_dirs", "17.8", (18, 0), "Use gitaly['configuration'][:storage] instead."),
    Gone("gitlab_shell", "17.0", (18, 0), "The migration to the Go shell is complete.", "migration"),
    Gone("spamcheck", "18.0", (19, 0), "Spamcheck is no longer bundled."),
    Gone("mattermost", "18.11", (19, 0), "The bundled Mattermost is gone: migrate to your own.", "enable", True),
    Gone("mattermost_external_url", "18.11", (20, 0), "The bundled Mattermost is gone: migrate to your own."),
)

# From 19.2 on, the settings of the front end are below the service that they belong to.
MOVED = {"registry_nginx": "registry['nginx']", "nginx": "gitlab_rails['nginx']"}
_STILL_NGINX = {
    *("enable", "dir", "log_directory", "log_group", "worker_processes", "worker_connections", "log_format"),
    *("gzip_enabled", "custom_nginx_config", "keepalive_timeout", "sendfile", "status", "proxy_cache"),
}


def removals(settings: Settings, version: Version) -> Iterator[str]:
    """A line for each removed setting. Such a setting aborts a reconfigure."""
    for gone in REMOVED:
        if gone.name not in settings or version[:2] < gone.removed:
            continue
        value = settings[gone.name]
        if gone.key:
            found = (value or {}).get(gone.key)
            value = {gone.key: found} if found is not None and gone.only in (None, found) else {}
            if not value:
                continue
        for key in _keys(gone.name, value):
            removed = ".".join(str(part) for part in gone.removed)
            yield f"* {key} has been deprecated since {gone.deprecated} and was removed in {removed}. {gone.note}"


def deprecations(settings: Settings, version: Version) -> Iterator[str]:
    """A line for each setting that a later version removes. Source: the templates of 19.3."""
    if version < (19, 2, 0):
        return
    for name, instead in MOVED.items():
        for key in settings.get(name) or {}:
            if name == "nginx" and key in _STILL_NGINX:
                continue
            yield (
                f"* {name}['{key}'] has been deprecated since 19.2 and will be removed in 20.0. "
                f"Use {instead}['{key}'] instead."
            )


def _keys(name: str, value: object) -> list[str]:
    if isinstance(value, dict) and value:
        return [f"{name}['{key}']" for key in value]
    return [name]


Table = dict[str, Any]


class ConfigurationError(Exception):
    """The settings can be evaluated, but are invalid."""


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
    redirect_port: int | None  # a port of plain HTTP that redirects to https
    max_body: str


@dataclass(frozen=True)
class Registry:
    """The registry behind its site. `storage` is written unchanged."""

    site: Site | None  # None: registry['nginx']['enable'] is false
    address: str
    debug_address: str | None
    storage: Table
    storage_extras: Table  # omnibus's own `cache` and `delete`, where unset
    settings: Table
    env: dict[str, str]


@dataclass(frozen=True)
class Wanted:
    """The state that a reconfigure applies."""

    external: Site
    front_end: bool
    registry: Registry | None
    letsencrypt: bool | None
    monitoring: list[str]
    root_password: str | None


def derive(settings: Settings, version: Version) -> Wanted:
    """The state that these settings ask for. Raises ConfigurationError with omnibus's own message."""
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
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname  # as Ruby's URI has it
    if not host:
        raise ConfigurationError(f"{missing} must include a schema and FQDN, e.g. https://gitlab.example.com/")
    if parts.scheme not in ("http", "https"):
        raise ConfigurationError(f"Unsupported {unsupported} scheme: {parts.scheme}")
    default = 443 if parts.scheme == "https" else 80
    port = int(nginx.get("listen_port") or parts.port or default)
    https = bool(nginx.get("listen_https", nginx.get("https")) if _sets_https(nginx) else parts.scheme == "https")
    redirect = nginx.get("redirect_http_to_https")
    return Site(
        url=url.rstrip("/"),
        host=host,
        path=parts.path.rstrip("/"),
        listen=tuple(nginx.get("listen_addresses") or ["*"]),
        port=port,
        https=https,
        certificate=str(nginx.get("ssl_certificate") or f"/etc/gitlab/ssl/{host}.crt"),
        key=str(nginx.get("ssl_certificate_key") or f"/etc/gitlab/ssl/{host}.key"),
        redirect_port=int(nginx.get("redirect_http_to_https_port") or 80) if https and redirect else None,
        max_body=str(nginx.get("client_max_body_size") or max_body),
    )


def _sets_https(nginx: Table) -> bool:
    return nginx.get("listen_https") is not None or nginx.get("https") is not None


def _moved(settings: Settings, old: str, owner: str, version: Version) -> Table:
    """The keys of `old[...]`, overridden from 19.2 on by those of `owner['nginx'][...]`."""
    keys = dict(_table(settings, old))
    if nested_nginx(version):
        keys |= _table(_table(settings, owner), "nginx")
    return keys


def _table(settings: Table, name: str) -> Table:
    value = settings.get(name)
    return value if isinstance(value, dict) else {}
