"""The tasks that users run from the command line, by subject. `base` defines tasks and plays."""

from __future__ import annotations

from provision.inventory import Host
from provision.tasks.base import Play, Task, play, task
from provision.tasks.delivery import deploy, image, prune
from provision.tasks.gitlab import access, accounts, gitlab
from provision.tasks.host import docker, firewall
from provision.tasks.project import pipeline, project, source
from provision.tasks.registry import certificates, registry, verify
from provision.tasks.runner import register, runner

SHIPPED = (
    *(gitlab, certificates, registry, firewall, access, accounts),
    *(docker, runner, register, verify),
    *(project, source, pipeline, image, deploy, prune),
)

__all__ = [
    "SHIPPED",
    "Host",
    "Play",
    "Task",
    "access",
    "accounts",
    "certificates",
    "deploy",
    "docker",
    "firewall",
    "gitlab",
    "image",
    "pipeline",
    "play",
    "project",
    "prune",
    "register",
    "registry",
    "runner",
    "source",
    "task",
    "verify",
]
