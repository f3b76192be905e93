"""A whole estate: the server's registry, the runners, the proof; projects, images and apps."""

from provision.tasks import (
    certificates,
    deploy,
    docker,
    firewall,
    gitlab,
    image,
    pipeline,
    play,
    project,
    register,
    registry,
    runner,
    verify,
)

PLAYS = [
    play("gitlab", gitlab, certificates, registry, firewall),
    play("runners", docker, runner, register),
    play("runners", verify),
    play("all", project, pipeline),
    play("all", image),
    play("all", deploy, serial=True),
]
