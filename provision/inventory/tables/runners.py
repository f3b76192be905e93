"""[runner]: the gitlab-runner program, and config.toml's top-level keys. [[runners]]: the runners, one table each.

Source: gitlab-runner 19.3.0, the flags of `register` and common/config.go.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, field_validator, model_validator

from provision.inventory.secrets import SecretSource
from provision.inventory.tables.base import (
    InvalidValue,
    InvalidValues,
    PackageVersion,
    Table,
    check_different_names,
    fields_of,
    plain_data,
)
from provision.inventory.tables.runner_keys import EXTRA, KeysOf, known_in_extra
from provision.url import Url, UrlField

Free = dict[str, Any]


class _Written(Table):
    """A table that is written to config.toml. It has a field `extra`, for further keys."""

    def _given(self, names: Iterable[str]) -> dict[str, Any]:
        """The values of these fields as config.toml has them, where they are given. Tuples are lists again."""
        found: dict[str, Any] = {}
        for name in names:
            if name in self.model_fields_set - {EXTRA}:
                value = getattr(self, name)
                value = str(value) if isinstance(value, Url) else value
                found[type(self).model_fields[name].alias or name] = list(value) if isinstance(value, tuple) else value
        return found

    @field_validator(EXTRA, check_fields=False)
    @classmethod
    def _extra(cls, extra: Free | None) -> Free | None:
        if problems := known_in_extra(fields_of(cls), extra or {}):
            raise InvalidValues(problems)
        plain_data(extra or {})
        return extra


class RunnerProgram(_Written, name="runner"):
    """The gitlab-runner program: its version, and config.toml's top-level keys. Absent keys are unchanged."""

    version: PackageVersion = None
    """The version to hold, such as "19.3.0". Default: the newest at installation, then the installed one."""
    concurrent: int | None = Field(default=None, ge=1)
    """Number of concurrent jobs on this host, over all its runners."""
    check_interval: int | None = Field(default=None, ge=0)
    """Seconds between two requests for jobs; 0: the program's default, 3."""
    log_level: Literal["debug", "info", "warn", "error", "fatal", "panic"] | None = None
    """The lowest level that is logged."""
    log_format: Literal["runner", "text", "json"] | None = None
    """The format of the log."""
    listen_address: str | None = None
    """HOST:PORT for Prometheus. A change requires a restart of the program."""
    sentry_dsn: SecretSource | None = None
    """The Sentry server that errors are sent to (a secret)."""
    connection_max_age: str | None = None
    """The maximum age of a connection to GitLab: "15m0s"."""
    shutdown_timeout: int | None = Field(default=None, ge=0)
    """Seconds after which a shutdown is forced."""
    session_server: Annotated[Free, KeysOf("session_server")] | None = None
    """Interactive web terminals: listen_address, advertise_address, session_timeout."""
    experimental: Annotated[Free, KeysOf("program_experimental")] | None = None
    """Experimental settings of the program."""
    extra: Free | None = None
    """Further top-level keys, written unchecked: for a gitlab-runner that is newer than this program."""

    @property
    def config(self) -> dict[str, Any]:
        """The top-level keys for config.toml, as given; secrets are SecretSource: see `resolve`."""
        return self._given(name for name in type(self).model_fields if name != "version") | (self.extra or {})


# The keys of a runner that are not written to config.toml. They are in the class of those that are: pydantic builds a class
# when it is imported, and one of 50 keys takes it 3 ms in each run.
_REGISTRATION: Final = frozenset(
    {
        *("token", "registration_token", "tags", "run_untagged", "locked", "paused", "access_level", "maximum_timeout"),
        *("maintenance_note", "runner_type", "group", "project"),
    }
)


