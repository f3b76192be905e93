"""The nouns of a wanted state, one per file. Pure values: they look and plan, the engine does."""

from __future__ import annotations

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
from provision.resources.delivery.deployment import AppCheck, Deployment, DroppedApps
from provision.resources.delivery.image import BuiltImage
from provision.resources.delivery.image_check import ImageCheck
from provision.resources.delivery.pipeline import LocalPipeline, PipelineFile, Recipe
from provision.resources.delivery.project import ProjectSettings, WantedProject
from provision.resources.delivery.prune import UnusedImages
from provision.resources.delivery.variables import WantedVariable
from provision.resources.docker.daemon import JsonSettings
from provision.resources.gitlab.acme_certificate import AcmeCertificate
from provision.resources.gitlab.certificates import CertificatePair, ServedCertificate, UploadedPair
from provision.resources.gitlab.gitlab_rb import RubySettings
from provision.resources.gitlab.registry import RegistryEndpoint, RegistryStorage
from provision.resources.gitlab.s3_bucket import S3Bucket
from provision.resources.runner.entries import RunnerEntries, RunnerEntry
from provision.resources.runner.settings import RunnerSettings
from provision.resources.system.apt_source import AptSource
from provision.resources.system.download import Download
from provision.resources.system.file import Absent, Directory, File
from provision.resources.system.firewall import Firewall, Rule
from provision.resources.system.fragment import ConfigFragment
from provision.resources.system.packages import Packages
from provision.resources.system.systemd import AbsentUnit, Service, Unit
from provision.resources.system.trusted_ca import TrustedCa
from provision.resources.system.user import GroupMember, User
from provision.shell import Result

__all__ = [
    "Absent",
    "AbsentUnit",
    "AcmeCertificate",
    "ApiAction",
    "ApiQuery",
    "AppCheck",
    "AptSource",
    "BatchQuery",
    "BuiltImage",
    "CertificatePair",
    "Change",
    "ConfigFragment",
    "Deployment",
    "Directory",
    "Download",
    "DroppedApps",
    "File",
    "Firewall",
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
    "ProjectSettings",
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
