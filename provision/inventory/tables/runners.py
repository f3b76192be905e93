"""[runner]: the gitlab-runner program, and config.toml's top-level keys.

One [[runners]] table's part that ends in config.toml, with config.toml's own keys.

Source: gitlab-runner 19.3.0, the flags of `register` and common/config.go.

[[runners]]: one runner each, with config.toml's own keys and its registration.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from provision.inventory.secrets import SecretSource
from provision.inventory.tables.base import InvalidValue, Table, check_different_names, plain_data, version
from provision.url import Url, UrlField


class RunnerProgram(Table, name="runner"):
    """The gitlab-runner program: its version, and config.toml's top-level keys. Absent keys are left as they are."""

    version: str | None = None
    """The version to hold, such as "19.3.0". Default: the newest when installed, then what is there."""
    concurrent: int | None = Field(default=None, ge=1)
    """Jobs at once on this host, over all its runners."""
    check_interval: int | None = Field(default=None, ge=0)
    """Seconds between two questions for jobs; 0: the program's default, 3."""
    log_level: Literal["debug", "info", "warn", "error", "fatal", "panic"] | None = None
    """What the program logs."""
    log_format: Literal["runner", "text", "json"] | None = None
    """How it logs."""
    listen_address: str | None = None
    """HOST:PORT for Prometheus. A change needs a restart of the program."""
    sentry_dsn: SecretSource | None = None
    """Where errors are reported (a secret)."""
    connection_max_age: str | None = None
    """How long a connection to GitLab is kept: "15m0s"."""
    shutdown_timeout: int | None = Field(default=None, ge=0)
    """Seconds until a forced shutdown."""
    session_server: dict[str, Any] | None = None
    """Interactive web terminals: listen_address, advertise_address, session_timeout."""
    experimental: dict[str, Any] | None = None
    """Whatever the program calls experimental."""

    @property
    def config(self) -> dict[str, Any]:
        """config.toml's top-level keys as given, without `version`; secrets are SecretSource: see `resolve`."""
        given = self.model_fields_set - {"version"}
        return {name: getattr(self, name) for name in type(self).model_fields if name in given}

    @field_validator("version")
    @classmethod
    def _version(cls, text: str | None) -> str | None:
        return version(text)

    @field_validator("session_server", "experimental")
    @classmethod
    def _plain(cls, table: dict[str, Any] | None) -> dict[str, Any] | None:
        plain_data(table or {})
        return table


Free = dict[str, Any]


