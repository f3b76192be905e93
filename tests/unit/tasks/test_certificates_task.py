"""The task `certificates`, and the settings of gitlab.rb for the registry's certificate."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from provision.engine.catalogue import load_inventory as load
from provision.errors import InventoryError, UsageError
from provision.inventory import Host
from provision.resources import (
    AcmeCertificate,
    CertificatePair,
    DefaultPair,
    Resource,
    ServedCertificate,
    TrustedCa,
    UploadedPair,
)
from provision.tasks import certificates
from provision.tasks.registry import certificate_settings
from provision_lab.certificates import Authority
from tests.unit.tasks.conftest import is_tool

CA = Authority("a CA")
NAME = "registry.example.com"
Make = Callable[..., Host]


@pytest.fixture
def host(tmp_path: Path) -> Make:
    """A GitLab host whose registry.certificate is this TOML."""

    def make(certificate: str = "", *, url: str = f"https://{NAME}:5555", settings: str = "") -> Host:
        more = f"[registry.certificate]\n{certificate}\n"
        return bare(tmp_path, "https://gitlab.example.com", url, settings, more)

    return make


def resources(host: Host) -> list[Resource]:
    """The resources, without the programs that the task installs for itself."""
    return [one for one in certificates.resources(host) if not is_tool(one)]


def kinds(host: Host) -> list[str]:
    """The resources by kind, in order."""
    return [type(one).__name__ for one in resources(host)]


def test_without_a_word_files_are_where_gitlab_looks(host: Make) -> None:
    """The default files are checked and compared with the served certificate; a CA of earlier runs is removed."""
    trust, pair, served = resources(host())
    assert trust == TrustedCa("registry", b"")
    assert pair == CertificatePair(f"/etc/gitlab/ssl/{NAME}.crt", f"/etc/gitlab/ssl/{NAME}.key", NAME)
    assert served == ServedCertificate(f"/etc/gitlab/ssl/{NAME}.crt", NAME, 5555)


BARE = """
[hosts.gitlab]
groups = ["gitlab"]
[gitlab]
external_url = "{gitlab}"
[gitlab.settings]
{settings}
[registry]
external_url = "{registry}"
"""
SITE = "https://gitlab.acme.dev"


def bare(
    tmp_path: Path, gitlab: str = SITE, registry: str = f"{SITE}:5555", settings: str = "", more: str = ""
) -> Host:
    """A GitLab host whose inventory has no registry.certificate, unless `more` has one."""
    path = tmp_path / "inventory.toml"
    path.write_text(BARE.format(gitlab=gitlab, registry=registry, settings=settings) + more)
    (one,) = load([path]).hosts
    return one


@pytest.mark.parametrize("settings", ["", "letsencrypt.enable = true", "letsencrypt.contact_emails = ['a@b.c']"])
def test_public_names_without_a_certificate(tmp_path: Path, settings: str) -> None:
    """GitLab's own integration issues it where nothing is on the host; gitlab.rb gets the same settings as before."""
    host = bare(tmp_path, registry="https://registry.acme.dev", settings=settings)
    (one,) = (one for one in resources(host) if isinstance(one, DefaultPair))
    assert one.pair.fullchain == "/etc/gitlab/ssl/registry.acme.dev.crt"
    assert (one.site.fullchain, one.site.host) == ("/etc/gitlab/ssl/gitlab.acme.dev.crt", "registry.acme.dev")
    assert one.enabled is ("enable" in settings)
    assert one.label == one.pair.label
    assert certificate_settings(host) == {
        ("registry_nginx", "ssl_certificate"): "/etc/gitlab/ssl/registry.acme.dev.crt",
        ("registry_nginx", "ssl_certificate_key"): "/etc/gitlab/ssl/registry.acme.dev.key",
    }


def test_the_paths_that_gitlab_issues_to(tmp_path: Path) -> None:
    """Named in the inventory, they are the same."""
    paths = "fullchain = '/etc/gitlab/ssl/gitlab.acme.dev.crt'\nkey = '/etc/gitlab/ssl/gitlab.acme.dev.key'\n"
    assert "DefaultPair" in kinds(bare(tmp_path, more=f"[registry.certificate]\n{paths}"))


