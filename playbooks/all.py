"""A whole estate: the server's registry, the runners, and the proof."""

from provision.tasks import certificates, docker, firewall, gitlab, play, register, registry, runner, verify

PLAYS = [
    play("gitlab", gitlab, certificates, registry, firewall),
    play("runners", docker, runner, register),
    play("runners", verify),
]
