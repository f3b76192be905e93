"""gitlab.rb: evaluated by real Ruby, and turned into what runs.

Unknown top-level names are refused, nested keys are free.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Iterator, Mapping
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


# From 19.2 on, these settings of the application's front end are below gitlab_rails.
# Source: omnibus-gitlab, nginx/libraries/helpers/nginx_helper.rb, client_default_values.
_OF_CLIENTS = {
    *("client_max_body_size", "custom_gitlab_server_config", "error_log_level", "http2_enabled", "listen_addresses"),
    *("listen_https", "listen_port", "proxy_set_headers", "redirect_http_to_https", "redirect_http_to_https_port"),
    *("ssl_certificate", "ssl_certificate_key", "ssl_ciphers", "ssl_protocols", "ssl_session_cache"),
}


def moved_nginx(settings: Settings, version: Version) -> Iterator[str]:
    """A line for each setting of the front end that has another name since 19.2.

    Source: omnibus-gitlab, gitlab/libraries/gitlab_rails.rb, translate_client_settings; nginx/libraries/nginx.rb.
    """
    if not nested_nginx(version):
        return
    for key in settings.get("nginx") or {}:
        if key in _OF_CLIENTS:
            yield f"nginx['{key}'] has been deprecated. Please use gitlab_rails['nginx']['{key}'] instead."
    if settings.get("registry_nginx"):
        yield "registry_nginx has been deprecated. Please use registry['nginx'] instead."


def locale_warnings(environment: Mapping[str, str]) -> Iterator[str]:
    """A line for each variable with another encoding than UTF-8. LC_ALL decides alone.

    Source: omnibus-gitlab, package/libraries/omnibus_helper.rb, check_locale.
    """

    def bad(name: str) -> bool:
        return not any(one in environment[name].lower() for one in ("utf-8", "utf8"))

    given = [one for one in ("LC_CTYPE", "LC_COLLATE") if environment.get(one)]
    names = (
        ["LC_ALL"]
        if environment.get("LC_ALL")
        else [*given, *(["LANG"] if environment.get("LANG") and len(given) < 2 else [])]
    )
    for name in filter(bad, names):
        yield (
            f"Environment variable {name} specifies a non-UTF-8 locale. GitLab requires UTF-8 encoding to function "
            "properly. Please check your locale settings."
        )


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
    database: Table  # of config.yml
    overridden: bool = False  # it prefers a database, and GitLab's PostgreSQL is off

    @property
    def metadata(self) -> str:
        """Whether it uses a metadata database: true, false, or prefer. Lock files in its storage decide then."""
        enabled = str(self.database.get("enabled", False)).lower()
        return enabled if enabled in ("true", "prefer") else "false"


@dataclass(frozen=True)
class Wanted:
    """The state that a reconfigure applies."""

    external: Site
    front_end: bool
    registry: Registry | None
    letsencrypt: Table
    monitoring: list[str]
    root_password: str | None
    services: tuple[str, ...]  # of those that run on a host of its own, without the front end and the registry
    rails: str  # identifies the values of gitlab_rails, which are in gitlab.yml: a change of any restarts Puma
    letsencrypt_enabled: bool = False


def derive(settings: Settings, version: Version) -> Wanted:
    """The state that these settings ask for. Raises ConfigurationError with omnibus's own message."""
    if not settings.get("external_url"):
        raise ConfigurationError("GitLab external URL must include a schema and FQDN, e.g. http://gitlab.example.com/")
    nginx = _moved(settings, "nginx", "gitlab_rails", version)
    rails = _table(settings, "gitlab_rails")
    password = os.environ.get("GITLAB_ROOT_PASSWORD") or rails.get("initial_root_password") or None
    if password and len(password) < 8:
        raise ConfigurationError("initial_root_password: Length is too short, minimum is 8 characters")
    external = _site(str(settings["external_url"]), nginx, "GitLab external URL", "external URL", "250m")
    return Wanted(
        external=external,
        front_end=_table(settings, "nginx").get("enable") is not False,
        registry=_registry(settings, version),
        letsencrypt=_table(settings, "letsencrypt"),
        monitoring=list(rails.get("monitoring_whitelist") or ["127.0.0.0/8", "::1/128"]),
        root_password=password,
        services=tuple(_services(settings)),
        rails=hashlib.sha256(json.dumps(rails, sort_keys=True).encode()).hexdigest(),
    )


