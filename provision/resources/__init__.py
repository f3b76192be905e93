"""The nouns of a wanted state, one per file. Pure values: they look and plan, the engine does."""

from __future__ import annotations

from provision.resources.acme_certificate import AcmeCertificate
from provision.resources.apt_source import AptSource
from provision.resources.base import (
    Ask,
    Call,
    Change,
    Handler,
    Note,
    Observation,
    Probe,
    Resource,
    Result,
)
from provision.resources.built_image import BuiltImage
from provision.resources.certificate_pair import CertificatePair
from provision.resources.containers import DroppedApps
from provision.resources.deployment import Deployment, Trial
from provision.resources.file import Absent, File
from provision.resources.firewall import Firewall, Rule
from provision.resources.gitlab_project import ProjectSettings, WantedProject, WantedVariable
from provision.resources.group_member import GroupMember
from provision.resources.image_proof import ImageProof
from provision.resources.json_settings import JsonSettings
from provision.resources.packages import Packages
from provision.resources.pipeline import LocalPipeline, PipelineFile, Recipe
from provision.resources.registry_answer import RegistryAnswer
from provision.resources.registry_storage import RegistryStorage
from provision.resources.ruby_settings import RubySettings
from provision.resources.runner_entries import RunnerEntries, RunnerEntry
from provision.resources.runner_settings import RunnerSettings
from provision.resources.s3_bucket import S3Bucket
from provision.resources.served_certificate import ServedCertificate
from provision.resources.service import Service
from provision.resources.trusted_ca import TrustedCa
from provision.resources.unused_images import PruneTimer, UnusedImages
from provision.resources.uploaded_pair import UploadedPair

__all__ = [
    "Absent",
    "AcmeCertificate",
    "AptSource",
    "Ask",
    "BuiltImage",
    "Call",
    "CertificatePair",
    "Change",
    "Deployment",
    "DroppedApps",
    "File",
    "Firewall",
    "GroupMember",
    "Handler",
    "ImageProof",
    "JsonSettings",
    "LocalPipeline",
    "Note",
    "Observation",
    "Packages",
    "PipelineFile",
    "Probe",
    "ProjectSettings",
    "PruneTimer",
    "Recipe",
    "RegistryAnswer",
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
    "Trial",
    "TrustedCa",
    "UnusedImages",
    "UploadedPair",
    "WantedProject",
    "WantedVariable",
]
