"""Brings a GitLab CI/CD estate to the state that its inventory describes.

All that a task or playbook of your own needs comes from here: `from provision import File, Host, Service, Table, task`.
The shipped tasks are in `provision.tasks`, for playbooks that name them.

Names are imported when they are first used (PEP 562), so that `provision --help` does not wait for all of them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from pydantic import Field

    from provision.errors import InventoryError, ProbeFailed, Refused, UsageError
    from provision.host.pending import Handler
    from provision.inventory import Estate, Host, SecretSource, Settings, Table, resolve
    from provision.inventory.tables.apt import Apt
    from provision.inventory.tables.docker import Docker
    from provision.inventory.tables.gitlab import Gitlab
    from provision.inventory.tables.registry import Registry
    from provision.resources.base import ApiAction, ApiQuery, Change, Note, Observation, Probe, Resource
    from provision.resources.delivery.deployment import AppCheck, Deployment
    from provision.resources.delivery.image import BuiltImage
    from provision.resources.delivery.pipeline import PipelineFile
    from provision.resources.delivery.project import ProjectSettings, WantedProject
    from provision.resources.docker import JsonSettings
    from provision.resources.gitlab.certificates import CertificatePair
    from provision.resources.gitlab.gitlab_rb import RubySettings
    from provision.resources.system.apt_source import AptSource
    from provision.resources.system.download import Download
    from provision.resources.system.file import Absent, ConfigFragment, Directory, File
    from provision.resources.system.firewall import Firewall, Rule
    from provision.resources.system.packages import Packages
    from provision.resources.system.systemd import AbsentUnit, Service, Unit
    from provision.resources.system.trusted_ca import TrustedCa
    from provision.resources.system.user import GroupMember, User
    from provision.secret import Secret
    from provision.shell import Command, Result, sh
    from provision.tasks.base import Play, Task, play, task
    from provision.templating import render
    from provision.url import Url

__version__ = "0.1.0"

_RESOURCES: Final = "provision.resources"
_MODULES: Final = {
    # tasks and playbooks
    **dict.fromkeys(("Play", "Task", "play", "task"), "provision.tasks.base"),
    # settings
    **dict.fromkeys(("Estate", "Host", "SecretSource", "Settings", "Table", "resolve"), "provision.inventory"),
    "Field": "pydantic",
    "Apt": "provision.inventory.tables.apt",
    "Docker": "provision.inventory.tables.docker",
    "Gitlab": "provision.inventory.tables.gitlab",
    "Registry": "provision.inventory.tables.registry",
    "Secret": "provision.secret",
    "Url": "provision.url",
    # resources
    **dict.fromkeys(("Absent", "ConfigFragment", "Directory", "Download", "File", "JsonSettings"), _RESOURCES),
    **dict.fromkeys(("AptSource", "GroupMember", "Packages", "TrustedCa", "User"), _RESOURCES),
    **dict.fromkeys(("AbsentUnit", "Firewall", "Rule", "Service", "Unit"), _RESOURCES),
    **dict.fromkeys(("AppCheck", "BuiltImage", "CertificatePair", "Deployment", "PipelineFile"), _RESOURCES),
    **dict.fromkeys(("ProjectSettings", "RubySettings", "WantedProject"), _RESOURCES),
    # resources of your own
    **dict.fromkeys(("ApiAction", "ApiQuery", "Change", "Handler", "Note", "Observation"), _RESOURCES),
    **dict.fromkeys(("Probe", "Resource"), _RESOURCES),
    **dict.fromkeys(("Command", "Result", "sh"), "provision.shell"),
    **dict.fromkeys(("InventoryError", "ProbeFailed", "Refused", "UsageError"), "provision.errors"),
    "render": "provision.templating",
}  # name: the module that it is imported from

__all__ = [*_MODULES, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'provision' has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
