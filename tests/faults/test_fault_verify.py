"""`provision verify` stops at the first broken layer and names it with its remedy; GitLab's API refuses."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from provision_lab import LabHost
from provision_lab.certificates import Authority
from provision_lab.harness import Harness
from tests.support.faults import fact, on_host
from tests.support.runs import applied, provision, unchanged, untouched, without_s3

BROKEN_HOST, OTHER = "runner-1", "runner-2"
REGISTRY = "gitlab.lab.test:5555"
CA = f"/etc/docker/certs.d/{REGISTRY}/ca.crt"
STORE = "/usr/local/share/ca-certificates"  # what the host itself trusts, curl and Docker among others
Broken = AbstractContextManager[Any]


@pytest.fixture(scope="module")
def harness(harness_factory: Callable[..., Harness]) -> Harness:
    """A whole, working estate."""
    harness = without_s3(
        harness_factory(
            LabHost("gitlab", prepared="server"), *(LabHost(name, prepared="runner") for name in (BROKEN_HOST, OTHER))
        )
    )
    applied(harness, "all")
    harness.inventory["gitlab"]["ready_timeout"] = 0  # the faults here stay
    return harness


def secret(harness: Harness, name: str, text: str) -> dict[str, str]:
    """A secret of the inventory in a file of this machine."""
    path = harness.folder / name
    path.write_text(text)
    path.chmod(0o600)
    return {"file": str(path)}


@dataclass(frozen=True)
class Layer:
    """What is broken where (`hosts` fail, the others pass), and the text of the error."""

    name: str
    hosts: tuple[str, ...]
    before: str
    after: str
    words: tuple[str, ...]
    at: str = BROKEN_HOST


_BOTH = (BROKEN_HOST, OTHER)
LAYERS = [
    Layer(
        "name",
        (BROKEN_HOST,),
        "cp /etc/hosts /root/hosts; sed 's/gitlab.lab.test//' /root/hosts > /etc/hosts",
        "cat /root/hosts > /etc/hosts",
        ("name: gitlab.lab.test does not resolve on this host", "DNS or /etc/hosts"),
    ),
    Layer(
        "refused",
        _BOTH,
        "gitlab-ctl stop nginx",
        "gitlab-ctl start nginx",
        ("tcp: gitlab.lab.test", "refuses port 5555", "gitlab-ctl status"),
        "gitlab",
    ),
    Layer(
        "dropped",
        _BOTH,
        "ufw delete allow 5555/tcp",
        "ufw allow 5555/tcp comment 'provision: registry'",
        ("tcp: gitlab.lab.test", "port 5555 does not answer", "provision firewall"),
        "gitlab",
    ),
    Layer("tls", (BROKEN_HOST,), "", "", ("tls: its certificate is not trusted", "registry.certificate.ca")),
    Layer(
        "registry down",
        _BOTH,
        "gitlab-ctl stop registry",
        "gitlab-ctl start registry",
        ("/v2/: answers HTTP/", "502", "gitlab-ctl tail registry"),
        "gitlab",
    ),
    Layer(
        "docker down",
        (BROKEN_HOST,),
        "systemctl stop docker.socket docker",
        "systemctl start docker",
        ("docker daemon",),
    ),
]


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.name.replace(" ", "-"))
def test_layer(harness: Harness, layer: Layer) -> None:
    """Exit code 1, the layer comes first, then the remedy; a host that can reach the registry passes."""
    before, after = layer.before, layer.after
    if layer.name == "tls":
        other = Authority("somebody else").certificate
        before = f"cp -p {CA} /root/ca; echo '{other}' > {CA}; mv {STORE} /root/store; mkdir {STORE}"
        after = f"mv /root/ca {CA}; rmdir {STORE}; mv /root/store {STORE}"
        before, after = (f"{one}; update-ca-certificates --fresh >/dev/null 2>&1" for one in (before, after))
    with on_host(harness, layer.at, before, after):
        outcome = provision(harness, "verify")
    assert outcome.code == 1
    assert {one["host"] for one in outcome.of("error")} == set(layer.hosts), outcome.errors
    for error in outcome.of("error"):
        printed = f"{error['text']} → {error['hint']}"
        assert [word for word in layer.words if word not in printed] == [], printed
        assert error["hint"]
    if OTHER not in layer.hosts:
        assert outcome.statuses(OTHER) == {"verify": "ok"}
    assert leftovers(harness, BROKEN_HOST) == ""


def leftovers(harness: Harness, host: str) -> str:
    """What a verification has left on a host: logins, images, folders."""
    look = "ls -d /dev/shm/provision* /root/.docker 2>/dev/null; docker image ls -q 2>/dev/null; true"
    return fact(harness, host, look)


def test_login_refused(harness: Harness) -> None:
    """A wrong password: the layer, the registry's error, where to check; the password is nowhere."""
    wrong = {"registry": {"login": {"password": secret(harness, "wrong", "a-password-of-nobody")}}}
    outcome = provision(harness, "verify", changes=wrong)
    assert (outcome.code, len(outcome.of("error"))) == (1, 2)
    for error in outcome.of("error"):
        assert "login: " in error["text"]
        assert "registry.login" in f"{error['text']} → {error['hint']}"
    assert "a-password-of-nobody" not in json.dumps(outcome.events) + outcome.stderr
    assert leftovers(harness, BROKEN_HOST) == ""


