"""The workload to measure: sixteen things that a runner host or a GitLab host has."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from provision.resources import File, Firewall, GroupMember, Packages, Resource, RubySettings, Rule, Service
from provision.tasks import Host, play, task

FILES = Path(__file__).parents[1] / "files"
GITLAB_RB = json.loads((FILES / "gitlab_rb.json").read_text())


@task()
def sixteen(_: Host) -> Iterator[Resource]:
    """Set up Docker with its settings and our CA, four settings of gitlab.rb, a runner's template, and a firewall."""
    yield Packages(("docker-ce",))
    yield Service("docker")
    yield File("/etc/docker/daemon.json", (FILES / "daemon.json").read_bytes())
    yield GroupMember("ubuntu", "docker")
    yield File("/etc/docker/certs.d/registry.bench.test:5000/ca.crt", (FILES / "ca.crt").read_bytes())
    yield RubySettings({("gitlab_rails", key): value for key, value in GITLAB_RB.items()})
    yield File("/etc/gitlab-runner/template.toml", (FILES / "template.toml").read_bytes())
    yield Packages(("ufw",))
    yield Firewall([Rule(80), Rule(443), Rule(5555)], enable=True)


PLAYS = [play("all", sixteen)]