class RunnerConfig(Table):
    """config.toml's own keys of one runner. What stands below a table goes there as it is."""

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
    """What runs the jobs."""
    url: Annotated[Url, UrlField("https://gitlab.example.com")] | None = None
    """The GitLab it works for. Default: gitlab.external_url."""
    limit: int | None = Field(default=None, ge=0)
    """Jobs at once for this runner; 0: no limit but `concurrent`."""
    request_concurrency: int | None = Field(default=None, ge=0)
    """Questions for jobs at once."""
    output_limit: int | None = Field(default=None, ge=0)
    """A job log's size in KiB at most."""
    strict_check_interval: bool | None = None
    """Wait check_interval even when there are more jobs."""
    unhealthy_requests_limit: int | None = Field(default=None, ge=0)
    """Failed questions until the runner is switched off for a while."""
    unhealthy_interval: str | None = None
    """How long that while is: "120s"."""
    job_status_final_update_retry_limit: int | None = Field(default=None, ge=0)
    """Tries to tell GitLab a job's end."""
    tls_ca_file: str | None = Field(default=None, alias="tls-ca-file")
    """Path on the host: authority to check GitLab's certificate with. Default: registry.certificate.ca where given."""
    tls_cert_file: str | None = Field(default=None, alias="tls-cert-file")
    """Path on the host: client certificate."""
    tls_key_file: str | None = Field(default=None, alias="tls-key-file")
    """Path on the host: the client certificate's key."""
    builds_dir: str | None = None
    """Where builds lie, as the executor sees it."""
    cache_dir: str | None = None
    """Where caches lie, as the executor sees it."""
    clone_url: Annotated[Url, UrlField("https://gitlab.example.com")] | None = None
    """Where to clone from, when it is not `url`."""
    environment: tuple[str, ...] | None = None
    """Variables for all jobs: ["NAME=value"]."""
    proxy_exec: bool | None = None
    """Have jobs' commands run through the runner's proxy."""
    pre_get_sources_script: str | None = None
    """Shell before the sources are fetched."""
    post_get_sources_script: str | None = None
    """Shell after the sources were fetched."""
    pre_build_script: str | None = None
    """Shell before each job's script."""
    post_build_script: str | None = None
    """Shell after each job's script."""
    prepare_timeout: str | None = None
    """How long preparing may take: "30m"."""
    get_sources_timeout: str | None = None
    """How long fetching the sources may take: "30m"."""
    debug_trace_disabled: bool | None = None
    """No CI_DEBUG_TRACE."""
    safe_directory_checkout: bool | None = None
    """Tell git that the build's folder is safe."""
    clean_git_config: bool | None = None
    """Remove git's configuration before and after jobs."""
    shell: Literal["bash", "sh", "pwsh", "powershell", "cmd"] | None = None
    """The shell that jobs' scripts are made for."""
    use_slot_cgroups: bool | None = None
    """One cgroup for each job slot."""
    slot_cgroup_template: str | None = None
    """That cgroup's name."""
    step_runner_image: str | None = None
    """The image that steps run in."""
    feature_flags: Free | None = None
    """FF_… = true or false."""
    monitoring: Free | None = None
    """What is measured."""
    custom_build_dir: Free | None = None
    """`enabled`: jobs may choose their folder."""
    referees: Free | None = None
    """Extra monitoring of jobs."""
    cache: Free | None = None
    """Type, Path, Shared and [runners.cache.s3] with AccessKey and SecretKey (secrets)."""
    docker: Free | None = None
    """image, privileged, volumes, …: needed by the docker executors."""
    ssh: Free | None = None
    """For the ssh executor."""
    kubernetes: Free | None = None
    """For the kubernetes executor."""
    instance: Free | None = None
    """For the instance executor."""
    autoscaler: Free | None = None
    """For docker-autoscaler and instance."""
    machine: Free | None = None
    """For docker+machine."""
    custom: Free | None = None
    """For the custom executor."""
    parallels: Free | None = None
    """For the parallels executor."""
    virtualbox: Free | None = None
    """For the virtualbox executor."""

    @property
    def config(self) -> dict[str, Any]:
        """What config.toml is to say of this runner, as given, with its own keys; without its token.

        Tuples are lists again; secrets are SecretSource: see `resolve`.
        """
        found: dict[str, Any] = {}
        for name, field in RunnerConfig.model_fields.items():
            if name in self.model_fields_set:
                value = getattr(self, name)
                value = str(value) if isinstance(value, Url) else value
                found[field.alias or name] = list(value) if isinstance(value, tuple) else value
        return found

    @field_validator(
        *("feature_flags", "monitoring", "custom_build_dir", "referees", "cache", "docker", "ssh", "kubernetes"),
        *("instance", "autoscaler", "machine", "custom", "parallels", "virtualbox"),
    )
    @classmethod
    def _plain(cls, table: Free | None) -> Free | None:
        plain_data(table or {})
        return table


class Runner(RunnerConfig, name="runners", occurs="array"):
    """One runner: config.toml's own keys, and how it is registered.

    With `token` it exists in GitLab already; with `registration_token` it is registered the old way; with neither it
    is created through the API (gitlab.api_token).
    """

    token: SecretSource | None = None
    """The runner's authentication token, glrt-… (a secret)."""
    registration_token: SecretSource | None = None
    """The old way, off by default since GitLab 17.0 (a secret)."""
    tags: tuple[str, ...] = ()
    """Tags of the jobs it takes; kept by GitLab."""
    run_untagged: bool | None = None
    """Takes jobs without tags too; kept by GitLab. Default: true exactly when it has no tags."""
    locked: bool | None = None
    """Kept to its projects; kept by GitLab."""
    paused: bool | None = None
    """Takes no jobs; kept by GitLab."""
    access_level: Literal["not_protected", "ref_protected"] | None = None
    """ref_protected: only jobs of protected branches and tags; kept by GitLab."""
    maximum_timeout: int | None = Field(default=None, ge=600)
    """Seconds that a job may take at most, from 600 on; kept by GitLab."""
    maintenance_note: str | None = Field(default=None, max_length=1024)
    """A note for administrators; kept by GitLab."""
    runner_type: Literal["instance_type", "group_type", "project_type"] | None = None
    """Whose runner it is, when created through the API. Default: what `project` or `group` says, else instance_type."""
    group: int | str | None = None
    """Path or id of the group it is created for."""
    project: int | str | None = None
    """Path or id of the project it is created for."""

    @property
    def scope(self) -> str:
        """runner_type, or what it follows from."""
        implied = "project_type" if self.project is not None else "group_type" if self.group is not None else None
        return self.runner_type or implied or "instance_type"

    @classmethod
    def check_all(cls, tables: Mapping[str | int, Self]) -> None:
        """Names differ, as config.toml's entries are told apart by them."""
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
