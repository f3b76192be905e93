"""The tasks that users run from the command line, one per file. `base` defines tasks and plays."""

from __future__ import annotations

from provision.inventory import Host
from provision.tasks.base import Play, Task, play, task
from provision.tasks.certificates import certificates
from provision.tasks.deploy import deploy
from provision.tasks.docker import docker
from provision.tasks.firewall import firewall
from provision.tasks.gitlab import gitlab
from provision.tasks.image import image
from provision.tasks.pipeline import pipeline
from provision.tasks.project import project
from provision.tasks.prune import prune
from provision.tasks.register import register
from provision.tasks.registry import registry
from provision.tasks.runner import runner
from provision.tasks.verify import verify

SHIPPED = (
    *(gitlab, certificates, registry, firewall),
    *(docker, runner, register, verify),
    *(project, pipeline, image, deploy, prune),
)

__all__ = [
    "SHIPPED",
    "Host",
    "Play",
    "Task",
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
    "task",
    "verify",
]
