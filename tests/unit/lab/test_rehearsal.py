"""An inventory redirected to the lab: what the overlay changes, and what it keeps."""

from pathlib import Path

import pytest

from provision.engine.catalogue import load_inventory as load
from provision.inventory.tables.apps import App
from provision.inventory.tables.apt import Apt
from provision.inventory.tables.docker import Docker
from provision.inventory.tables.gitlab import Gitlab
from provision.inventory.tables.host import Ssh
from provision.inventory.tables.proxy import Proxy
from provision.inventory.tables.registry import Registry
from provision.inventory.tables.runners import Runner, RunnerProgram
from provision.url import Url
from provision_lab import rehearsal
from provision_lab.hosts import Server
from tests.support.rehearsals import rehearsed

ESTATE = """
[ssh]
user = "admin"
proxy_jump = "bastion"
[groups.runners.ssh]
port = 2200
[hosts.git]
address = "203.0.113.10"
groups = ["gitlab"]
host_key = "SHA256:abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQ"
[hosts."ci-[08:11]"]
address = "203.0.113.[18:21]"
groups = ["runners"]
[gitlab]
external_url = "https://git.example.com"
edition = "ee"
version = "19.3.0"
api_token = { env = "PRODUCTION_TOKEN" }
[proxy]
http = "http://203.0.113.99:3128"
[registry]
external_url = "https://registry.example.com"
[registry.s3]
bucket = "images"
region = "nyc3"
regionendpoint = "https://nyc3.example.com"
accesskey = { env = "A" }
secretkey = { env = "B" }
[registry.login]
username = "sammy"
password = { env = "P" }
image = "sammy/hello"
[docker]
version = "5:29.*"
[docker.daemon]
debug = true
[[runners]]
name = "builder"
executor = "docker"
token = { env = "RUNNER_TOKEN" }
[runners.docker]
image = "docker:28"
[runners.cache.s3]
SecretKey = { file = "secrets/cache" }
"""


def test_the_servers_names_and_paths_come_from_the_inventory(tmp_path: Path) -> None:
    """Names and path of the certificate, the login, and the bucket."""
    path = tmp_path / "estate.toml"
    path.write_text(ESTATE)
    hosts, server = rehearsal.plan([path])
    assert [(host.name, host.is_gitlab, host.sshd_port) for host in hosts] == [
        ("git", True, 22),
        *((f"ci-{n:02}", False, 2200) for n in range(8, 12)),
    ]
    pair = ("/etc/gitlab/ssl/registry.example.com.crt", "/etc/gitlab/ssl/registry.example.com.key")
    names = ("git.example.com", "registry.example.com")
    assert server == Server(names, *pair, "sammy", "sammy/hello", "images", "nyc3")


def test_a_new_gitlab_makes_its_token_in_a_rehearsal_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With neither token nor login in the inventory, the lab's GitLab is empty and the overlay gives no token."""
    login = ESTATE[ESTATE.index("[registry.login]") : ESTATE.index("[docker]")]
    text = ESTATE.replace(login, "").replace('api_token = { env = "PRODUCTION_TOKEN" }\n', "")
    user = '[gitlab.users.anna]\nemail = "anna@example.com"\npassword = { env = "ANNA" }\n'
    app = '[[apps]]\nname = "hello"\nimage = "anna/hello:latest"\nlogin = { username = "anna", password = { env = "ANNA" } }\n'
    _, files = rehearsed(tmp_path, monkeypatch, text + user + app)
    settings = load(files).hosts[0].settings
    assert settings[Gitlab].api_token is None
    (hello,) = settings.all(App)
    assert hello.login is not None
    assert (hello.login.username, hello.login.password) == ("anna", settings[Gitlab].users["anna"].password)
    path = tmp_path / "inventory.toml"
    seeded = []
    for given in (text, text.replace('edition = "ee"', "install = false"), text + login, ESTATE):
        path.write_text(given)
        seeded.append(rehearsal.plan([path])[1].seeded)
    assert seeded == [False, True, True, True]


