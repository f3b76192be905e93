"""A registry at `https://[2001:db8::1]:5555`: what each task gives to the programs on the hosts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from provision.image_name import parse
from provision.resources import (
    BuiltImage,
    CertificatePair,
    Deployment,
    File,
    Firewall,
    ImageCheck,
    RegistryEndpoint,
    Resource,
    RubySettings,
    Rule,
    ServedCertificate,
    UploadedPair,
)
from provision.shell import Command
from provision.testing import observe, planned
from provision_lab.certificates import Authority
from tests.support.wanted import only

URL = "https://[2001:db8::1]:5555"
NAME = "[2001:db8::1]:5555"
CA = Authority("a CA")
ESTATE = f"""
[hosts.gitlab]
address = "2001:db8::1"
groups = ["gitlab"]
[hosts.runner-1]
address = "2001:db8::11"
groups = ["runners"]
[gitlab]
external_url = "https://[2001:db8::1]"
[registry]
external_url = "{URL}"
[registry.certificate]
ca = "ca.pem"
[registry.login]
username = "sammy"
password = "the-login-password"
image = "sammy/hello"
"""
Wants = Callable[..., tuple[Resource, ...]]


@pytest.fixture
def by_address(wants: Wants, tmp_path: Path) -> Wants:
    """The resources of a task, for the estate above."""
    (tmp_path / "ca.pem").write_text(CA.certificate)
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    return lambda name, text="": wants(name, text, base=ESTATE)


def files(resources: tuple[Resource, ...]) -> set[str]:
    """The paths of the files."""
    return {one.path for one in resources if isinstance(one, File)}


def test_gitlab_rb_has_the_url_as_it_was_written(by_address: Wants) -> None:
    """The certificate's paths are those that Omnibus builds: with the brackets of the URL's host."""
    settings = only(by_address("registry"), RubySettings).settings
    assert settings[("registry_external_url",)] == URL
    assert settings[("registry_nginx", "ssl_certificate")] == "/etc/gitlab/ssl/[2001:db8::1].crt"


@pytest.mark.parametrize(
    ("task", "table", "newer"),
    [("gitlab", "nginx", "gitlab_rails.nginx"), ("registry", "registry_nginx", "registry.nginx")],
)
def test_nginx_listens_on_ipv6(by_address: Wants, wants: Wants, task: str, table: str, newer: str) -> None:
    """Its default is IPv4 only. What the inventory sets itself, under either name, is kept; names say nothing of it."""

    def listens(resources: tuple[Resource, ...]) -> Any:
        return only(resources, RubySettings).settings.get((table, "listen_addresses"))

    assert listens(by_address(task)) == ["*", "[::]"]
    own = '[gitlab.settings]\n{}.listen_addresses = ["[2001:db8::1]"]\n'
    assert listens(by_address(task, own.format(table))) == (["[2001:db8::1]"] if task == "gitlab" else None)
    assert listens(by_address(task, own.format(newer))) is None
    by_name = ESTATE.replace("[2001:db8::1]", "gitlab.example.com")
    assert listens(wants(task, base=by_name)) is None


def test_the_health_check_after_a_reconfigure(by_address: Wants) -> None:
    """It connects to the host itself: `curl --resolve` does not accept an IPv6 address as the name."""
    answer = only(by_address("registry"), RegistryEndpoint)
    assert answer.realm == "https://[2001:db8::1]/jwt/auth"
    assert f"set -- '{URL}' " in answer.repair.run.script
    assert "--resolve" not in answer.repair.run.script
    question = answer.probe()["answer"]
    assert question.script.endswith(f"--connect-to '::[::1]:' -- '{URL}/v2/'")


def test_docker_trusts_the_authority_under_the_registrys_name(by_address: Wants) -> None:
    """The folder is the one that Docker reads. A registry in docker.registries may be an address, too."""
    assert f"/etc/docker/certs.d/{NAME}/ca.crt" in files(by_address("docker"))
    more = '[docker.registries."[2001:db8::2]:5000"]\nca = "ca.pem"\n'
    assert "/etc/docker/certs.d/[2001:db8::2]:5000/ca.crt" in files(by_address("docker", more))


def test_gitlab_runner_finds_the_authority_of_gitlab(by_address: Wants) -> None:
    """It cuts `[2001:db8::1]` at the first colon."""
    runner = '[[runners]]\nname = "b"\nexecutor = "shell"\ntoken = "glrt-x"\n'
    assert files(by_address("register", runner)) == {"/etc/gitlab-runner/certs/[2001.crt"}


def test_the_certificate_is_checked_for_the_address(by_address: Wants, tmp_path: Path) -> None:
    """The subject alternative name must be the IP address; the certificate is requested without SNI."""
    found = by_address("certificates")
    assert only(found, CertificatePair).host == "2001:db8::1"
    served = only(found, ServedCertificate)
    script = served.probe()["served"].script
    assert "-connect '[::1]:5555'" in script
    assert "-servername" not in script
    (handler,) = served.handlers
    assert f" '' 5555 '{URL}/v2/' " in handler.run.script
    pair = CA.issue([], ["2001:db8::1"])
    (tmp_path / "chain.pem").write_text(pair.fullchain)
    (tmp_path / "key.pem").write_text(pair.key)
    text = '[hosts.gitlab.registry.certificate]\nlocal_fullchain = "chain.pem"\nlocal_key = "key.pem"\n'
    uploaded = only(by_address("certificates", text), UploadedPair)
    assert (uploaded.host, uploaded.left.days) == ("2001:db8::1", 89)


def test_the_firewall_opens_its_port(by_address: Wants) -> None:
    """The port is the URL's, not a part of the address."""
    assert only(by_address("firewall"), Firewall).rules == (Rule(5555),)


def test_verify_asks_for_name_port_and_login(by_address: Wants) -> None:
    """Connecting needs the address without brackets, Docker and curl with them."""
    check = only(by_address("verify"), ImageCheck)
    assert check.probe()[""].script.endswith(" 2001:db8::1 5555")
    (change,) = planned(check, observe(check, 0))
    assert isinstance(change.run, Command)
    assert f"set -- 2001:db8::1 5555 '{URL}' '{NAME}' sammy " in change.run.script
    assert 'getent ahosts "$host"' in change.run.script  # `getent hosts` would look for the address's name


def test_images_and_apps_are_in_it(by_address: Wants) -> None:
    """Image names have the brackets; the login is the registry's."""
    image = only(by_address("image", '[[images]]\nname = "sammy/hello"\ncontext = "."\n'), BuiltImage)
    assert str(image.image) == f"{NAME}/sammy/hello"
    assert (image.registry.url, image.registry.user) == (URL, "sammy")
    app = f'[[apps]]\nname = "hello"\nimage = "{NAME}/sammy/hello:1.0"\n'
    deployed = only(by_address("deploy", app), Deployment)
    assert deployed.image == parse(f"{NAME}/sammy/hello:1.0")
    assert (deployed.registry.url, deployed.registry.user) == (URL, "sammy")
