"""The whole estate: GitLab and its registry, runners, verification, projects, images and apps."""

from provision import play
from provision.tasks import (
    access,
    accounts,
    certificates,
    deploy,
    docker,
    firewall,
    gitlab,
    image,
    pipeline,
    project,
    register,
    registry,
    runner,
    source,
    verify,
)

PLAYS = [
    play("gitlab", firewall, gitlab, certificates, registry, access),
    play("all", accounts),
    play("runners", firewall, docker, runner, register),
    play("runners", verify),
    play("all", project, source, pipeline),
    play("all", image),
    play("all", deploy, serial=True),
]
