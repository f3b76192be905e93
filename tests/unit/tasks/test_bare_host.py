"""Hosts as minimal images are: without curl, openssl, git, gpg and CAs. Real probes, with a PATH that has none of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from provision.engine.catalogue import Catalogue
from provision.engine.run import HostPlay, Run
from provision.errors import Refused
from provision.host.scripts import script
from provision.resources import (
    AptSource,
    CertificatePair,
    Packages,
    RegistryEndpoint,
    Resource,
    S3Bucket,
)
from provision.resources.base import Change
from provision.resources.gitlab.gitlab_rb import reconfigure
from provision.resources.runner.registrations import ask_tokens, read_tokens
from provision.secret import Secret
from provision.testing import LocalSession, observe_on, planned
from provision.url import Url
from tests.support.report import RunReport
from tests.unit.tasks.conftest import Wants

MISSING = ("curl", "openssl", "git", "gpg", "gpgv", "wget")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A PATH with all programs of this machine but those."""
    folder = tmp_path_factory.mktemp("bin")
    for place in ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"):
        for one in Path(place).iterdir() if Path(place).is_dir() else ():
            if one.name not in MISSING and not (folder / one.name).is_symlink():
                (folder / one.name).symlink_to(one)
    return str(folder)


@pytest.fixture
def bare(path: str, tmp_path: Path) -> LocalSession:
    """The host; its /etc is empty but for os-release."""
    etc = tmp_path / "etc"
    (etc / "apt").mkdir(parents=True)
    (etc / "os-release").write_text("ID=ubuntu\nVERSION_CODENAME=noble\nVERSION_ID=24.04\n")
    (etc / "gitlab").mkdir()
    for name in ("x.crt", "x.key"):
        (etc / "gitlab" / name).write_text("x")
    return LocalSession({"/etc": etc, "/var/lib/provision": tmp_path / "home"}, {"PATH": path})


def plan(resource: Resource, host: LocalSession) -> list[Change]:
    """The changes that a resource plans from what its real probe answers."""
    return planned(resource, observe_on(host, resource))


REGISTRY = Url.parse("https://registry.example.com:5555")
CHECKS = [
    S3Bucket("images", "eu-central-1", None, "key", "secret"),
    RegistryEndpoint(REGISTRY, "https://gitlab.example.com/jwt/auth", reconfigure(REGISTRY, "")),
    CertificatePair("/etc/gitlab/x.crt", "/etc/gitlab/x.key", "registry.example.com"),
]


@pytest.mark.parametrize("resource", CHECKS, ids=lambda one: type(one).__name__)
def test_the_check_phase_needs_none_of_them(bare: LocalSession, resource: Resource) -> None:
    """Neither a refusal nor a repair is planned from a question that could not be asked: it is asked again at the end."""
    (change,) = plan(resource, bare)
    assert (change.verification, change.final, change.notify) == (True, True, ())
    assert not isinstance(change.run, str)
    result = bare.run(change.run, deadline=10)  # type: ignore[arg-type]
    assert result.code == 1
    assert "is not installed on the host: apt-get install" in result.errors


@pytest.mark.parametrize("gone", ["x.crt", "x.key"])
def test_missing_files_are_refused_without_openssl(bare: LocalSession, gone: str) -> None:
    """Whether they exist is known without it."""
    pair = CertificatePair("/etc/gitlab/x.crt", "/etc/gitlab/x.key", "registry.example.com")
    Path(bare.here(f"/etc/gitlab/{gone}")).unlink()
    with pytest.raises(Refused, match=f"/etc/gitlab/{gone} is not on the host"):
        pair.refuse_early(observe_on(bare, pair))


SERVER = """
[hosts.gitlab]
groups = ["gitlab"]
[gitlab]
external_url = "https://gitlab.example.com"
[registry]
external_url = "https://gitlab.example.com:5555"
"""
CHANGING = ("apt-get", "apt-mark", "systemctl", "ufw", "gitlab-ctl", "install", "mv", "rm", "chmod", "chown", "mkdir")


