"""The keys that the program knows: what files hold besides is lost when it rewrites one.

KNOWN   key below [[runners]] -> its kind, in the order of the flags that set them
ORDER   keys whose place in a written file is known otherwise
ALWAYS  keys that are written even when they are zero
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

FLAGS_FILE = Path(__file__).with_name("flags.tsv")


class Flag(NamedTuple):
    """A flag of `register`: its spellings, its twin in the environment, its kind, its key below [[runners]]."""

    names: tuple[str, ...]
    env: str
    kind: str  # text, flag, number, texts, table
    key: str
    optional: bool = False  # written whenever it is set, zero or not


def flags() -> list[Flag]:
    """All flags of `register`, as listed in flags.tsv."""
    rows = [line.split("\t") for line in FLAGS_FILE.read_text().splitlines()[1:]]
    return [
        Flag(tuple(names.split()), env, kind.rstrip("?"), key, kind.endswith("?")) for names, env, kind, key in rows
    ]


KINDS = {flag.key: flag.kind for flag in flags() if flag.key}
OPTIONAL = {flag.key for flag in flags() if flag.optional}

TOP = {
    "concurrent": "number",
    "check_interval": "number",
    "log_level": "text",
    "log_format": "text",
    "user": "text",
    "connection_max_age": "text",
    "listen_address": "text",
    "sentry_dsn": "text",
    "shutdown_timeout": "number",
    "session_server": "table",
    "runners": "tables",
    "experimental": "table",
    "machine": "table",
    "labels": "table",
}
SESSION = {"session_timeout": "number", "listen_address": "text", "advertise_address": "text"}
ORDER = (
    *("name", "limit", "output_limit", "request_concurrency", "url", "id", "token", "token_obtained_at"),
    *("token_expires_at", "tls-ca-file", "tls-cert-file", "tls-key-file", "executor"),
    *("custom_build_dir", "cache", "feature_flags", "docker"),
)
TABLES = ("custom_build_dir", "cache", "feature_flags", "docker")  # these come after all other keys
RUNNER_MORE = {  # known, and not settable by one of the flags above
    "id": "number",
    "token_obtained_at": "time",
    "token_expires_at": "time",
    "labels": "table",
    "docker.services": "tables",
    "cache.s3.RoleARN": "text",
    "cache.gcs": "table",
    "cache.azure": "table",
    **dict.fromkeys(("kubernetes", "machine", "ssh", "custom", "parallels", "virtualbox", "autoscaler"), "table"),
    **dict.fromkeys(("instance", "referees", "pre_clone_script", "debug_trace_disabled", "system_id"), "table"),
}
RUNNER_MORE |= {"pre_clone_script": "text", "debug_trace_disabled": "flag", "system_id": "text"}
KNOWN = KINDS | RUNNER_MORE
ALWAYS = {
    "concurrent": 1,
    "check_interval": 0,
    "connection_max_age": "15m0s",
    "shutdown_timeout": 0,
}
ALWAYS_RUNNER = {"name": "", "url": "", "id": 0, "token": "", "executor": ""}
ALWAYS_CACHE = {"MaxUploadedArchiveSize": 0, "s3": {"AssumeRoleMaxConcurrency": 0}, "gcs": {}, "azure": {}}
ALWAYS_DOCKER = {
    "tls_verify": False,
    "image": "",
    "privileged": False,
    "disable_entrypoint_overwrite": False,
    "oom_kill_disable": False,
    "disable_cache": False,
    "volume_keep": False,
    "shm_size": 0,
    "network_mtu": 0,
}
EXECUTORS = (
    *("custom", "docker", "docker+machine", "docker-autoscaler", "docker-windows", "instance", "kubernetes"),
    *("parallels", "shell", "ssh", "virtualbox"),
)
