"""The settings that a reconfigure refuses, or announces the removal of, by the version of the package.

Source: omnibus-gitlab, files/gitlab-cookbooks/package/libraries/deprecations.rb, at the tags 18.0.0, 18.2.0, 18.11.5, 19.0.0,
19.2.4 and 19.3.0. The notes of the real messages are left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .layout import Version

Settings = Mapping[str, Any]
Release = tuple[int, int]


def release(text: str) -> Release:
    """`19.3` as numbers."""
    major, minor = text.split(".")
    return int(major), int(minor)


@dataclass(frozen=True)
class Rule:
    """One setting: deprecated since, removed in; the releases of the package that have this rule.

    only       the rule is about this value alone; None: about any
    but        the rule is about each key of the table but these; None: about the setting itself
    shown      its name in messages; "" for the setting's own
    """

    path: tuple[str, ...]
    deprecated: Release
    removed: Release
    first: Release = (0, 0)
    until: Release = (99, 0)
    only: object = None
    but: tuple[str, ...] | None = None
    shown: str = ""


_BEFORE_18_1 = """
postgresql.data_dir 11.6 14.0
sidekiq.cluster 13.0 14.0
redis_slave_role 13.0 14.0
redis.client_output_buffer_limit_slave 13.0 14.0
gitlab_pages.http_proxy 13.1 14.0
praefect.failover_read_only_after_failover 13.3 14.0
geo_secondary.db_fdw 13.3 14.0
geo_postgresql.fdw_external_user 13.3 14.0
geo_postgresql.fdw_external_password 13.3 14.0
gitlab_rails.extra_piwik_site_id 13.7 14.0
gitlab_rails.extra_piwik_url 13.7 14.0
sidekiq_cluster.experimental_queue_selector 13.6 14.0
sidekiq.experimental_queue_selector 13.6 14.0
gitlab_rails.analytics_instance_statistics_count_job_trigger_worker_cron 13.10 14.0
gitlab_pages.domain_config_source 13.9 14.0
nginx.gzip 13.12 14.0
gitlab_pages.use_legacy_storage 14.0 14.3
gitlab_pages.daemon-inplace-chroot 14.4 15.0
praefect.database_host_no_proxy 14.0 15.0
praefect.database_port_no_proxy 14.0 15.0
gitlab_shell.custom_hooks_dir 14.3 15.0
actioncable.enable 14.5 15.0
gitaly.internal_socket_dir 14.10 15.0
gitlab_rails.object_store.connection.openstack_username 14.9 15.0
gitlab_rails.object_store.connection.rackspace_username 14.9 15.0
gitlab_rails.pseudonymizer_manifest 14.7 15.0
gitlab_rails.pseudonymizer_upload_remote_directory 14.7 15.0
gitlab_rails.pseudonymizer_upload_connection 14.7 15.0
gitlab_rails.pseudonymizer_worker_cron 14.7 15.0
gitlab_shell.http_settings.self_signed_cert 14.8 15.0
gitlab_rails.artifacts_object_store_direct_upload 14.9 15.0
gitlab_rails.artifacts_object_store_background_upload 14.9 15.0
gitlab_rails.external_diffs_object_store_direct_upload 14.9 15.0
gitlab_rails.external_diffs_object_store_background_upload 14.9 15.0
gitlab_rails.lfs_object_store_direct_upload 14.9 15.0
gitlab_rails.lfs_object_store_background_upload 14.9 15.0
gitlab_rails.uploads_object_store_direct_upload 14.9 15.0
gitlab_rails.uploads_object_store_background_upload 14.9 15.0
gitlab_rails.packages_object_store_direct_upload 14.9 15.0
gitlab_rails.packages_object_store_background_upload 14.9 15.0
gitlab_rails.dependency_proxy_object_store_direct_upload 14.9 15.0
gitlab_rails.dependency_proxy_object_store_background_upload 14.9 15.0
gitaly.cgroups_count 15.1 16.0
gitaly.cgroups_memory_enabled 15.1 16.0
gitaly.cgroups_memory_limit 15.1 16.0
gitaly.cgroups_cpu_enabled 15.1 16.0
gitaly.ruby_rugged_git_config_search_path 15.1 15.1
praefect.separate_database_metrics 15.5 16.0
gitlab_rails.enable_jemalloc 15.5 15.5
omnibus_gitconfig 16.10 17.0
"""
_OLD = (line.split() for line in _BEFORE_18_1.split("\n") if line)
RULES = (
    *(Rule(tuple(path.split(".")), release(since), release(gone), until=(18, 1)) for path, since, gone in _OLD),
    Rule(("unicorn",), (13, 10), (14, 0), until=(18, 1), but=("enable", "svlogd_prefix")),
    Rule(("repmgr",), (13, 3), (14, 0), until=(18, 1), but=("enable",)),
    Rule(("repmgrd",), (13, 3), (14, 0), until=(18, 1), but=("enable",)),
    *(
        Rule((name, "enable"), since, (14, 0), until=(18, 1), only=True, shown=f"{name}[enable]")
        for name, since in (("unicorn", (13, 10)), ("repmgr", (13, 3)), ("repmgrd", (13, 3)))
    ),
    Rule(("registry", "default_notifications_threshold"), (17, 1), (18, 0), until=(18, 1)),
    Rule(("registry", "default_notifications_threshold"), (17, 1), (23, 0), first=(18, 1)),
    Rule(("gitlab_shell", "migration"), (17, 4), (18, 0)),
    Rule(("git_data_dirs",), (17, 8), (18, 0)),
    Rule(("gitaly", "configuration", "git", "use_bundled_binaries"), (18, 3), (19, 0), first=(18, 3)),
    Rule(("gitaly", "configuration", "git", "bin_path"), (18, 3), (19, 0), first=(18, 3)),
    Rule(("spamcheck",), (19, 0), (19, 0), first=(18, 11)),
    Rule(("mattermost",), (19, 0), (19, 0), first=(19, 0), until=(19, 3)),
    Rule(("mattermost", "enable"), (19, 0), (19, 0), first=(18, 11), until=(19, 0), only=True, shown="mattermost"),
    Rule(("mattermost", "enable"), (19, 0), (19, 0), first=(19, 3), only=True, shown="mattermost"),
    Rule(("mattermost_external_url",), (19, 0), (20, 0), first=(18, 11)),
    Rule(("gitlab_exporter", "server_name"), (19, 3), (20, 0), first=(19, 3)),
)


def removals(settings: Settings, package: Version, incoming: Release | None = None) -> Iterator[str]:
    """A line for each setting that aborts a reconfigure of the package, or of the `incoming` release by its rules."""
    for rule in _rules(package):
        if rule.removed <= (incoming or package[:2]):
            for name in _found(settings, rule):
                yield f"* {name} has been deprecated since {_shown(rule.deprecated)} and was removed in {_shown(rule.removed)}."


def deprecations(settings: Settings, package: Version) -> Iterator[str]:
    """A line for each setting that a later release removes."""
    for rule in _rules(package):
        if rule.deprecated <= package[:2] < rule.removed:
            for name in _found(settings, rule):
                yield (
                    f"* {name} has been deprecated since {_shown(rule.deprecated)} and will be removed in "
                    f"{_shown(rule.removed)}."
                )


def _rules(package: Version) -> Iterator[Rule]:
    return (one for one in RULES if one.first <= package[:2] < one.until)


def _found(settings: Settings, rule: Rule) -> Iterator[str]:
    """The names of what a rule is about. nil and an empty table do not count."""
    value: Any = settings
    for key in rule.path:
        value = value.get(key) if isinstance(value, Mapping) else None
    if rule.but is not None:
        for key in value if isinstance(value, Mapping) else ():
            if key not in rule.but:
                yield _name((*rule.path, key))
    elif value is not None and value != {} and (rule.only is None or value is rule.only):
        yield rule.shown or _name(rule.path)


def _name(path: tuple[str, ...]) -> str:
    return path[0] + "".join(f"['{key}']" for key in path[1:])


def _shown(release: Release) -> str:
    return ".".join(map(str, release))
