"""The runner hosts: Docker, gitlab-runner, its registration."""

from provision.tasks import docker, play, register, runner

PLAYS = [play("runners", docker, runner, register)]