@pytest.mark.parametrize(
    ("system", "text"),
    [
        ("ID=ubuntu\nVERSION_CODENAME=noble\nVERSION_ID=24.04\n", "/etc/gitlab/ssl/gitlab.example.com.crt is not on the host"),
        ("ID=debian\nVERSION_CODENAME=buster\nVERSION_ID=10\n", "GitLab has no packages for Debian 10 (buster)"),
    ],
    ids=["no certificate", "no packages"],
)  # fmt: skip
def test_nothing_is_installed_before_a_refusal(path: str, tmp_path: Path, system: str, text: str) -> None:
    """The whole playbook `server`: the host is asked, and no command is run on it."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for one in Path(path).iterdir():
        if one.name not in CHANGING:
            (programs / one.name).symlink_to(one)
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/os-release").write_text(system)
    host = LocalSession({"/etc": tmp_path / "etc", "/var/lib/provision": tmp_path / "home"}, {"PATH": str(programs)})
    file = tmp_path / "inventory.toml"
    file.write_text(SERVER)
    catalogue = Catalogue.of()
    (server,) = catalogue.load((file,)).hosts
    report = RunReport()
    plays = [HostPlay({server.name: one.tasks}) for one in catalogue.plays(["server"])]
    report.summary = Run(("server",), [server], plays, lambda _: host, [report]).execute()
    assert [one.text.partition(";")[0] for one in report.errors] == [text]
    assert host.ran == []
    assert (report.summary.changed, report.summary.failed) == (0, 1)


def test_a_repositorys_tools_are_installed_first(bare: LocalSession) -> None:
    """Before the key is fetched and before apt's source is written."""
    source = AptSource(
        "docker", "https://download.docker.com/linux/{id}", "{codename}", "stable",
        key_url="https://download.docker.com/linux/{id}/gpg", fingerprints=("0" * 40,),
    )  # fmt: skip
    assert [one.summary.split()[0] for one in plan(source, bare)] == ["install", "fetch", "create"]
    assert plan(source, bare)[0].summary == "install curl, ca-certificates"


def test_runner_tokens(bare: LocalSession) -> None:
    """They are unknown, and the reason is named; whether they are valid is asked after the installation."""
    url = "https://gitlab.example.com"
    (result,) = bare.ask([ask_tokens("/etc/gitlab-runner/config.toml", [url], [(url, Secret("glrt-x"))])], deadline=10)
    answers = read_tokens(result)
    assert answers.status == {(url, "glrt-x"): 0}
    assert answers.reason(url, 0) == "curl is not installed on the host"


def test_a_tag_in_a_registry(bare: LocalSession) -> None:
    """The reason instead of a digest."""
    ask = script("find_digest", "https://registry.example.com", "team/app", "latest", "").reading("\n")
    (result,) = bare.ask([ask], deadline=10)
    assert result.text.startswith("? ")
    assert "curl" in result.text


INVENTORY = """
[[runners]]
name = "builder"
executor = "docker"
token = "glrt-xxxxxxxxxxxxxxxxxxxx"
[runners.docker]
image = "docker:28"
[registry]
external_url = "https://gitlab.example.com:5555"
[registry.login]
username = "sammy"
password = "secret-password"
image = "sammy/app"
"""


@pytest.mark.parametrize("name", ["register", "verify", "registry", "certificates", "gitlab"])
def test_a_task_installs_what_it_uses_before_it_uses_it(wants: Wants, name: str) -> None:
    """The packages come first; they cost no further question, because all packages are asked for once."""
    found = wants(name, INVENTORY, tools=True)
    packages = next(at for at, one in enumerate(found) if isinstance(one, Packages) and "curl" in one.names)
    assert [one.label for one in found[:packages] if not one.label.startswith(("TrustedCa", "ProxyFile"))] == []