MONITORING = (
    *("alertmanager", "gitlab-exporter", "node-exporter", "postgres-exporter", "prometheus", "redis-exporter"),
)
IDLE = (*("gitaly", "gitlab-kas", "gitlab-workhorse", "logrotate", "postgresql", "redis", "sidekiq", *MONITORING),)


def _services(settings: Settings) -> Iterator[str]:
    """What runs besides nginx, puma and the registry: 13 by default, so 16 services with these three.

    Sources: omnibus-gitlab, package/libraries/config/services.rb: the default group; gitlab/recipes/default.rb: crond for
    Let's Encrypt's renewals and reindexing; gitlab/libraries/incoming_email.rb; gitlab-pages/libraries/gitlab_pages.rb.
    """
    monitoring = _table(settings, "prometheus_monitoring").get("enable") is not False
    for name in IDLE:
        if _table(settings, name.replace("-", "_")).get("enable") is not False and (
            monitoring or name not in MONITORING
        ):
            yield name
    letsencrypt, rails = _table(settings, "letsencrypt"), _table(settings, "gitlab_rails")
    if (letsencrypt.get("enable") and renews(letsencrypt)) or _table(rails, "database_reindexing").get("enable"):
        yield "crond"
    asked = {
        "mailroom": rails.get("incoming_email_enabled") or rails.get("service_desk_email_enabled"),
        "gitlab-pages": settings.get("pages_external_url"),
    }
    for name, default in asked.items():
        enable = _table(settings, name.replace("-", "_")).get("enable")
        if default if enable is None else enable:
            yield name


def renews(letsencrypt: Table) -> bool:
    """Whether certificates of Let's Encrypt are renewed by themselves, which crond does."""
    return letsencrypt.get("auto_renew") is not False


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
    database, overridden = _database(settings, version)
    return Registry(
        site=site if nginx.get("enable") is not False else None,
        address=own.get("registry_http_addr") or "127.0.0.1:5000",
        debug_address=own.get("debug_addr"),
        storage=storage,
        storage_extras={key: value for key, value in extras.items() if not storage.get(key)},
        settings=own,
        env={str(key): str(value) for key, value in _table(own, "env").items()},
        database=database,
        overridden=overridden,
    )


def _database(settings: Settings, version: Version) -> tuple[Table, bool]:
    """The registry's `database`, and whether "prefer" was overridden. 19.0 made "prefer" the default.

    Sources: omnibus-gitlab, registry/attributes/default.rb; gitlab/libraries/registry.rb, parse_database_configuration.
    """
    own = _table(_table(settings, "registry"), "database")
    if version < (19, 0, 0):
        return own, False
    host = _table(settings, "postgresql").get("listen_address") or "/var/opt/gitlab/postgresql"
    defaults = {
        "enabled": "prefer",
        "user": "registry",
        "dbname": "registry",
        "port": 5432,
        "sslmode": "prefer",
        "host": host,
    }
    table = defaults | {key: value for key, value in own.items() if value is not None}
    if table["enabled"] == "prefer" and _table(settings, "postgresql").get("enable") is False:
        return {**table, "enabled": "false"}, True
    return table, False


def metadata_warnings(wanted: Wanted) -> Iterator[str]:
    """Source: omnibus-gitlab, registry/recipes/enable.rb."""
    if wanted.registry and wanted.registry.overridden:
        yield (
            "Registry database mode is set to 'prefer', but GitLab-managed PostgreSQL is disabled. The registry will be "
            "configure to use filesystem metadata instead of the database."
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
