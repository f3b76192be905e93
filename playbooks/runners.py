"""The runner hosts: Docker, gitlab-runner, its registration."""

from provision import play
from provision.tasks import docker, register, runner

PLAYS = [play("runners", docker, runner, register)]
