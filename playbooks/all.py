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

# Docker and gitlab-runner are installed at the same time as GitLab. All later plays need GitLab's API and the token that
# `access` makes. `accounts` makes the projects in which runners are registered, and to which images are pushed.
server = play("gitlab", firewall, gitlab, certificates, registry, access)
packages = play("runners", firewall, docker, runner, after=())
projects = play("all", accounts, after=(server,))
runners = play("runners", register, after=(projects,))
verification = play("runners", verify, after=(projects,))
settings = play("all", project, after=(runners,))
pipelines = play("all", source, pipeline, after=(settings,))  # their jobs need the runners
images = play("all", image, after=(settings,))
apps = play("all", deploy, serial=True, after=(pipelines, images))

PLAYS = [server, packages, projects, runners, verification, settings, pipelines, images, apps]