@pytest.mark.parametrize(
    "changed",
    [
        {"gitlab": "https://gitlab.acme.local"},
        {"registry": "https://registry.acme.internal:5555"},
        {"registry": "https://203.0.113.7:5555"},
        {"gitlab": "http://gitlab.acme.dev"},
        {"settings": "letsencrypt.enable = false"},
        {"settings": "nginx.ssl_certificate = '/etc/ssl/own.crt'"},
        {"settings": "gitlab_rails.nginx.ssl_certificate = '/etc/ssl/own.crt'"},
        {"settings": "nginx.enable = false"},
        {"settings": "nginx.listen_https = false"},
        {"more": "[registry.certificate]\nfullchain = '/a.pem'\nkey = '/a.key'"},
        {"more": "[registry.certificate]\nacme = { client = 'omnibus', email = 'a@b.c' }"},
    ],
    ids=str,
)
def test_where_gitlab_is_not_asked_to_issue_one(tmp_path: Path, changed: dict[str, str]) -> None:
    """The files must be there, as before; or the inventory says how they come."""
    assert "DefaultPair" not in kinds(bare(tmp_path, **changed))
    assert "CertificatePair" in kinds(bare(tmp_path, **changed))


def test_a_registry_without_tls_has_none(host: Make) -> None:
    """Only an earlier CA is removed; gitlab.rb has no settings."""
    plain = host(url=f"http://{NAME}")
    assert kinds(plain) == ["TrustedCa"]
    assert certificate_settings(plain) == {}


def test_files_on_the_host(host: Make) -> None:
    """The given paths are checked, and are in gitlab.rb."""
    own = host('fullchain = "/a/chain.pem"\nkey = "/a/key.pem"')
    assert kinds(own) == ["TrustedCa", "CertificatePair", "ServedCertificate"]
    assert certificate_settings(own) == {
        ("registry_nginx", "ssl_certificate"): "/a/chain.pem",
        ("registry_nginx", "ssl_certificate_key"): "/a/key.pem",
    }


def test_files_from_here(host: Make, tmp_path: Path) -> None:
    """Both files are uploaded by one resource, and the CA is trusted."""
    pair = CA.issue([NAME], [])
    for name, text in {"chain.pem": pair.fullchain, "key.pem": pair.key, "ca.pem": CA.certificate}.items():
        (tmp_path / name).write_text(text)
    trust, uploaded, _ = resources(host('local_fullchain = "chain.pem"\nlocal_key = "key.pem"\nca = "ca.pem"'))
    assert trust == TrustedCa("registry", CA.certificate.encode())
    assert isinstance(uploaded, UploadedPair)
    assert (uploaded.certificate, uploaded.private.reveal()) == (pair.fullchain.encode(), pair.key)
    assert (uploaded.fullchain, uploaded.left.days) == (f"/etc/gitlab/ssl/{NAME}.crt", 89)


@pytest.mark.parametrize(
    ("names", "days", "start", "reason"),
    [
        ((NAME,), 1, -3, "expired on "),
        ((NAME,), 9, 2, "is not valid before "),
        (("example.com",), 9, 0, f"is not for {NAME}: it names example.com"),
        (("*.com",), 9, 0, f"is not for {NAME}: it names *.com"),
    ],
)
def test_unfit_files_end_the_run_before_it_begins(
    host: Make, tmp_path: Path, names: tuple[str, ...], days: int, start: int, reason: str
) -> None:
    """The message names both files."""
    pair = CA.issue(list(names), [], days=days, start=start)
    (tmp_path / "chain.pem").write_text(pair.fullchain)
    (tmp_path / "key.pem").write_text(pair.key)
    with pytest.raises(UsageError, match=r"registry\.certificate: .*chain\.pem with .*key\.pem: ") as caught:
        resources(host('local_fullchain = "chain.pem"\nlocal_key = "key.pem"'))
    assert reason in caught.value.text
    assert caught.value.hint