class Runner(_Written, name="runners", occurs="array"):
    """One runner: the keys of config.toml, and its registration.

    With `token` it exists in GitLab already; with `registration_token` it is registered in the legacy way; with neither it
    is created through the API (gitlab.api_token). The tables below it have gitlab-runner's own keys.
    """

    name: str = Field(min_length=1)
    """The runner's description; unique in the inventory."""
    executor: Literal[
        "docker",
        "docker+machine",
        "docker-autoscaler",
        "docker-windows",
        "instance",
        "kubernetes",
        "custom",
        "shell",
        "ssh",
        "parallels",
        "virtualbox",
    ]
    """The executor that runs the jobs."""
    url: Annotated[Url, UrlField("https://gitlab.example.com")] | None = None
    """The GitLab server of the runner. Default: gitlab.external_url."""
    limit: int | None = Field(default=None, ge=0)
    """Number of concurrent jobs of this runner; 0: limited only by `concurrent`."""
    request_concurrency: int | None = Field(default=None, ge=0)
    """Number of concurrent requests for jobs."""
    output_limit: int | None = Field(default=None, ge=0)
    """Maximum size of a job's log in KiB."""
    strict_check_interval: bool | None = None
    """Wait check_interval even if more jobs are available."""
    unhealthy_requests_limit: int | None = Field(default=None, ge=0)
    """Number of failed requests until the runner is disabled for unhealthy_interval."""
    unhealthy_interval: str | None = None
    """Time for which an unhealthy runner is disabled: "120s"."""
    job_status_final_update_retry_limit: int | None = Field(default=None, ge=0)
    """Number of attempts to report a job's end to GitLab."""
    tls_ca_file: str | None = Field(default=None, alias="tls-ca-file")
    """Path on the host: the CA that GitLab's certificate is checked with. Default: registry.certificate.ca, if any."""
    tls_cert_file: str | None = Field(default=None, alias="tls-cert-file")
    """Path on the host: the client certificate."""
    tls_key_file: str | None = Field(default=None, alias="tls-key-file")
    """Path on the host: the client certificate's key."""
    builds_dir: str | None = None
    """The folder of builds, as a path in the executor."""
    cache_dir: str | None = None
    """The folder of caches, as a path in the executor."""
    clone_url: Annotated[Url, UrlField("https://gitlab.example.com")] | None = None
    """The URL to clone from, if it is not `url`."""
    environment: tuple[str, ...] | None = None
    """Variables for all jobs: ["NAME=value"]."""
    proxy_exec: bool | None = None
    """Run jobs' commands through the runner's proxy."""
    pre_get_sources_script: str | None = None
    """A shell script that runs before the sources are fetched."""
    post_get_sources_script: str | None = None
    """A shell script that runs after the sources were fetched."""
    pre_build_script: str | None = None
    """A shell script that runs before each job's script."""
    post_build_script: str | None = None
    """A shell script that runs after each job's script."""
    prepare_timeout: str | None = None
    """Time limit for preparing a job: "30m"."""
    get_sources_timeout: str | None = None
    """Time limit for fetching the sources: "30m"."""
    debug_trace_disabled: bool | None = None
    """Disable CI_DEBUG_TRACE."""
    safe_directory_checkout: bool | None = None
    """Add the build's folder to git's safe directories."""
    clean_git_config: bool | None = None
    """true: git's configuration is removed before and after jobs."""
    shell: Literal["bash", "sh", "pwsh", "powershell", "cmd"] | None = None
    """The shell that runs jobs' scripts."""
    use_slot_cgroups: bool | None = None
    """true: each job slot has a cgroup of its own."""
    slot_cgroup_template: str | None = None
    """The name of that cgroup."""
    step_runner_image: str | None = None
    """The image that steps run in."""
    feature_flags: dict[str, bool] | None = None
    """FF_… = true or false."""
    labels: dict[str, str] | None = None
    """Labels of the runner in its metrics and logs."""
    artifact: Annotated[Free, KeysOf("artifact")] | None = None
    """Time limits for uploads of artifacts."""
    experimental: Annotated[Free, KeysOf("experimental")] | None = None
    """Experimental settings of the runner."""
    extra: Free | None = None
    """Further keys, written unchecked: for a gitlab-runner that is newer than this program. Every table has such a key."""
    monitoring: Annotated[Free, KeysOf("monitoring")] | None = None
    """Settings of the job monitoring."""
    custom_build_dir: Annotated[Free, KeysOf("custom_build_dir")] | None = None
    """`enabled = true`: jobs may choose their build folder."""
    referees: Annotated[Free, KeysOf("referees")] | None = None
    """Additional monitoring of jobs."""
    cache: Annotated[Free, KeysOf("cache")] | None = None
    """Type, Path, Shared and [runners.cache.s3] with AccessKey and SecretKey (secrets)."""
    docker: Annotated[Free, KeysOf("docker")] | None = None
    """image, privileged, volumes, …: the docker executors need it."""
    ssh: Annotated[Free, KeysOf("ssh")] | None = None
    """For the ssh executor."""
    kubernetes: Annotated[Free, KeysOf("kubernetes")] | None = None
    """For the kubernetes executor."""
    instance: Annotated[Free, KeysOf("instance")] | None = None
    """For the instance executor."""
    autoscaler: Annotated[Free, KeysOf("autoscaler")] | None = None
    """For docker-autoscaler and instance."""
    machine: Annotated[Free, KeysOf("machine")] | None = None
    """For docker+machine."""
    custom: Annotated[Free, KeysOf("custom")] | None = None
    """For the custom executor."""
    parallels: Annotated[Free, KeysOf("parallels")] | None = None
    """For the parallels executor."""
    virtualbox: Annotated[Free, KeysOf("virtualbox")] | None = None
    """For the virtualbox executor."""

    token: SecretSource | None = None
    """The runner's authentication token, glrt-… (a secret)."""
    registration_token: SecretSource | None = None
    """A legacy registration token; disabled by default since GitLab 17.0 (a secret)."""
    tags: tuple[str, ...] = ()
    """Tags of the jobs it takes; stored by GitLab."""
    run_untagged: bool | None = None
    """Takes jobs without tags too; stored by GitLab. Default: true exactly when it has no tags."""
    locked: bool | None = None
    """Cannot be assigned to further projects; stored by GitLab."""
    paused: bool | None = None
    """Takes no jobs; stored by GitLab."""
    access_level: Literal["not_protected", "ref_protected"] | None = None
    """ref_protected: only jobs of protected branches and tags; stored by GitLab."""
    maximum_timeout: int | None = Field(default=None, ge=600)
    """Maximum duration of a job in seconds, from 600; stored by GitLab."""
    maintenance_note: str | None = Field(default=None, max_length=1024)
    """A note for administrators; stored by GitLab."""
    runner_type: Literal["instance_type", "group_type", "project_type"] | None = None
    """The type of a runner created through the API. Default: from `project` or `group`, else instance_type."""
    group: int | str | None = None
    """Path or id of the group that it is created for."""
    project: int | str | None = None
    """Path or id of the project that it is created for."""

    @property
    def config(self) -> dict[str, Any]:
        """The keys of config.toml for this runner as given, without its token.

        Tuples are lists again; secrets are SecretSource: see `resolve`.
        """
        return self._given(name for name in type(self).model_fields if name not in _REGISTRATION) | (self.extra or {})

    @property
    def scope(self) -> str:
        """runner_type, or what follows from project and group."""
        implied = "project_type" if self.project is not None else "group_type" if self.group is not None else None
        return self.runner_type or implied or "instance_type"

    @classmethod
    def check_all(cls, tables: Mapping[str | int, Self]) -> None:
        """Checks that names differ, since they distinguish the entries of config.toml."""
        check_different_names("runners", {place: one.name for place, one in tables.items()})

    @field_validator("tags")
    @classmethod
    def _tags(cls, tags: tuple[str, ...]) -> tuple[str, ...]:
        for place, tag in enumerate(tags):
            if not tag.strip() or "," in tag:  # a comma separates tags in the API
                raise InvalidValue(f"expected one tag, got {tag!r}", place)
        return tags

    @model_validator(mode="after")
    def _fits(self) -> Runner:
        if self.token is not None and self.registration_token is not None:
            raise InvalidValue("token and registration_token exclude each other: keep one", "registration_token")
        owners = {"group_type": self.group, "project_type": self.project}
        for kind, owner in owners.items():
            if owner is not None and self.scope != kind:
                name = kind.removesuffix("_type")
                raise InvalidValue(f"a runner of {self.scope} has no {name}", name)
        if owners.get(self.scope, "") is None:
            raise InvalidValue(
                f'"{self.scope.removesuffix("_type")}" is missing: it goes with {self.scope}', "runner_type"
            )
        if self.executor.startswith("docker") and not (self.docker or {}).get("image"):
            raise InvalidValue(
                f'"image" is missing: the executor {self.executor} needs one, such as "docker:28"', "docker"
            )
        return self
