"""The tables below [[runners]]: [runners.docker], [runners.cache], [runners.kubernetes], … with their keys and types.

They are data instead of table classes: 70 classes would make every start a tenth of a second slower.

Source: the structures of gitlab-runner 19.4.0 (a development version of August 2026; 19.3.0 has the same keys except
for `suspend_…`): common/config.go, cache/cacheconfig/cacheconfig.go, helpers/docker/credentials.go,
referees/metrics.go, common/config/runner/monitoring.go.

    s  string            d  duration: "15m0s", or nanoseconds    [x]  array of x
    b  true or false     *  any plain data                       {x}  table of x with free keys
    i  whole number      x|y  one of both                        Name  the table of this name below
    f  number
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from provision.errors import did_you_mean
from provision.inventory.secrets import SecretSource
from provision.inventory.tables.base import InvalidValue, InvalidValues, describe, plain_data
from provision.inventory.tree import KeyPath

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
    from pydantic_core import CoreSchema

EXTRA: Final = "extra"
"""The key of every table whose keys are written to config.toml unchecked: for what is newer than this list."""

_KEYS: Final = {
    "cache": "Type:s Path:s Shared:b MaxUploadedArchiveSize:i s3:CacheS3 gcs:CacheGCS azure:CacheAzure",
    "docker": (
        "host:s tls_cert_path:s tls_verify:b hostname:s image:s runtime:s memory:s memory_swap:s "
        "memory_reservation:s cgroup_parent:s cpuset_cpus:s cpuset_mems:s cpus:s cpu_shares:i dns:[s] "
        "dns_search:[s] privileged:b services_privileged:b disable_entrypoint_overwrite:b user:s "
        "allowed_users:[s] group_add:[s] userns_mode:s cap_add:[s] cap_drop:[s] oom_kill_disable:b "
        "oom_score_adjust:i security_opt:[s] services_security_opt:[s] devices:[s] device_cgroup_rules:[s] "
        "gpus:s services_devices:{[s]} disable_cache:b volumes:[s] volume_keep:b volume_driver:s "
        "volume_driver_ops:{s} cache_dir:s extra_hosts:[s] volumes_from:[s] network_mode:s pid_mode:s "
        "ipcmode:s mac_address:s links:[s] services:[Service] services_limit:i service_memory:s "
        "service_memory_swap:s service_memory_reservation:s service_cgroup_parent:s "
        "service_slot_cgroup_template:s service_cpuset_cpus:s service_cpus:s service_cpu_shares:i "
        "service_gpus:s wait_for_services_timeout:i allowed_images:[s] allowed_privileged_images:[s] "
        "allowed_privileged_services:[s] allowed_pull_policies:[s] allowed_services:[s] pull_policy:s|[s] "
        "isolation:s shm_size:i tmpfs:{s} services_tmpfs:{s} sysctls:{s} helper_image:s helper_image_flavor:s "
        "container_labels:{s} enable_ipv6:b ulimit:{s} network_mtu:i log_options:{s}"
    ),
    "ssh": "user:s password:s host:s port:s identity_file:s disable_strict_host_key_checking:b known_hosts_file:s",
    "kubernetes": (
        "host:s context:s cert_file:s key_file:s ca_file:s bearer_token_overwrite_allowed:b bearer_token:s "
        "image:s namespace:s namespace_overwrite_allowed:s namespace_per_job:b privileged:b "
        "runtime_class_name:s allow_privilege_escalation:b cpu_limit:s cpu_limit_overwrite_max_allowed:s "
        "cpu_request:s cpu_request_overwrite_max_allowed:s memory_limit:s "
        "memory_limit_overwrite_max_allowed:s memory_request:s memory_request_overwrite_max_allowed:s "
        "ephemeral_storage_limit:s ephemeral_storage_limit_overwrite_max_allowed:s "
        "ephemeral_storage_request:s ephemeral_storage_request_overwrite_max_allowed:s service_cpu_limit:s "
        "service_cpu_limit_overwrite_max_allowed:s service_cpu_request:s "
        "service_cpu_request_overwrite_max_allowed:s service_memory_limit:s "
        "service_memory_limit_overwrite_max_allowed:s service_memory_request:s "
        "service_memory_request_overwrite_max_allowed:s service_ephemeral_storage_limit:s "
        "service_ephemeral_storage_limit_overwrite_max_allowed:s service_ephemeral_storage_request:s "
        "service_ephemeral_storage_request_overwrite_max_allowed:s helper_cpu_limit:s "
        "helper_cpu_limit_overwrite_max_allowed:s helper_cpu_request:s "
        "helper_cpu_request_overwrite_max_allowed:s helper_memory_limit:s "
        "helper_memory_limit_overwrite_max_allowed:s helper_memory_request:s "
        "helper_memory_request_overwrite_max_allowed:s helper_ephemeral_storage_limit:s "
        "helper_ephemeral_storage_limit_overwrite_max_allowed:s helper_ephemeral_storage_request:s "
        "helper_ephemeral_storage_request_overwrite_max_allowed:s pod_cpu_limit:s "
        "pod_cpu_limit_overwrite_max_allowed:s pod_cpu_request:s pod_cpu_request_overwrite_max_allowed:s "
        "pod_memory_limit:s pod_memory_limit_overwrite_max_allowed:s pod_memory_request:s "
        "pod_memory_request_overwrite_max_allowed:s allowed_images:[s] allowed_pull_policies:[s] "
        "allowed_services:[s] allowed_users:[s] allowed_groups:[s] pull_policy:s|[s] node_selector:{s} "
        "node_selector_overwrite_allowed:s node_tolerations:{s} node_tolerations_overwrite_allowed:s "
        "affinity:Affinity image_pull_secrets:[s] use_service_account_image_pull_secrets:b helper_image:s "
        "helper_image_flavor:s helper_image_autoset_arch_and_os:b pod_termination_grace_period_seconds:i "
        "cleanup_grace_period_seconds:i cleanup_resources_timeout:d poll_interval:i poll_timeout:i "
        "resource_availability_check_max_attempts:i retry_limit:i retry_backoff_max:i retry_limits:{i} "
        "pod_labels:{s} pod_labels_overwrite_allowed:s scheduler_name:s service_account:s "
        "service_account_overwrite_allowed:s automount_service_account_token:b pod_annotations:{s} "
        "pod_annotations_overwrite_allowed:s pod_security_context:PodSecurityContext "
        "init_permissions_container_security_context:ContainerSecurityContext "
        "build_container_security_context:ContainerSecurityContext "
        "helper_container_security_context:ContainerSecurityContext "
        "service_container_security_context:ContainerSecurityContext volumes:Volumes "
        "host_aliases:[HostAliases] services:[Service] cap_add:[s] cap_drop:[s] suspend_pvc_size:s "
        "suspend_pvc_storage_class:s dns_policy:s dns_config:DNS container_lifecycle:ContainerLifecyle "
        "priority_class_name:s pod_spec:[PodSpec] logs_base_dir:s scripts_base_dir:s "
        "print_pod_warning_events:b pod_disruption_budget:b autoscaler:Autoscaler"
    ),
    "instance": "allowed_images:[s] use_common_build_dir:b",
    "autoscaler": (
        "capacity_per_instance:i max_use_count:i max_instances:i plugin:s plugin_config:* "
        "connector_config:Connector policy:[AutoscalerPolicy] instance_ready_command:s "
        "instance_acquire_timeout:d update_interval:d update_interval_when_expecting:d "
        "deletion_retry_interval:d shutdown_deletion_interval:d shutdown_deletion_retries:i "
        "failure_threshold:i scale_throttle:AutoscalerScaleThrottle reservation_throttling:b "
        "log_internal_ip:b log_external_ip:b delete_instances_on_shutdown:b vm_isolation:VMIsolation "
        "state_storage:AutoscalerStateStorage instance_operation_time_buckets:[f] "
        "instance_creation_time_buckets:[f] instance_is_running_time_buckets:[f] "
        "instance_deletion_time_buckets:[f] instance_readiness_time_buckets:[f] "
        "instance_life_duration_buckets:[f]"
    ),
    "machine": (
        "MaxGrowthRate:i IdleTime:i MaxBuilds:i MaxRemovalAttempts:i OffPeakPeriods:[s] OffPeakTimezone:s "
        "OffPeakIdleCount:i OffPeakIdleTime:i autoscaling:[MachineAutoscaling] IdleCount:i IdleScaleFactor:f "
        "IdleCountMin:i MachineDriver:s MachineName:s MachineOptions:[s] MachineOptionsWithName:[s]"
    ),
    "custom": (
        "config_exec:s config_args:[s] config_exec_timeout:i prepare_exec:s prepare_args:[s] "
        "prepare_exec_timeout:i run_exec:s run_args:[s] cleanup_exec:s cleanup_args:[s] "
        "cleanup_exec_timeout:i graceful_kill_timeout:i force_kill_timeout:i"
    ),
    "parallels": "base_name:s template_name:s disable_snapshots:b time_server:s allowed_images:[s]",
    "virtualbox": "base_name:s base_snapshot:s base_folder:s disable_snapshots:b allowed_images:[s] start_type:s",
    "monitoring": "job_queuing_durations:[JobQueuingDuration]",
    "custom_build_dir": "enabled:b",
    "artifact": "upload_timeout:d response_header_timeout:d",
    "experimental": "boot_verify:BootVerify",
    "session_server": "listen_address:s advertise_address:s session_timeout:i",
    "referees": "metrics:MetricsReferee",
    "program_experimental": "usage_logger:UsageLogger",
    "MachineAutoscaling": "Periods:[s] Timezone:s IdleCount:i IdleScaleFactor:f IdleCountMin:i IdleTime:i",
    "CacheS3": (
        "ServerAddress:s AccessKey:s SecretKey:s SessionToken:s BucketName:s BucketLocation:s Insecure:b "
        "AuthenticationType:s ServerSideEncryption:s ServerSideEncryptionKeyID:s DualStack:b PathStyle:b "
        "Accelerate:b RoleARN:s UploadRoleARN:s AssumeRoleMaxConcurrency:i "
        "DisableAssumeRoleCredentialsCaching:b"
    ),
    "CacheGCS": "AccessID:s PrivateKey:s CredentialsFile:s BucketName:s UniverseDomain:s",
    "CacheAzure": "AccountName:s AccountKey:s ContainerName:s StorageDomain:s",
    "Service": "name:s alias:s command:[s] entrypoint:[s] environment:[s] suspend_data_path:s",
    "Affinity": "node_affinity:NodeAffinity pod_affinity:PodAffinity pod_anti_affinity:PodAntiAffinity",
    "PodSecurityContext": (
        "fs_group:i run_as_group:i run_as_non_root:b run_as_user:i supplemental_groups:[i] selinux_type:s "
        "seccomp_profile:SeccompProfile app_armor_profile:AppArmorProfile"
    ),
    "ContainerSecurityContext": (
        "capabilities:ContainerCapabilities privileged:b run_as_user:i run_as_group:i run_as_non_root:b "
        "read_only_root_filesystem:b allow_privilege_escalation:b selinux_type:s proc_mount:s "
        "seccomp_profile:SeccompProfile app_armor_profile:AppArmorProfile"
    ),
    "Volumes": (
        "host_path:[HostPath] pvc:[PVC] config_map:[ConfigMap] secret:[Secret] empty_dir:[EmptyDir] csi:[CSI] nfs:[NFS]"
    ),
    "HostAliases": "ip:s hostnames:[s]",
    "DNS": "nameservers:[s] options:[DNSConfigOption] searches:[s]",
    "ContainerLifecyle": "post_start:LifecycleHandler pre_stop:LifecycleHandler",
    "PodSpec": "name:s patch_path:s patch:s patch_type:s",
    "Autoscaler": (
        "max_pause_pods:i pause_pod_image:s pause_pod_priority_class_name:s policy:[AutoscalerPolicy] "
        "pause_pod_image_pull_secrets:[s]"
    ),
    "Connector": (
        "os:s arch:s protocol:s protocol_port:i username:s password:s key_path:s use_static_credentials:b "
        "keepalive:d timeout:d use_external_addr:b"
    ),
    "AutoscalerPolicy": (
        "periods:[s] timezone:s idle_count:i idle_time:d scale_factor:f scale_factor_limit:i preemptive_mode:b"
    ),
    "AutoscalerScaleThrottle": "limit:i burst:i",
    "VMIsolation": "enabled:b nesting_host:s nesting_config:* image:s connector_config:Connector",
    "AutoscalerStateStorage": "enabled:b dir:s keep_instance_with_acquisitions:b",
    "JobQueuingDuration": "periods:[s] timezone:s threshold:d jobs_running_for_project:s",
    "BootVerify": "enabled:b timeout:d acquire_min_backoff:d acquire_max_backoff:d",
    "MetricsReferee": "prometheus_address:s query_interval:i queries:[s]",
    "UsageLogger": (
        "enabled:b writers:[s] logrotate:Logrotate snowplow_billing:Snowplow log_dir:s max_backup_files:i "
        "max_rotation_age:d labels:{s}"
    ),
    "NodeAffinity": (
        "required_during_scheduling_ignored_during_execution:NodeSelector "
        "preferred_during_scheduling_ignored_during_execution:[PreferredSchedulingTerm]"
    ),
    "PodAffinity": (
        "required_during_scheduling_ignored_during_execution:[PodAffinityTerm] "
        "preferred_during_scheduling_ignored_during_execution:[WeightedPodAffinityTerm]"
    ),
    "PodAntiAffinity": (
        "required_during_scheduling_ignored_during_execution:[PodAffinityTerm] "
        "preferred_during_scheduling_ignored_during_execution:[WeightedPodAffinityTerm]"
    ),
    "SeccompProfile": "type:s localhost_profile:s",
    "AppArmorProfile": "type:s localhost_profile:s",
    "ContainerCapabilities": "add:[s] drop:[s]",
    "HostPath": "name:s mount_path:s sub_path:s read_only:b host_path:s mount_propagation:s",
    "PVC": "name:s mount_path:s sub_path:s read_only:b mount_propagation:s",
    "ConfigMap": "name:s mount_path:s sub_path:s read_only:b items:{s}",
    "Secret": "name:s mount_path:s sub_path:s read_only:b items:{s}",
    "EmptyDir": "name:s mount_path:s sub_path:s medium:s size_limit:s mount_propagation:s",
    "CSI": "name:s mount_path:s sub_path:s driver:s fs_type:s read_only:b volume_attributes:{s}",
    "NFS": "name:s mount_path:s sub_path:s server:s path:s read_only:b",
    "DNSConfigOption": "name:s value:s",
    "LifecycleHandler": "exec:LifecycleExecAction http_get:LifecycleHTTPGet tcp_socket:LifecycleTCPSocket",
    "Logrotate": "log_dir:s max_backup_files:i max_rotation_age:d labels:{s}",
    "Snowplow": (
        "collector_uri:s app_id:s category:s realm:s deployment_type:s metadata:{s} enable_oidc:b "
        "batch_delivery_duration_buckets:[f] skip_oidc_if_unsupported_cloud:b skip_runner_system_failure:b"
    ),
    "NodeSelector": "node_selector_terms:[NodeSelectorTerm]",
    "PreferredSchedulingTerm": "weight:i preference:NodeSelectorTerm",
    "PodAffinityTerm": (
        "label_selector:LabelSelector namespaces:[s] topology_key:s namespace_selector:LabelSelector "
        "match_label_keys:[s] mismatch_label_keys:[s]"
    ),
    "WeightedPodAffinityTerm": "weight:i pod_affinity_term:PodAffinityTerm",
    "LifecycleExecAction": "command:[s]",
    "LifecycleHTTPGet": "host:s http_headers:[LifecycleHTTPGetHeader] path:s port:i scheme:s",
    "LifecycleTCPSocket": "host:s port:i",
    "NodeSelectorTerm": "match_expressions:[NodeSelectorRequirement] match_fields:[NodeSelectorRequirement]",
    "LabelSelector": "match_labels:{s} match_expressions:[NodeSelectorRequirement]",
    "LifecycleHTTPGetHeader": "name:s value:s",
    "NodeSelectorRequirement": "key:s operator:s values:[s]",
}

TABLES: Final = frozenset(_KEYS)

_DURATION = re.compile(r"0|([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+")  # source: Go's time.ParseDuration
_WORDS: Final = {
    "s": "a string",
    "b": "true or false",
    "i": "a whole number",
    "f": "a number",
    "d": 'a duration such as "15m0s"',
}


class KeysOf:
    """Marks a field of free keys: its keys and types are those of one of gitlab-runner's tables."""

    def __init__(self, table: str) -> None:
        self.table = table

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        from pydantic_core import core_schema

        return core_schema.no_info_after_validator_function(lambda value: checked(self.table, value), handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        del schema, handler
        return _json_schema(self.table)


@cache
def keys_of(table: str) -> Mapping[str, str]:
    """The keys of one of gitlab-runner's tables, with their types."""
    pairs = (one.partition(":") for one in _KEYS[table].split())
    return {key: kind for key, _, kind in pairs}


def describe_kind(kind: str) -> str:
    """A type in words, for documentation."""
    if "|" in kind:
        return " or ".join(describe_kind(one) for one in kind.split("|"))
    if kind.startswith(("[", "{")):
        return f"{'array' if kind.startswith('[') else 'table'} of {describe_kind(kind[1:-1])}"
    names = {"s": "string", "b": "boolean", "i": "number", "f": "number", "d": "duration", "*": "any value"}
    return names.get(kind, "table")


def checked(table: str, value: dict[str, Any]) -> dict[str, Any]:
    """The table with the keys of `extra` beside the others. Raises InvalidValues for everything that is wrong."""
    problems: list[InvalidValue] = []
    found = _table(table, value, (), problems)
    if problems:
        raise InvalidValues(problems)
    return found


def known_in_extra(known: Mapping[str, Any], extra: Mapping[str, Any], at: KeyPath = ()) -> list[InvalidValue]:
    """The keys of the table `extra`, at the path `at`, that must stand outside of it because they are known."""
    return [
        InvalidValue("this key is known: write it outside of extra", *at, key) for key in known.keys() & extra.keys()
    ]


def _table(table: str, value: dict[str, Any], at: KeyPath, problems: list[InvalidValue]) -> dict[str, Any]:
    kinds = keys_of(table)
    found: dict[str, Any] = {}
    for key, one in value.items():
        if key == EXTRA and isinstance(one, dict):
            problems += known_in_extra(kinds, one, (*at, key))
            found |= _plain(one, (*at, key), problems)
        elif key in kinds:
            found[key] = _value(kinds[key], one, (*at, key), problems)
        else:
            hint = " (newer than gitlab-runner 19.4? write it in extra = { … })"
            problems.append(InvalidValue(f"unknown key{did_you_mean(key, kinds) or hint}", *at, key))
    return found


def _value(kind: str, value: Any, at: KeyPath, problems: list[InvalidValue]) -> Any:
    """A value of a type, with tables read again. Adds what is wrong to `problems`."""
    if "|" in kind:
        kind = next((one for one in kind.split("|") if isinstance(value, list) == one.startswith("[")), kind)
    if kind.startswith("["):
        if isinstance(value, list):
            return [_value(kind[1:-1], one, (*at, place), problems) for place, one in enumerate(value)]
        problems.append(InvalidValue(f"expected an array, got {describe(value, at)}", *at))
        return value
    if kind.startswith("{") or len(kind) > 1:
        # `exec = { command = ["x"] }` and `container_labels = { env = "x" }` were read as secrets: here they are tables.
        if isinstance(value, SecretSource) and value.kind != "plain":
            value = {value.kind: list(value.value) if isinstance(value.value, tuple) else value.value}
        if not isinstance(value, dict):
            problems.append(InvalidValue(f"expected a table, got {describe(value, at)}", *at))
            return value
        if kind.startswith("{"):
            return {key: _value(kind[1:-1], one, (*at, key), problems) for key, one in value.items()}
        return _table(kind, value, at, problems)
    if kind == "*":
        return _plain(value, at, problems)
    if not _has_type(kind, value):
        problems.append(InvalidValue(f"expected {_WORDS[kind]}, got {describe(value, at)}", *at))
    return value


def _has_type(kind: str, value: Any) -> bool:
    if kind == "s":
        return isinstance(value, str | SecretSource)
    if kind == "b":
        return isinstance(value, bool)
    if kind == "d" and isinstance(value, str):
        return bool(_DURATION.fullmatch(value))
    number = int | float if kind == "f" else int
    return isinstance(value, number) and not isinstance(value, bool)


def _plain(value: Any, at: KeyPath, problems: list[InvalidValue]) -> Any:
    try:
        return plain_data(value, *at)
    except InvalidValue as error:
        problems.append(error)
        return value


def _json_schema(table: str) -> dict[str, Any]:
    properties = {key: _json_type(kind) for key, kind in keys_of(table).items()}
    properties[EXTRA] = {"type": "object", "description": "Further keys, written unchecked."}
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _json_type(kind: str) -> dict[str, Any]:
    from provision.inventory.secrets import SCHEMA

    if "|" in kind:
        return {"anyOf": [_json_type(one) for one in kind.split("|")]}
    if kind.startswith("["):
        return {"type": "array", "items": _json_type(kind[1:-1])}
    if kind.startswith("{"):
        return {"type": "object", "additionalProperties": _json_type(kind[1:-1])}
    if len(kind) > 1:
        return _json_schema(kind)
    simple = {"b": "boolean", "i": "integer", "f": "number"}
    if kind in simple:
        return {"type": simple[kind]}
    return {"type": ["string", "integer"]} if kind == "d" else {} if kind == "*" else {"anyOf": [*SCHEMA["oneOf"]]}
