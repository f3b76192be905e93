"""The resources of the tasks for runner hosts, by inventory; and the user's own tasks."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from provision.errors import UsageError
from provision.resources import AptSource, File, ImageCheck, JsonSettings, Packages, Resource, RunnerEntries
from provision.secret import Secret
from provision.tasks import SHIPPED, Host, play, task
from provision_lab.certificates import Authority
from tests.support.wanted import LOGIN, S3, labels, only

REGISTRY = '[registry]\nexternal_url = "https://gitlab.example.com:5555"\n'
CA = Authority("a CA").certificate.encode()
Wants = Callable[..., Any]


class TestDocker:
    """The task `docker`."""

    def test_from_dockers_own_repository(self, wants: Wants) -> None:
        """Any version, not held; conflicting packages are removed."""
        found = wants("docker", '[docker]\nusers = ["ubuntu"]\n[docker.daemon]\ndebug = true\n')
        packages = next(one for one in found if isinstance(one, Packages))
        assert (packages.version, packages.hold, packages.names[0]) == ("", False, "docker-ce")
        assert "docker.io" in packages.conflicting
        source = only(found, AptSource)
        assert (source.uri, source.suite, source.key) == ("https://download.docker.com/linux/{id}", "{codename}", "")
        assert source.key_url == "https://download.docker.com/linux/{id}/gpg"
        assert source.fingerprints == ("9DC858229FC7DD38854AE2D88D81803C0EBFCD88",)
        assert only(found, JsonSettings).wanted == {"debug": True}
        assert labels(found)[-2:] == ["Service docker", "GroupMember ubuntu in docker"]

    def test_a_pinned_version_is_held(self, wants: Wants) -> None:
        """It applies to the packages that have Docker's version."""
        packages = only(wants("docker", '[docker]\nversion = "5:29.*"\n'), Packages)
        assert (packages.version, packages.hold) == ("5:29.*", True)
        assert packages.versioned == ("docker-ce", "docker-ce-cli")

    def test_from_the_distribution(self, wants: Wants) -> None:
        """No repository is added."""
        found = wants("docker", '[docker]\nsource = "distro"\n')
        assert not [one for one in found if isinstance(one, AptSource)]
        assert only(found, Packages).names == ("docker.io",)

    def test_from_a_mirror(self, wants: Wants, tmp_path: Path) -> None:
        """Its address, its suite, and its key from a local file."""
        (tmp_path / "docker.asc").write_text("-----BEGIN PGP PUBLIC KEY BLOCK-----\n")
        text = '[apt]\ndocker = { url = "https://mirror.example.com/docker", key = "docker.asc", suite = "noble" }\n'
        source = only(wants("docker", text), AptSource)
        assert (source.uri, source.suite) == ("https://mirror.example.com/docker", "noble")
        assert source.key.startswith("-----BEGIN PGP")

    def test_it_trusts_the_registrys_authority(self, wants: Wants, tmp_path: Path) -> None:
        """In certs.d, under host and port."""
        (tmp_path / "ca.pem").write_bytes(CA)
        found = wants("docker", REGISTRY + '[registry.certificate]\nca = "ca.pem"\n')
        files = {one.path: one.content for one in found if isinstance(one, File)}
        assert files["/etc/docker/certs.d/gitlab.example.com:5555/ca.crt"] == CA

    @pytest.mark.parametrize("task", ["docker", "certificates", "register", "verify"])
    @pytest.mark.parametrize(("name", "hint"), [("ca.cer", "openssl x509 -inform der"), ("ca.txt", "as PEM")])
    def test_an_authority_that_no_program_can_read(
        self, wants: Wants, tmp_path: Path, task: str, name: str, hint: str
    ) -> None:
        """Docker and update-ca-certificates would install it without an error, and trust nothing."""
        (tmp_path / "ca.cer").write_bytes(ssl.PEM_cert_to_DER_cert(CA.decode()))
        (tmp_path / "ca.txt").write_text("our CA")
        table = f'[registry.certificate]\nca = "{name}"\n'
        with pytest.raises(UsageError, match=f"registry.certificate.ca: .*{name}: holds no PEM certificate") as caught:
            wants(task, REGISTRY + LOGIN + table + TestRegister.RUNNERS)
        assert hint in caught.value.hint

    @pytest.mark.parametrize("keys", ['ca = "ca.cer"', 'cert = "ca.cer"\nkey = "client.key"'])
    def test_a_certificate_for_another_registry_that_no_program_can_read(
        self, wants: Wants, tmp_path: Path, keys: str
    ) -> None:
        """docker.registries has such files too."""
        (tmp_path / "ca.cer").write_bytes(ssl.PEM_cert_to_DER_cert(CA.decode()))
        (tmp_path / "client.key").write_text("a key")
        with pytest.raises(UsageError, match=r'docker.registries."r.example.com".(ca|cert): .*one in DER'):
            wants("docker", f'[docker.registries."r.example.com"]\n{keys}\n')

    def test_an_authority_that_is_not_there(self, wants: Wants) -> None:
        """It is reported before a host is contacted."""
        with pytest.raises(UsageError, match=r"ca\.pem"):
            wants("docker", REGISTRY + '[registry.certificate]\nca = "ca.pem"\n')