def test_push_refused(harness: Harness) -> None:
    """A project that the user may not push to: the login succeeds, the push is reported."""
    outcome = provision(harness, "verify", changes={"registry": {"login": {"image": "somebody/else"}}})
    assert (outcome.code, len(outcome.of("error"))) == (1, 2)
    for error in outcome.of("error"):
        assert "push: " in error["text"]
        assert "this user may push there" in f"{error['text']} → {error['hint']}"
    assert leftovers(harness, BROKEN_HOST) == ""


def test_once_fixed_it_passes(harness: Harness) -> None:
    """After all of these the estate is unchanged: nothing is to change, and the verification succeeds."""
    unchanged(harness, "all")
    assert "verify push and pull" in applied(harness, "verify").messages()


RUNNER = {"name": "second", "executor": "shell", "tags": ["second"]}


def refusals(harness: Harness) -> dict[str, tuple[Mapping[str, Any], Broken, tuple[str, ...]]]:
    """By name: the change of the inventory, what is broken meanwhile, and the text of the error."""
    runners = [*harness.inventory["runners"], RUNNER]
    fault = 'echo \'[{"method": "POST", "path": "/api/v4/user/runners", "status": 500}]\''
    faults = "/etc/gitlab-standin/api-faults.json"
    return {
        "wrong API token": (
            {"runners": runners, "gitlab": {"api_token": secret(harness, "token", "glpat-of-nobody-at-all")}},
            nullcontext(),
            ("401", "gitlab.api_token is not valid"),
        ),
        "unknown project": (
            {"runners": [*harness.inventory["runners"], {**RUNNER, "project": "no/where"}]},
            nullcontext(),
            ("404", "no%2Fwhere"),
        ),
        "token that GitLab refuses": (
            {
                "runners": [
                    *harness.inventory["runners"],
                    {
                        "name": "second",
                        "executor": "shell",
                        "token": secret(harness, "runner", "glrt-of-nobody-at-all"),
                    },
                ]
            },
            nullcontext(),
            ("refuses the token of runner second", "deleted or reset"),
        ),
        "GitLab fails": (
            {"runners": runners},
            on_host(harness, "gitlab", f"{fault} > {faults}", f"rm -f {faults}"),
            ("500", "GitLab itself reports an error"),
        ),
    }


@pytest.mark.parametrize("name", ["wrong API token", "unknown project", "token that GitLab refuses", "GitLab fails"])
def test_registration_refused(harness: Harness, name: str) -> None:
    """GitLab's answer and the next step; config.toml is unchanged on every host."""
    changes, broken, words = refusals(harness)[name]
    with broken, untouched(harness, BROKEN_HOST, "/etc/gitlab-runner"), untouched(harness, OTHER, "/etc/gitlab-runner"):
        outcome = provision(harness, "register", changes=changes)
    assert (outcome.code, len(outcome.of("error"))) == (1, 2), outcome.events
    for error in outcome.of("error"):
        printed = f"{error['text']} → {error['hint']}"
        assert [word for word in words if word not in printed] == [], printed
    assert "of-nobody-at-all" not in json.dumps(outcome.events) + outcome.stderr


def test_made_in_gitlab_and_not_written(harness: Harness) -> None:
    """The new config.toml cannot be written: reported, and the next run creates no second runner."""
    runners = {"runners": [*harness.inventory["runners"], {**RUNNER, "name": "third"}]}
    known = number_of_runners(harness)
    spoil = "mv /usr/bin/gitlab-runner /root/real; printf '#!/bin/sh\\necho no-disk-today >&2; exit 1\\n' > /root/fake"
    spoil += '; printf \'#!/bin/sh\\ncase "$*" in *--help*) exit 0;; lint*) exec sh /root/fake;; esac; exec /root/real "$@"\\n\''
    spoil += " > /usr/bin/gitlab-runner; chmod 755 /usr/bin/gitlab-runner"
    with (
        on_host(harness, BROKEN_HOST, spoil, "mv /root/real /usr/bin/gitlab-runner"),
        untouched(harness, BROKEN_HOST, "/etc/gitlab-runner/config.toml"),
    ):
        outcome = provision(harness, "register", "--limit", BROKEN_HOST, changes=runners)
    assert (outcome.code, "no-disk-today" in outcome.errors) == (1, True), outcome.events
    assert number_of_runners(harness) == known + 1
    applied(harness, "register", "--limit", BROKEN_HOST, changes=runners)
    assert number_of_runners(harness) == known + 1
    unchanged(harness, "register", "--limit", BROKEN_HOST, changes=runners)
    applied(harness, "register", "--limit", BROKEN_HOST)
    assert number_of_runners(harness) == known


def number_of_runners(harness: Harness) -> int:
    """How many runners GitLab has, asked by curl on its host."""
    token = Path(harness.inventory["gitlab"]["api_token"]["file"]).read_text()
    ask = "curl -sfk -K - 'https://gitlab.lab.test/api/v4/runners/all'"
    return len(json.loads(harness.lab.inside("gitlab", ask, stdin=f'header = "PRIVATE-TOKEN: {token}"\n')))


def test_gitlab_answers_again(harness: Harness) -> None:
    """What was refused is done when possible: one new runner for each host, none from earlier attempts."""
    runners = {"runners": [*harness.inventory["runners"], RUNNER]}
    applied(harness, "register", changes=runners)
    unchanged(harness, "register", changes=runners)
    for host in (BROKEN_HOST, OTHER):
        assert fact(harness, host, "grep -c '^ *token = ' /etc/gitlab-runner/config.toml") == "2"
    assert number_of_runners(harness) == 4
