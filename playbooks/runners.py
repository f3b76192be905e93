"""The runner hosts: their firewall, Docker, gitlab-runner, its registration."""

from provision import play
from provision.tasks import docker, firewall, register, runner

PLAYS = [play("runners", firewall, docker, runner, register)]