class TestApt:
    """The time limit in [apt]."""

    @pytest.mark.parametrize(("text", "seconds"), [("", 900), ("[apt]\nlock_timeout = 60\n", 60)])
    def test_every_resource_waits_so_long(self, wants: Wants, text: str, seconds: int) -> None:
        """In all tasks. A task of the user's own may set another time."""
        found = [
            *wants("docker", text),
            *wants("runner", text),
            *wants("firewall", f"{text}[firewall]\nenable = true\n"),
        ]
        waits = [one.lock_timeout for one in found if isinstance(one, AptSource | Packages)]
        assert len(waits) > 3
        assert set(waits) == {seconds}

    def test_no_time_is_a_number(self, wants: Wants) -> None:
        """A negative one is refused."""
        with pytest.raises(UsageError, match="lock_timeout"):
            wants("docker", "[apt]\nlock_timeout = -1\n")


class TestRunner:
    """The task `runner`."""

    def test_both_packages_move_together(self, wants: Wants) -> None:
        """An exact version means any packaging of it; the origin is checked; images are not pruned."""
        found = wants("runner", '[runner]\nversion = "19.3.0"\n')
        packages = only(found, Packages)
        assert packages.names == ("gitlab-runner", "gitlab-runner-helper-images")
        assert (packages.version, packages.hold) == ("19.3.0-*", True)
        assert packages.origin == "https://packages.gitlab.com/runner/gitlab-runner/"
        assert "NO_DOCKER_PRUNE=1" in packages.environment
        source = only(found, AptSource)
        assert source.pin == packages.names
        assert source.key_url == "https://packages.gitlab.com/gpgkey/gpg.key"
        assert source.fingerprints == ("F6403F6544A38863DAA0B6E03F01618A51312F3F",)
        assert labels(found)[-1] == "Service gitlab-runner"

    @pytest.mark.parametrize(("version", "glob"), [("19.*", "19.*"), ("19.3.0-1", "19.3.0-1"), ("19.3.0", "19.3.0-*")])
    def test_versions(self, wants: Wants, version: str, glob: str) -> None:
        """A glob and a complete version stay unchanged."""
        assert only(wants("runner", f'[runner]\nversion = "{version}"\n'), Packages).version == glob


