"""Settings that a version refuses, and those it still takes with a notice."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .gitlab_rb import Settings
from .versions import Version


@dataclass(frozen=True)
class Gone:
    """A top-level name that left the package: deprecated since, removed in, and what to do."""

    name: str
    deprecated: str
    removed: tuple[int, int]
    note: str


REMOVED = (
    Gone("unicorn", "13.10", (14, 0), "Starting with GitLab 14.0, Unicorn is no longer supported: use Puma."),
    Gone("repmgr", "13.3", (14, 0), "Repmgr is no longer supported: use Patroni."),
    Gone("grafana", "16.0", (16, 3), "The bundled Grafana is gone: run your own."),
    Gone("git_data_dirs", "17.8", (18, 0), "Use gitaly['configuration'][:storage] instead."),
    Gone("mattermost", "18.11", (19, 0), "The bundled Mattermost is gone: migrate to your own."),
    Gone("mattermost_external_url", "18.11", (19, 0), "The bundled Mattermost is gone: migrate to your own."),
)

# From 19.2 the front-end's settings stand under the service they belong to.
MOVED = {"registry_nginx": "registry['nginx']", "nginx": "gitlab_rails['nginx']"}
_STILL_NGINX = {
    *("enable", "dir", "log_directory", "log_group", "worker_processes", "worker_connections", "log_format"),
    *("gzip_enabled", "custom_nginx_config", "keepalive_timeout", "sendfile", "status", "proxy_cache"),
}


def removals(settings: Settings, version: Version) -> Iterator[str]:
    """A line for each setting that aborts a reconfigure."""
    for gone in REMOVED:
        if gone.name not in settings or version[:2] < gone.removed:
            continue
        value = settings[gone.name]
        for key in _keys(gone.name, value):
            removed = ".".join(str(part) for part in gone.removed)
            yield f"* {key} has been deprecated since {gone.deprecated} and was removed in {removed}. {gone.note}"


def deprecations(settings: Settings, version: Version) -> Iterator[str]:
    """A line for each setting that works today and will not for ever. Source: the templates of 19.3."""
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
