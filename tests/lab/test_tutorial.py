"""docs/tutorial.md, typed line by line on lab hosts.

Differences from a reader's estate: each command has a second `-i` with the lab's overlay, `ssh` uses the lab's key, the lab's
registry replaces Docker Hub, and base images are created on the host, without network.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import tomlkit

from provision_lab import Lab, rehearsal
from tests.support.tutorial import Step, steps

PAGE = "tutorial.md"
RUNNER = "runner-1"
SYSTEM = "bin sbin lib lib64 usr/bin usr/sbin usr/lib usr/lib64 etc"
IMPORT = "tar -C {root} --exclude=usr/lib/systemd --exclude=usr/lib/firmware -c {what} 2>/dev/null | docker import {more} - {name} >/dev/null"
# A compiler is not what this is about: one file comes out of the first stage, and goes into the second.
GO = '#!/bin/sh\n[ "$1 $2" = \'build -o\' ] && mkdir -p "${3%/*}" && cp /bin/true "$3"\n'


@dataclass
class Reader:
    """A reader at a shell in a folder of their own, with exported variables."""

    lab: Lab
    folder: Path
    exported: dict[str, str] = field(default_factory=dict)

    def write(self, step: Step) -> None:
        """Writes a file, or appends to it."""
        path = self.folder / step.path
        path.parent.mkdir(exist_ok=True)
        before = path.read_text() if step.added else ""
        path.write_text(
            before + step.text.replace("docker.io/sammy/hello", "gitlab.example.com:5555/sammy/hello_hapi/hub")
        )

    def type(self, command: str) -> subprocess.CompletedProcess[str]:
        """Runs one line of the page; it must succeed."""
        if command.startswith("export "):
            name, _, value = command.removeprefix("export ").partition("=")
            self.exported[name] = self.lab.secret("registry_password") if name == "DOCKERHUB_TOKEN" else value
        line = command.replace("-i inventory.toml", f"-i inventory.toml -i {self.lab.folder / 'overlay.toml'}")
        line = line.replace(f"ssh {RUNNER}.example.com", shlex.join(self.lab.ssh_command(RUNNER)))
        done = subprocess.run(
            ["bash", "-ec", line],
            cwd=self.folder,
            env={**os.environ, **self.exported, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done


@pytest.fixture(scope="module")
def reader(lab_factory: Callable[..., Lab], tmp_path_factory: pytest.TempPathFactory) -> Reader:
    """The bare hosts of the page's inventory, and the overlay for them."""
    folder = tmp_path_factory.mktemp("tutorial")
    inventory = folder / "inventory.toml"
    inventory.write_text(next(one.text for one in steps(PAGE) if one.path == "inventory.toml"))
    hosts, server = rehearsal.plan([inventory])
    lab = lab_factory(*hosts, server=server)
    (lab.folder / "overlay.toml").write_text(tomlkit.dumps(rehearsal.overlay(lab, [inventory])))
    return Reader(lab, folder)


def create_base_images(lab: Lab) -> None:
    """Creates the base images of the page's Dockerfiles."""
    machine = lab.machine(RUNNER)
    (machine.root / "root/usr/local/bin").mkdir(parents=True, exist_ok=True)
    (machine.root / "root/usr/local/apache2/htdocs").mkdir(parents=True, exist_ok=True)
    go = machine.root / "root/usr/local/bin/go"
    go.write_text(GO)
    go.chmod(0o755)
    path = "--change 'ENV PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'"
    for root, what, name in (
        ("/", SYSTEM, "python:3.13-slim"),
        ("/", f"{SYSTEM} -C /root usr/local/bin/go", "golang:1.25"),
        ("/", "bin/busybox", "alpine:3.22"),
        ("/root", "usr/local/apache2", "httpd:2.4"),
    ):
        lab.inside(RUNNER, IMPORT.format(root=root, what=what, more=path, name=name))


def test_every_command(reader: Reader) -> None:
    """Every line in order; the output shows the purpose of each."""
    message: dict[str, list[str]] = {}
    for step in steps(PAGE):
        if step.path:
            reader.write(step)
        for command in step.commands:
            if command == "provision image -i inventory.toml" and command not in message:
                create_base_images(reader.lab)
            message.setdefault(command, []).append(reader.type(command).stdout)
    full, project = message["provision all -i inventory.toml"], "provision project pipeline -i inventory.toml"
    assert "verify push and pull of gitlab.example.com:5555/sammy/hello_hapi" in full[0]
    assert ["Nothing to change on 2 hosts" in one for one in full] == [False, True, True]
    assert ".gitlab-ci.yml" in message[f"{project} --check --diff"][0]
    assert "docker login" in message[f"{project} --check --diff"][0]
    assert "DEPLOY_TOKEN" in message[project][0]
    answers = message[f"ssh {RUNNER}.example.com curl -s http://localhost:5001/"]
    assert answers == ["hello world!\n", "hello beautiful world!\n"]
    assert "GET / HTTP" in message["provision logs hello -i inventory.toml"][0]
    socket = message["provision register pipeline -i inventory.toml -i socket.toml --check --diff"][0]
    assert "/var/run/docker.sock" in socket
    assert not any(value in text for value in reader.exported.values() for one in message.values() for text in one)


def test_nothing_to_do_costs_what_it_did_without(reader: Reader) -> None:
    """With project, pipeline, images and app in the inventory: no change, and no more round trips."""
    events = [json.loads(line) for line in reader.type("provision all -i inventory.toml --json").stdout.splitlines()]
    assert [one for one in events if one["type"] == "change"] == []
    tasks = {one["task"] for one in events if one["type"] == "task"}
    assert tasks >= {"project", "pipeline", "image", "deploy", "verify"}
    assert max(one["round_trips"] for one in events[-1]["hosts"].values()) <= 9


def test_images_of_several_stages_and_of_a_template(reader: Reader) -> None:
    """The images are on the host that built them; the compiler is not in them."""
    assert (
        reader.lab.inside(
            RUNNER, "docker run --rm --entrypoint /bin/busybox gitlab.example.com:5555/sammy/counter ls /app"
        )
        == "/app\n"
    )
    page = "usr/local/apache2/htdocs/index.html"
    shown = f"i=$(docker create gitlab.example.com:5555/sammy/site x) && docker cp $i:/{page} - | tar -xO; docker rm $i >/dev/null"
    assert "It works" in reader.lab.inside(RUNNER, shown)
