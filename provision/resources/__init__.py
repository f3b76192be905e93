"""Resources: the nouns of the desired state. They are values that observe and plan; the engine applies.

On every host:

    File             a file has this content
    Absent           a file or an empty directory does not exist
    Directory        a directory exists
    ConfigFragment   a configuration fragment is there, and its program accepted it
    JsonSettings     a JSON file has these top-level keys; others stay
    Download         a file was downloaded and has this checksum
    Packages         Debian packages are installed
    AptSource        a package repository is set up
    User             a user exists
    GroupMember      a user belongs to a group
    Unit             a systemd unit of ours is installed and runs
    AbsentUnit       a systemd unit of ours is stopped and removed
    Service          an installed systemd unit runs and starts at boot
    Firewall, Rule   ufw allows these ports
    TrustedCa        programs on the host trust a CA

With Docker and GitLab:

    BuiltImage       an image is built and in the registry
    Deployment       a container runs the image that its tag names
    ProjectSettings  a GitLab project has these settings, runners and variables
    ProjectSource    a GitLab project has the content of a local repository or folder
    PipelineFile     a project's .gitlab-ci.yml is this text
    RubySettings     gitlab.rb has these settings
    CertificatePair  a certificate and its key exist and are valid for a host name
    S3Bucket         a bucket can be used with these keys
    RunnerEntries    config.toml of gitlab-runner has these runners
    RunnerSettings   a runner has these settings in GitLab

For resources of your own: Resource, Probe, Observation, Change, Note, Handler, ApiQuery, ApiAction.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from provision.host.pending import Handler
from provision.resources.base import (
    ApiAction,
    ApiQuery,
    BatchQuery,
    Change,
    Guard,
    Note,
    Observation,
    Outcome,
    Probe,
    Resource,
)
from provision.shell import Result

if TYPE_CHECKING:
    from provision.resources.delivery.accounts import GitlabGroup, GitlabProject, GitlabUser
    from provision.resources.delivery.deployment import AppCheck, Deployment, DroppedApps
    from provision.resources.delivery.image import BuiltImage, ImageCheck, ProjectBot, UnusedImages
    from provision.resources.delivery.pipeline import Awaited, LocalPipeline, PipelineFile, Recipe
    from provision.resources.delivery.project import ProjectSettings, WantedProject, WantedVariable
    from provision.resources.delivery.source import ProjectSource
    from provision.resources.docker import JsonSettings
    from provision.resources.gitlab.api_token import ApiToken
    from provision.resources.gitlab.certificates import (
        AcmeCertificate,
        CertificatePair,
        DefaultPair,
        ServedCertificate,
        UploadedPair,
    )
    from provision.resources.gitlab.gitlab_rb import RubySettings
    from provision.resources.gitlab.registry import RegistryEndpoint, RegistryStorage
    from provision.resources.gitlab.s3_bucket import S3Bucket
    from provision.resources.runner.entries import RunnerEntries, RunnerEntry, RunnerSettings
    from provision.resources.system.apt_source import AptSource
    from provision.resources.system.download import Download
    from provision.resources.system.file import Absent, ConfigFragment, Directory, File
    from provision.resources.system.firewall import Firewall, Rule
    from provision.resources.system.packages import Packages
    from provision.resources.system.systemd import AbsentUnit, Service, Unit
    from provision.resources.system.trusted_ca import TrustedCa
    from provision.resources.system.user import GroupMember, User

# A resource is imported when it is first used (PEP 562): a run waits only for those of its own inventory.
_MODULES: Final = {
    **dict.fromkeys(("GitlabGroup", "GitlabProject", "GitlabUser"), ".delivery.accounts"),
    **dict.fromkeys(("AppCheck", "Deployment", "DroppedApps"), ".delivery.deployment"),
    **dict.fromkeys(("BuiltImage", "ImageCheck", "ProjectBot", "UnusedImages"), ".delivery.image"),
    **dict.fromkeys(("Awaited", "LocalPipeline", "PipelineFile", "Recipe"), ".delivery.pipeline"),
    **dict.fromkeys(("ProjectSettings", "WantedProject"), ".delivery.project"),
    "ProjectSource": ".delivery.source",
    "WantedVariable": ".delivery.project",
    "JsonSettings": ".docker",
    **dict.fromkeys(("AcmeCertificate", "CertificatePair", "DefaultPair"), ".gitlab.certificates"),
    **dict.fromkeys(("ServedCertificate", "UploadedPair"), ".gitlab.certificates"),
    "ApiToken": ".gitlab.api_token",
    "RubySettings": ".gitlab.gitlab_rb",
    **dict.fromkeys(("RegistryEndpoint", "RegistryStorage"), ".gitlab.registry"),
    "S3Bucket": ".gitlab.s3_bucket",
    **dict.fromkeys(("RunnerEntries", "RunnerEntry"), ".runner.entries"),
    "RunnerSettings": ".runner.entries",
    "AptSource": ".system.apt_source",
    "Download": ".system.download",
    **dict.fromkeys(("Absent", "ConfigFragment", "Directory", "File"), ".system.file"),
    "Firewall": ".system.firewall",
    "Packages": ".system.packages",
    **dict.fromkeys(("AbsentUnit", "Service", "Unit"), ".system.systemd"),
    "TrustedCa": ".system.trusted_ca",
    "Rule": ".system.firewall",
    **dict.fromkeys(("GroupMember", "User"), ".system.user"),
}

__all__ = [
    "Absent",
    "AbsentUnit",
    "AcmeCertificate",
    "ApiAction",
    "ApiQuery",
    "ApiToken",
    "AppCheck",
    "AptSource",
    "Awaited",
    "BatchQuery",
    "BuiltImage",
    "CertificatePair",
    "Change",
    "ConfigFragment",
    "DefaultPair",
    "Deployment",
    "Directory",
    "Download",
    "DroppedApps",
    "File",
    "Firewall",
    "GitlabGroup",
    "GitlabProject",
    "GitlabUser",
    "GroupMember",
    "Guard",
    "Handler",
    "ImageCheck",
    "JsonSettings",
    "LocalPipeline",
    "Note",
    "Observation",
    "Outcome",
    "Packages",
    "PipelineFile",
    "Probe",
    "ProjectBot",
    "ProjectSettings",
    "ProjectSource",
    "Recipe",
    "RegistryEndpoint",
    "RegistryStorage",
    "Resource",
    "Result",
    "RubySettings",
    "Rule",
    "RunnerEntries",
    "RunnerEntry",
    "RunnerSettings",
    "S3Bucket",
    "ServedCertificate",
    "Service",
    "TrustedCa",
    "Unit",
    "UnusedImages",
    "UploadedPair",
    "User",
    "WantedProject",
    "WantedVariable",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'provision.resources' has no attribute {name!r}")
    return getattr(import_module(_MODULES[name], "provision.resources"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