def test_nothing_reaches_production(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Addresses, logins, keys, repositories, S3 and every secret are the lab's; names and settings stay."""
    lab, files = rehearsed(tmp_path, monkeypatch, ESTATE)
    resolved = load(files).as_text()
    for outside in ("203.0.113", "bastion", "admin", "nyc3.example.com", "SHA256:", "PRODUCTION", "RUNNER_TOKEN"):
        assert outside not in resolved
    assert "env" not in resolved
    inventory = load(files)
    git, *runners = inventory.hosts
    assert [host.address for host in runners] == [f"198.18.7.{n}" for n in range(11, 15)]
    assert git.settings[Registry].s3 is not None
    assert str(git.settings[Gitlab].external_url) == "https://git.example.com"
    assert git.settings[Registry].s3.bucket == "images"
    assert git.settings[Registry].s3.regionendpoint == Url.parse(lab.s3_url)
    assert runners[0].settings[Docker].daemon == {"debug": True, **lab.docker_hub}
    assert runners[0].settings[Ssh].port == 22
    assert runners[0].settings[Apt].docker is not None
    assert str(runners[0].settings[Apt].docker.url).startswith(lab.apt_url)


def test_pins_that_the_lab_cannot_fill_are_loosened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Versions become those of the lab, the edition the stand-in's."""
    _, files = rehearsed(tmp_path, monkeypatch, ESTATE)
    settings = load(files).hosts[0].settings
    assert (settings[Gitlab].edition, settings[Gitlab].version, settings[Docker].version) == ("ce", "*", "*")
    assert settings[RunnerProgram].version is None


def test_runners_lose_their_tokens_and_keep_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lab's GitLab creates their tokens; other secrets are the lab's."""
    lab, files = rehearsed(tmp_path, monkeypatch, ESTATE)
    runner = load(files).hosts[1].settings.all(Runner)[0]
    assert (runner.name, runner.token, runner.registration_token) == ("builder", None, None)
    assert runner.docker is not None
    names = ("git.example.com", "registry.example.com")
    assert runner.docker["extra_hosts"] == [f"{name}:198.18.7.10" for name in names], "containers know no /etc/hosts"
    assert runner.cache is not None
    assert runner.cache["s3"]["SecretKey"].value == str(lab.folder / "rehearsal_secret")


@pytest.mark.parametrize("internet", [False, True])
def test_no_proxy_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, internet: bool) -> None:
    """It resolves names itself, and would lead requests for the lab's GitLab to production's."""
    _, files = rehearsed(tmp_path, monkeypatch, ESTATE, internet=internet)
    assert [host.settings[Proxy].is_set for host in load(files).hosts] == [False] * 5


def test_with_the_internet_packages_are_the_inventorys_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No mirrors, and pins stay: the hosts install the real packages."""
    _, files = rehearsed(tmp_path, monkeypatch, ESTATE, internet=True)
    settings = load(files).hosts[0].settings
    assert (settings[Gitlab].edition, settings[Gitlab].version, settings[Docker].version) == (
        "ee",
        "19.3.0",
        "5:29.*",
    )
    assert settings[Apt].docker is None


def test_a_certificate_to_upload_is_the_labs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The host has no certificate then: the pair comes from the lab's folder."""
    table = '[registry.certificate]\nlocal_fullchain = "a.pem"\nlocal_key = "a.key"\n[registry.s3]'
    lab, files = rehearsed(tmp_path, monkeypatch, ESTATE.replace("[registry.s3]", table))
    assert (lab.server.fullchain, lab.server.key) == ("", "")
    registry = load(files).hosts[0].settings.get(Registry)
    assert registry is not None
    assert registry.certificate is not None
    assert registry.certificate.local_fullchain == lab.folder / "fullchain.pem"
    assert registry.certificate.ca == lab.ca