class TestRegister:
    """The task `register`."""

    RUNNERS = '[[runners]]\nname = "builder"\nexecutor = "docker"\n[runners.docker]\nimage = "docker:28"\n'

    def test_with_a_token(self, wants: Wants) -> None:
        """No API is needed."""
        entries = only(
            wants("register", self.RUNNERS.replace("[runners.docker]", 'token = "glrt-x"\n[runners.docker]')),
            RunnerEntries,
        )
        (one,) = entries.runners
        assert (one.name, one.url, one.token, one.creator) == (
            "builder",
            "https://gitlab.example.com",
            Secret("glrt-x"),
            None,
        )
        assert one.settings["docker"]["image"] == "docker:28"
        assert "tags" not in one.settings

    def test_made_by_the_api(self, wants: Wants) -> None:
        """Tags, type and the settings that GitLab keeps; the host's address is the fallback for its name."""
        text = 'api_token = "glpat-x"\n' + self.RUNNERS.replace(
            "[runners.docker]", 'tags = ["a", "b"]\n[runners.docker]'
        )
        (one,) = only(wants("register", text), RunnerEntries).runners
        assert one.creator is not None
        assert one.creator.fields["tag_list"] == "a,b"
        assert one.creator.fields["run_untagged"] is False
        assert (one.creator.api.fallback, one.creator.api.token) == ("203.0.113.10", Secret("glpat-x"))

    def test_top_level_keys(self, wants: Wants) -> None:
        """They are those of config.toml, without the program's version."""
        entries = only(wants("register", '[runner]\nconcurrent = 8\nversion = "19.3.0"\n'), RunnerEntries)
        assert entries.top == {"concurrent": 8}

    def test_no_gitlab_to_register_with(self, wants: Wants) -> None:
        """Bad input."""
        base = '[hosts.r]\ngroups = ["runners"]\n'
        with pytest.raises(UsageError, match="runner builder: no GitLab to register it in"):
            wants("register", self.RUNNERS, base=base)

    def test_the_authority_is_given_to_the_runner(self, wants: Wants, tmp_path: Path) -> None:
        """The file is named after the server, without the port."""
        (tmp_path / "ca.pem").write_bytes(CA)
        found = wants("register", REGISTRY + '[registry.certificate]\nca = "ca.pem"\n' + self.RUNNERS)
        assert only(found, File).path == "/etc/gitlab-runner/certs/gitlab.example.com.crt"


class TestVerify:
    """The task `verify`."""

    def test_what_it_verifies(self, wants: Wants) -> None:
        """The registry's URL and the image of its login."""
        check = only(wants("verify", REGISTRY + S3 + LOGIN), ImageCheck)
        assert (str(check.url), check.image) == ("https://gitlab.example.com:5555", "sammy/hello")

    def test_it_rests_on_bucket_and_authority(self, wants: Wants) -> None:
        """After a change of the bucket the check runs again."""
        with_s3, without = (only(wants("verify", REGISTRY + more + LOGIN), ImageCheck) for more in (S3, ""))
        assert with_s3.context != without.context

    def test_nothing_to_prove(self, wants: Wants) -> None:
        """No registry, or no login."""
        assert wants("verify") == ()
        assert wants("verify", REGISTRY) == ()


def test_every_task_says_what_it_leaves() -> None:
    """The headline is one sentence."""
    for one in SHIPPED:
        assert one.headline.endswith("."), one.name
        assert one.on in ("gitlab", "runners") or one.where is not None


def test_a_task_of_ones_own() -> None:
    """A task has its function's name; a play has several tasks."""

    @task(on="web")
    def motd(host: Host) -> Iterator[Resource]:
        """Logins are greeted.

        With more to it.
        """
        yield File("/etc/motd", host.name)

    assert (motd.name, motd.on, motd.headline) == ("motd", "web", "Logins are greeted.")
    assert motd.doc == "Logins are greeted.\n\nWith more to it."
    assert play("web", motd).tasks == (motd,)


def test_asking_twice_asks_the_same(wants: Wants) -> None:
    """Resources are values: equal settings give equal probes, which run once."""
    for name in ("docker", "runner", "gitlab", "registry", "firewall", "register", "verify"):
        first, second = (wants(name, REGISTRY + S3 + LOGIN) for _ in range(2))
        assert [one.probe() for one in first] == [one.probe() for one in second]
