"""docs/tutorial.md: each of its commands, run on lab hosts.

Differences from a reader's estate:

- Each command has a second `-i` with the overlay of a rehearsal, to which this test adds: pebble issues certificates in place
  of Let's Encrypt.
- Jobs build with the host's Docker, because not every machine can run privileged containers in a lab. Their containers get
  the lab's name of GitLab and its authority, which a reader has in DNS and in the system.
- `ssh` uses the lab's key, and sammy's password is that of the rehearsal.
- What is pushed to Docker Hub goes to the lab's registry.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import tomlkit

from provision.inventory.tree import merge
from provision_lab import Lab, rehearsal
from provision_lab.harness import Harness
from tests.support.acme import pebble
from tests.support.tutorial import Step, steps

PAGE = "tutorial.md"
RUNNER = "runner-1"
PROJECT = "sammy/hello"
REGISTRY = "gitlab.example.com:5555"
FIRST = "provision all -i inventory.toml"
ANSWER = f"ssh {RUNNER}.example.com curl -s http://localhost:5001/"
SOCKET = "/var/run/docker.sock"
TRUST = "/etc/ssl/certs/ca-certificates.crt"
# The page installs all, runs two pipelines and compiles a program: six minutes while other tests boot hosts beside it.
pytestmark = pytest.mark.timeout(900)
DIND = 'privileged = true\nvolumes = ["/certs/client", "/cache"]\n'


@dataclass
class Reader:
    """A reader at a shell in a folder of their own, with exported variables."""

    harness: Harness
    overlay: Path
    exported: dict[str, str] = field(default_factory=dict)

    @property
    def lab(self) -> Lab:
        """The reader's hosts."""
        return self.harness.lab

    @property
    def folder(self) -> Path:
        """The reader's folder."""
        return self.harness.folder

    def write(self, step: Step) -> None:
        """Writes a file, or appends to it."""
        path = self.folder / step.path
        path.parent.mkdir(exist_ok=True)
        address = self.lab.machine("gitlab").host.address
        socket = f'volumes = ["/cache", "{SOCKET}:{SOCKET}", "{TRUST}:{TRUST}:ro"]\n'
        socket += f'extra_hosts = ["gitlab.example.com:{address}"]\n'
        text = step.text.replace("docker.io/sammy/hello", f"{REGISTRY}/{PROJECT}/hub").replace(DIND, socket)
        if path.name == "inventory.toml":
            text = text.replace('template = "registry"\n', 'template = "registry"\nbuild = "socket"\n')
        path.write_text((path.read_text() if step.added else "") + text)

    def type(self, command: str) -> subprocess.CompletedProcess[str]:
        """Runs one line of the page; it must succeed."""
        if command.startswith("export "):
            name, _, value = command.removeprefix("export ").partition("=")
            own = {"SAMMY_PASSWORD": "rehearsal_secret", "DOCKERHUB_TOKEN": "rehearsal_secret"}  # sammy's in the lab
            self.exported[name] = self.lab.secret(own[name]) if name in own else value
        line = command.replace("-i inventory.toml", f"-i inventory.toml -i {self.overlay}")
        line = line.replace(f"ssh {RUNNER}.example.com", shlex.join(self.lab.ssh_command(RUNNER)))
        done = subprocess.run(
            ["bash", "-ec", line],
            cwd=self.folder,
            env={**os.environ, **self.exported, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done


@pytest.fixture(scope="module")
def reader(lab_factory: Callable[..., Lab], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    """The bare hosts of the page's inventory, without a certificate, and the overlay for them."""
    folder = tmp_path_factory.mktemp("tutorial")
    first = next(one for one in steps(PAGE) if one.path == "inventory.toml")
    inventory = folder / first.path
    inventory.write_text(first.text)
    hosts, server = rehearsal.plan([inventory])
    lab = lab_factory(*hosts, server=server)
    reader = Reader(Harness(lab, folder), lab.folder / "overlay.toml")
    reader.write(first)
    with pebble(reader.harness, tmp_path_factory.mktemp("pebble")) as authority:
        ca = lab.ca.read_text() + authority.tls.certificate + authority.root  # the lab's is that of its Docker Hub
        (lab.folder / "authorities.pem").write_text(ca)
        place = "/etc/gitlab/trusted-certs"
        write = f"rm -r /etc/gitlab/ssl; mkdir -p {place}; cat > {place}/public.crt"
        lab.inside("gitlab", write, stdin=authority.tls.certificate)
        directories = {f"acme_{kind}_endpoint": authority.directory for kind in ("staging", "production")}
        trust = {"registry": {"certificate": {"ca": str(lab.folder / "authorities.pem")}}}
        own = {
            "gitlab": {**trust, "gitlab": {"settings": {"letsencrypt": directories}}},
            RUNNER: {**trust, "docker": {"daemon": lab.docker_hub}},
        }
        reader.overlay.write_text(tomlkit.dumps(merge(rehearsal.overlay(lab, [inventory]), {"hosts": own})))
        yield reader


@pytest.fixture(scope="module")
def message(reader: Reader) -> dict[str, list[str]]:
    """Every line of the page in order: what each of its commands printed, each time."""
    found: dict[str, list[str]] = {}
    for step in steps(PAGE):
        if step.path:
            reader.write(step)
        for command in step.commands:
            found.setdefault(command, []).append(reader.type(command).stdout)
            if command == FIRST and len(found[command]) == 1:  # the base image of a template, which the mirror lacks
                folder = reader.lab.machine(RUNNER).root / "root/httpd/usr/local/apache2/htdocs"
                folder.mkdir(parents=True)
                reader.lab.inside(RUNNER, "tar -C /root/httpd -c . | docker import - httpd:2.4")
    return found


def test_every_command(message: dict[str, list[str]], reader: Reader) -> None:
    """The output of each shows its purpose."""
    full = message[FIRST]
    assert f"verify push and pull of {REGISTRY}/{PROJECT}" in full[0]
    assert ["Nothing to change on 2 hosts" in one for one in full] == [False, True, False, False, True]
    planned, plan = message[f"{FIRST} --check --diff"]
    assert "would create project sammy/hello" in planned
    assert "docker login" in plan
    assert "push 4 files of hello to branch main" in full[2]
    assert "variable DEPLOY_TOKEN" in full[2]
    assert "deploy hello" in full[2]
    assert "push 1 file of hello to branch main" in full[3]
    assert "replace hello" in full[3]
    assert "success" in message["provision ci -i inventory.toml"][0]
    assert "latest" in message["provision images -i inventory.toml"][0]
    assert message[ANSWER] == ["hello world!\n", "hello beautiful world!\n"]
    assert "GET / HTTP" in message["provision logs hello -i inventory.toml"][0]
    # The reader of this test has that runner already.
    assert (
        "Nothing to change" in message["provision register source -i inventory.toml -i socket.toml --check --diff"][0]
    )
    (token,) = re.findall(r"glpat-\w+", reader.lab.inside("gitlab", "cat /var/lib/provision/api_token"))
    secrets = {**reader.exported, "token": token}
    assert not any(value in text for value in secrets.values() for one in message.values() for text in one)


def test_the_certificate_is_the_authoritys(message: dict[str, list[str]], reader: Reader) -> None:
    """GitLab and its registry have the one that they asked for."""
    assert message
    for port in (443, 5555):
        show = (
            f"openssl s_client -connect gitlab.example.com:{port} </dev/null 2>/dev/null | openssl x509 -noout -issuer"
        )
        assert "Pebble" in reader.lab.inside(RUNNER, show)


def test_nothing_to_do_costs_what_it_did_without(message: dict[str, list[str]], reader: Reader) -> None:
    """With project, source, images and app in the inventory: no change, and no more round trips."""
    assert message
    events = [json.loads(line) for line in reader.type(f"{FIRST} --json").stdout.splitlines()]
    assert [one for one in events if one["type"] == "change"] == []
    tasks = {one["task"] for one in events if one["type"] == "task"}
    assert tasks >= {"access", "accounts", "project", "source", "image", "deploy", "verify"}
    assert max(one["round_trips"] for one in events[-1]["hosts"].values()) <= 9


def test_images_of_several_stages_and_of_a_template(message: dict[str, list[str]], reader: Reader) -> None:
    """The images are on the host that built them; the program was compiled, and the compiler is not in its image."""
    assert message
    run = f"docker run --rm {REGISTRY}/sammy/counter"
    assert reader.lab.inside(RUNNER, run) == "one, two, three\n"
    assert reader.lab.inside(RUNNER, f"{run} ls /usr").split() == ["bin", "sbin"]
    page = "usr/local/apache2/htdocs/index.html"
    shown = f"i=$(docker create {REGISTRY}/sammy/site x) && docker cp $i:/{page} - | tar -xO; docker rm $i >/dev/null"
    assert "It works" in reader.lab.inside(RUNNER, shown)
