"""One [[runners]] table's part that ends in config.toml, with config.toml's own keys.

Source: gitlab-runner 19.3.0, the flags of `register` and common/config.go.
"""

from typing import Any, Literal

from pydantic import Field, field_validator

from provision.inventory.models.base import Table, base_url, plain_data

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
    url: str | None = None
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
    clone_url: str | None = None
    """Where to clone from, when it is not `url`."""
    environment: tuple[str, ...] | None = Field(default=None, strict=False)
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
                found[field.alias or name] = list(value) if isinstance(value, tuple) else value
        return found

    @field_validator("url", "clone_url")
    @classmethod
    def _url(cls, text: str | None) -> str | None:
        return text if text is None else base_url(text, path=True, example="https://gitlab.example.com")

    @field_validator(
        *("feature_flags", "monitoring", "custom_build_dir", "referees", "cache", "docker", "ssh", "kubernetes"),
        *("instance", "autoscaler", "machine", "custom", "parallels", "virtualbox"),
    )
    @classmethod
    def _plain(cls, table: Free | None) -> Free | None:
        plain_data(table or {})
        return table
