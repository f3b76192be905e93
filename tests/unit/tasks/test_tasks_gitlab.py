"""The resources of the tasks for the GitLab host, by inventory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from provision.resources import AptSource, Firewall, Packages, RegistryEndpoint, RubySettings, Rule, S3Bucket
from provision.secret import Secret
from tests.support.pages import block
from tests.support.wanted import S3, labels, only

REGISTRY = '[registry]\nexternal_url = "https://gitlab.example.com:5555"\n'
Wants = Callable[..., Any]


@pytest.mark.parametrize(
    ("service", "url", "checksums"),
    [
        ("AWS needs", "https://sammy-registry.s3.eu-central-1.amazonaws.com", "CRC64NVME"),
        ("DigitalOcean Spaces", "https://nyc3.digitaloceanspaces.com/sammy-registry", "CRC64NVME"),
        ("MinIO", "https://minio.example.com:9000/registry", ""),
        ("Ceph", "https://rgw.example.com/registry", ""),
    ],
)
def test_the_examples_of_s3_services(
    wants: Wants, monkeypatch: pytest.MonkeyPatch, service: str, url: str, checksums: str
) -> None:
    """Each example of the documentation is a valid table: the bucket is checked there, and the driver gets its keys."""
    for name in ("S3_ACCESS_KEY", "S3_SECRET_KEY"):
        monkeypatch.setenv(name, f"the-{name}")
    found = wants("registry", REGISTRY + block("inventory.md", service))
    bucket = only(found, S3Bucket)
    assert (str(bucket.url), bucket.checksum_algorithm, bucket.path_style) == (
        url,
        checksums,
        True if service == "Ceph" else None,
    )
    driver = only(found, RubySettings).settings["registry", "storage", "s3"]
    assert (driver["bucket"], "checksum_disabled" in driver) == (bucket.bucket, not checksums)


def test_the_drivers_settings_are_those_of_the_check(wants: Wants) -> None:
    """Part size, folder, checksum, form of the address, and whether the certificate is checked."""
    more = 'chunksize = 20000000\nrootdirectory = "/images"\npathstyle = false\nskipverify = true\nchecksum_algorithm = "SHA256"\n'
    bucket = only(wants("registry", REGISTRY + S3 + more), S3Bucket)
    assert (bucket.part_size, bucket.folder, bucket.insecure) == (20_000_000, "/images", True)
    assert (bucket.path_style, bucket.checksum_algorithm) == (False, "SHA256")


class TestGitlab:
    """The task `gitlab`."""

    def test_installed_and_configured(self, wants: Wants) -> None:
        """The package of the edition from its own repository, and the settings."""
        found = wants("gitlab", '[gitlab.settings]\ngitlab_rails.time_zone = "UTC"\nnginx.x = { a = 1 }\nplain = 3\n')
        package = [one for one in found if isinstance(one, Packages)][-1]
        assert (package.names, package.origin) == (("gitlab-ce",), "https://packages.gitlab.com/gitlab/gitlab-ce/")
        assert only(found, AptSource).pin == ("gitlab-ce",)
        assert only(found, AptSource).fingerprints == ("F6403F6544A38863DAA0B6E03F01618A51312F3F",)
        assert only(found, RubySettings).settings == {
            ("external_url",): "https://gitlab.example.com",
            ("gitlab_rails", "time_zone"): "UTC",
            ("nginx", "x"): {"a": 1},
            ("plain",): 3,
        }

    def test_the_other_edition(self, wants: Wants) -> None:
        """The package of the Enterprise Edition."""
        found = wants("gitlab", 'edition = "ee"\nversion = "19.3.0"\n')
        package = [one for one in found if isinstance(one, Packages)][-1]
        assert (package.names, package.version, package.hold) == (("gitlab-ee",), "19.3.0-*", True)
        assert "gitlab-ee" in only(found, AptSource).uri

    def test_installed_by_somebody_else(self, wants: Wants) -> None:
        """Only settings are applied."""
        found = wants("gitlab", "install = false\n")
        assert not [one for one in found if isinstance(one, AptSource)]
        assert only(found, RubySettings)

    def test_no_gitlab_in_the_inventory(self, wants: Wants) -> None:
        """There are no resources."""
        base = '[hosts.g]\ngroups = ["gitlab"]\n'
        assert wants("gitlab", base=base) == ()
        assert wants("registry", base=base) == ()


class TestRegistry:
    """The task `registry`."""

    def test_with_s3(self, wants: Wants) -> None:
        """The bucket is checked before gitlab.rb is edited, and the endpoint last."""
        found = wants("registry", REGISTRY + S3)
        kinds = [type(one) for one in found]
        assert kinds.index(S3Bucket) < kinds.index(RubySettings) < kinds.index(RegistryEndpoint) == len(kinds) - 1
        settings = only(found, RubySettings).settings
        assert settings[("registry_external_url",)] == "https://gitlab.example.com:5555"
        assert settings[("registry", "storage", "s3")]["secretkey"] == Secret("the-secret-key")
        assert settings[("registry_nginx", "ssl_certificate")] == "/etc/gitlab/ssl/gitlab.example.com.crt"
        answer = only(found, RegistryEndpoint)
        assert (str(answer.url), answer.realm) == (
            "https://gitlab.example.com:5555",
            "https://gitlab.example.com/jwt/auth",
        )
        assert only(found, RubySettings).handlers == answer.handlers

    def test_without_redirect(self, wants: Wants) -> None:
        """It is set beside the driver."""
        text = REGISTRY + "redirect = false\n" + S3
        assert (
            only(wants("registry", text), RubySettings).settings[("registry", "storage", "redirect", "disable")] is True
        )

    def test_with_a_role_instead_of_keys(self, wants: Wants) -> None:
        """Without keys only the registry itself can check the bucket."""
        text = REGISTRY + '[registry.s3]\nbucket = "b"\nregion = "us-east-1"\n'
        found = wants("registry", text)
        assert not [one for one in found if isinstance(one, S3Bucket)]
        assert only(found, RubySettings).settings[("registry", "storage", "s3")]["bucket"] == "b"

    def test_on_its_own_disk_without_tls(self, wants: Wants) -> None:
        """Neither the storage nor the certificate is set."""
        found = wants("registry", '[registry]\nexternal_url = "http://gitlab.example.com:5555"\n')
        assert list(only(found, RubySettings).settings) == [("registry_external_url",)]

    def test_one_reconfigure_pays_for_all(self, wants: Wants) -> None:
        """The tasks of the GitLab host notify the same handler."""
        handlers = {
            handler for name in ("gitlab", "registry") for one in wants(name, REGISTRY + S3) for handler in one.handlers
        }
        assert [one.name for one in handlers if one.name != "gitlab-ready"] == ["reconfigure"]


OWN_FILES = '[gitlab.settings.nginx]\nssl_certificate = "/etc/ssl/own.pem"\n'
CERTBOT = '[registry.certificate.acme]\nclient = "certbot"\nemail = "ops@example.com"\n'


class TestFirewall:
    """The task `firewall`."""

    @pytest.mark.parametrize(
        ("text", "ports"),
        [
            ("", ["80", "443"]),
            (OWN_FILES, []),
            (OWN_FILES + "[gitlab.settings.letsencrypt]\nenable = true\n", ["80", "443"]),
            ("[gitlab.settings.letsencrypt]\nenable = false\n", []),
            (REGISTRY + OWN_FILES + CERTBOT, ["5555", "80", "443"]),
            (
                OWN_FILES + REGISTRY.replace(":5555", ":8443") + CERTBOT.replace("certbot", "omnibus"),
                ["8443", "80", "443"],
            ),
            (REGISTRY.replace(":5555", ""), ["443", "80"]),
        ],
    )
    def test_ports_of_a_certificate_by_acme(self, wants: Wants, text: str, ports: list[str]) -> None:
        """They are open wherever an authority may be asked: by GitLab itself too, for an https URL without files."""
        assert [one.port for one in only(wants("firewall", text), Firewall).rules] == ports

    def test_a_port_that_the_inventory_limits_stays_limited(self, wants: Wants) -> None:
        """The rule for the certificate would open it for everyone."""
        text = (
            REGISTRY
            + CERTBOT
            + '[firewall]\nallow = [{ port = "443", from = ["10.0.0.0/8"] }, "79:81/tcp", "443/udp"]\n'
        )
        rules = only(wants("firewall", text), Firewall).rules
        assert [str(one) for one in rules] == ["5555/tcp", "443 from 10.0.0.0/8", "79:81/tcp", "443/udp"]

    @pytest.mark.parametrize("where", ["firewall", "groups.runners.firewall", "hosts.runner-1.firewall"])
    def test_a_runner_host_with_a_firewall(self, wants: Wants, where: str) -> None:
        """It gets the rules of the inventory, and neither the registry's nor the certificate's."""
        text = f'{REGISTRY}[{where}]\nenable = true\nallow = ["9100/tcp"]\n'
        found = wants("firewall", text, host="runner-1")
        assert labels(found) == ["Packages ufw", "Firewall ufw"]
        assert only(found, Firewall).rules == (Rule("9100"),)

    def test_a_runner_host_without_a_firewall(self, wants: Wants) -> None:
        """Its ufw is not asked for anything."""
        assert wants("firewall", REGISTRY, host="runner-1") == ()

    def test_the_registrys_port_and_the_allowed_ones(self, wants: Wants) -> None:
        """ufw is installed only with enable = true."""
        text = '[firewall]\nallow = ["80/tcp", "443", { port = "9100/tcp", from = ["10.0.0.0/8", "192.0.2.1/32"] }]\n'
        found = wants("firewall", REGISTRY + OWN_FILES + text)
        wall = only(found, Firewall)
        assert list(wall.rules) == [
            Rule("5555"),
            Rule("80"),
            Rule("443", "any"),
            Rule("9100", "tcp", "10.0.0.0/8"),
            Rule("9100", "tcp", "192.0.2.1"),
        ]
        assert wall.rules[0].comment == "provision: registry"
        assert wall.enable is False
        assert len(found) == 1
        assert labels(wants("firewall", "[firewall]\nenable = true\n")) == ["Packages ufw", "Firewall ufw"]
