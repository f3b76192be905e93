"""Faults of images and apps: one message each, with what, where and the next step; nothing is left half done."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from provision_lab import LabHost
from provision_lab.harness import Harness
from tests.support.images import HELLO, IMAGE, REGISTRY, answer, base_image, container, names, write_app
from tests.support.runs import applied, provision, refused, strays, unchanged, without_s3
from tests.support.waiting import wait_for

HOST = "runner-1"
STORAGE = "/var/opt/gitlab/gitlab-rails/shared/registry"


@pytest.fixture(scope="module")
def harness(harness_factory: Callable[..., Harness]) -> Harness:
    """An app that runs."""
    harness = without_s3(harness_factory(LabHost("gitlab", prepared="server"), LabHost(HOST, prepared="runner")))
    applied(harness, "all")
    base_image(harness, HOST)
    write_app(harness)
    harness.inventory |= {"images": [IMAGE], "apps": [HELLO]}
    applied(harness, "image", "deploy")
    return harness


@dataclass(frozen=True)
class Fault:
    """What is broken, what is requested, and the text of the message."""

    name: str
    task: str
    words: tuple[str, ...]
    before: str = "true"
    after: str = "true"
    at: str = HOST
    app: Mapping[str, Any] = field(default_factory=dict)
    image: Mapping[str, Any] = field(default_factory=dict)


LISTEN = "systemd-run -q --unit=listener busybox httpd -f -p 5002"
NEVER_WELL = {"command": "false", "interval": "1s", "retries": 2}
FAULTS = [
    Fault("port held by a program", "deploy", ("port 5002: busybox (process ", ") uses it"), LISTEN, "systemctl stop listener", app={"ports": ["5002:5000"]}),
    Fault("port held on one address", "deploy", ("port 5002: busybox",), LISTEN, "systemctl stop listener", app={"ports": ["127.0.0.1:5002:5000"]}),
    Fault(
        "port held by a container", "deploy", ("port 5003: the container theirs (python:3.10.5) uses it",),
        "docker run -d --name theirs -p 5003:80 python:3.10.5 python -c 'import time; time.sleep(600)'", "docker rm -f theirs",
        app={"ports": ["5003:5000"]},
    ),
    Fault("udp port held", "deploy", ("port 5004: ", "uses it"), "systemd-run -q --unit=listener python3 -c \"import socket, time; one = socket.socket(2, 2); one.bind(('', 5004)); time.sleep(600)\"", "systemctl stop listener", app={"ports": ["5004:5000/udp"]}),
    Fault("health never up", "deploy", ("its health check fails", "rolled back: the previous container runs again"), app={"health": NEVER_WELL}),
    Fault("check never up", "deploy", ("not healthy within 10 s: http://localhost:5001/gone answers 404 instead of 200", "the previous container runs again"), app={"environment": {"A": "b"}, "check": {"url": "http://localhost:5001/gone", "seconds": 10}}),
    Fault("check by command", "deploy", ("not healthy within 2 s: false fails: ", "the previous container runs again"), app={"environment": {"A": "b"}, "check": {"command": ["false"], "seconds": 2}}),
    Fault("a program that is not there", "deploy", ("it cannot be started", "serve", "the previous container runs again"), app={"command": ["serve"]}),
    Fault("a volume that cannot be", "deploy", ("docker create hello: ", "the previous container still runs"), app={"volumes": ["data:/data:sometimes"]}),
    Fault("a tag that is not there", "deploy", (f"docker pull {REGISTRY}/root/hello_hapi:9.9: ", "provision image"), app={"image": "root/hello_hapi:9.9"}),
    Fault("login refused", "deploy", (f"login to {REGISTRY} as root: ", "check the login"), app={"environment": {"A": "b"}, "login": {"username": "root", "password": "not-the-password"}}),
    Fault("login refused to push", "image", (f"login to {REGISTRY} as root: ", "check the login"), image={"login": {"username": "root", "password": "not-the-password"}, "tags": ["2.0"]}),
    Fault("no right to push", "image", ("docker push", "denied"), image={"name": "somebody/else", "tags": ["2.0"]}),
    Fault("a step of the Dockerfile fails", "image", ("docker build: Broken:2: RUN no-such-program\n", "no-such-program: not found", "exit code: 127"), image={"dockerfile": "Broken", "tags": ["2.0"]}),
    Fault(
        "registry out of disk", "image", ("docker push", "disk full"),
        f"mount -t tmpfs -o size=64k,mode=0777 tmpfs {STORAGE}", f"umount -l {STORAGE}", at="gitlab", image={"tags": ["2.0"]},
    ),
    Fault("registry down", "deploy", (f"login to {REGISTRY} as root: ", "refused"), "gitlab-ctl stop nginx", "gitlab-ctl start nginx", at="gitlab", app={"environment": {"A": "b"}}),
]  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS, ids=[fault.name for fault in FAULTS])
def test_one_message_and_nothing_half_done(harness: Harness, fault: Fault) -> None:
    """The old container serves with its settings; nothing of ours is left, and the next run succeeds."""
    (harness.folder / "hello/Broken").write_text("FROM python:3.10.5\nRUN no-such-program\n")
    before = container(harness, HOST).split()[0]
    changes = {"apps": [{**HELLO, **fault.app}], "images": [{**IMAGE, **fault.image}]}
    harness.lab.inside(fault.at, fault.before)
    try:
        outcome = refused(harness, fault.task, changes=changes)
    finally:
        harness.lab.inside(fault.at, fault.after)
    (error,) = outcome.of("error")
    for words in fault.words:
        assert words in error["text"], error["text"]
    assert error["hint"]
    assert container(harness, HOST).split()[0] == before
    wait_for(lambda: answer(harness, HOST) == "hello world!", "the answer of the one that served")
    assert names(harness, HOST) == ["hello"]
    (harness.folder / "hello/Broken").unlink()
    applied(harness, "image", "deploy")
    unchanged(harness, "image", "deploy")
    assert container(harness, HOST).split()[0] == before
    assert strays(harness, HOST) == []


def test_the_holder_of_a_port_that_is_ours(harness: Harness) -> None:
    """The container that is replaced may hold the port."""
    changes = {"apps": [{**HELLO, "environment": {"A": "b"}}]}
    assert applied(harness, "deploy", changes=changes).changes() == ["replace hello: its settings differ"]
    applied(harness, "deploy")


def test_another_ones_container(harness: Harness) -> None:
    """A container of others has the name: it is named, and neither stopped nor removed."""
    harness.lab.inside(HOST, "docker run -d --name web python:3.10.5 python -c 'import time; time.sleep(600)'")
    app = {**HELLO, "name": "web", "ports": []}
    for mode in ([], ["--check"]):
        assert (
            "there is another container called web, of python:3.10.5"
            in refused(harness, "deploy", *mode, changes={"apps": [HELLO, app]}).errors
        )
    assert names(harness, HOST) == ["hello", "web"]
    harness.lab.inside(HOST, "docker rm -f web")
    applied(harness, "deploy")


BAD_INPUT = [
    ({"images": [{**IMAGE, "name": "root/Hello"}]}, "images are named in lower case: expected 'hello'"),
    ({"images": [{**IMAGE, "tags": ["1 0"]}]}, "expected a tag of letters"),
    ({"images": [{**IMAGE, "dockerfile": "Dockerfile.prod"}]}, "there is no Dockerfile.prod in"),
    ({"images": [{**IMAGE, "context": "missing"}]}, "does not exist"),
    ({"apps": [{**HELLO, "on": "runers"}]}, 'did you mean "runners"?'),
    ({"apps": [{**HELLO, "ports": ["5001"]}]}, "expected HOST:CONTAINER"),
]


@pytest.mark.parametrize(("changes", "why"), BAD_INPUT)
def test_bad_input_is_refused_before_anything_is_contacted(harness: Harness, changes: dict[str, Any], why: str) -> None:
    """Exit code 2, one message."""
    outcome = provision(harness, "image", "deploy", changes=changes)
    assert outcome.code == 2
    assert outcome.events == ()
    assert why in outcome.stderr
    assert outcome.stderr.count("error:") == 1