def test_a_file_that_is_missing_here(host: Make) -> None:
    """The message has the path."""
    with pytest.raises(UsageError, match=r"nowhere\.pem"):
        resources(host('local_fullchain = "nowhere.pem"\nlocal_key = "nowhere.pem"'))


def test_certbot(host: Make) -> None:
    """Package, executable hooks, certificate and timer; gitlab.rb has certbot's paths."""
    certbot = host('acme = { client = "certbot", email = "ops@example.com" }')
    assert kinds(certbot) == [
        *("TrustedCa", "Packages", "File", "File", "File"),
        *("AcmeCertificate", "Service", "ServedCertificate"),
    ]
    (acme,) = (one for one in resources(certbot) if isinstance(one, AcmeCertificate))
    assert acme.directory == "https://acme-v02.api.letsencrypt.org/directory"
    assert acme.pair.fullchain == f"/etc/letsencrypt/live/{NAME}/fullchain.pem"
    assert certificate_settings(certbot) == {
        ("registry_nginx", "ssl_certificate"): f"/etc/letsencrypt/live/{NAME}/fullchain.pem",
        ("registry_nginx", "ssl_certificate_key"): f"/etc/letsencrypt/live/{NAME}/privkey.pem",
    }


def test_another_directory(host: Make) -> None:
    """Another ACME authority can be given."""
    acme = resources(
        host('acme = { client = "certbot", email = "a@b.c", directory = "https://acme.example.com/dir" }')
    )[5]
    assert isinstance(acme, AcmeCertificate)
    assert acme.directory == "https://acme.example.com/dir"


def test_omnibus_asks_by_itself(host: Make) -> None:
    """One certificate for both names, in files named after GitLab's; nothing is uploaded."""
    omnibus = host('acme = { client = "omnibus", email = "ops@example.com" }')
    assert kinds(omnibus) == ["TrustedCa", "CertificatePair", "ServedCertificate"]
    pair = resources(omnibus)[1]
    assert isinstance(pair, CertificatePair)
    assert (pair.fullchain, pair.coming) == ("/etc/gitlab/ssl/gitlab.example.com.crt", True)
    assert certificate_settings(omnibus) == {
        ("letsencrypt", "enable"): True,
        ("letsencrypt", "contact_emails"): ["ops@example.com"],
        ("letsencrypt", "alt_names"): [NAME],
        ("registry_nginx", "ssl_certificate"): "/etc/gitlab/ssl/gitlab.example.com.crt",
        ("registry_nginx", "ssl_certificate_key"): "/etc/gitlab/ssl/gitlab.example.com.key",
    }


def test_omnibus_with_one_name(host: Make) -> None:
    """A registry under GitLab's own name needs no additional name."""
    same = host('acme = { client = "omnibus", email = "a@b.c" }', url="https://gitlab.example.com:5555")
    assert ("letsencrypt", "alt_names") not in certificate_settings(same)


def test_one_setting_in_two_places_is_refused(host: Make) -> None:
    """Settings of [gitlab.settings] that acme sets, too, are refused."""
    both = host('acme = { client = "omnibus", email = "a@b.c" }', settings="letsencrypt.enable = false")
    with pytest.raises(UsageError, match=r"gitlab\.settings\.letsencrypt\.enable: registry\.certificate\.acme sets it"):
        certificate_settings(both)


@pytest.mark.parametrize(
    ("certificate", "text"),
    [
        ('acme = { client = "omnibus", email = "a@b.c", directory = "https://x.example/dir" }', "use certbot"),
        ('acme = { client = "lego", email = "a@b.c" }', "client"),
        ('acme = { client = "certbot", email = "ops" }', "one e-mail address"),
        ('acme = { client = "certbot", email = "a@b.c", directory = "x.example" }', "URL with its scheme"),
        ('fullchain = "/a"\nkey = "/b"\nacme = { client = "certbot", email = "a@b.c" }', "not both"),
    ],
)
def test_wrong_tables_are_told(host: Make, certificate: str, text: str) -> None:
    """Each is reported with its place, before a host is contacted."""
    with pytest.raises(InventoryError, match="acme") as caught:
        host(certificate)
    assert text in caught.value.text
