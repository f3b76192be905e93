"""`DefaultPair`: which certificate the registry serves without `registry.certificate`. Real files, sh and openssl."""

from __future__ import annotations

from pathlib import Path

import pytest

from provision.errors import Refused
from provision.resources import CertificatePair, DefaultPair
from provision.testing import LocalSession, notes, observe_on, planned
from provision_lab.certificates import Authority

CA = Authority("Let's Encrypt")
SITE, REGISTRY = "gitlab.acme.dev", "registry.acme.dev"
ISSUED = '{"letsencrypt": {\n    "auto_enabled": true\n  }}'


def pair_at(name: str, host: str) -> CertificatePair:
    """The pair at the default path of `name`, for `host`."""
    return CertificatePair(f"/etc/gitlab/ssl/{name}.crt", f"/etc/gitlab/ssl/{name}.key", host)


APART = DefaultPair(pair_at(REGISTRY, REGISTRY), pair_at(SITE, REGISTRY))
TOGETHER = DefaultPair(pair_at(SITE, SITE), pair_at(SITE, SITE))


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    """What stands for /etc/gitlab; nothing is there."""
    (tmp_path / "ssl").mkdir()
    return tmp_path


def put(etc: Path, name: str, *hosts: str) -> None:
    """Puts a certificate for these hosts at the default path of `name`."""
    issued = CA.issue(list(hosts), [])
    (etc / "ssl" / f"{name}.crt").write_text(issued.fullchain)
    (etc / "ssl" / f"{name}.key").write_text(issued.key)
    (etc / "ssl" / f"{name}.key").chmod(0o600)


def refusal(etc: Path, resource: DefaultPair) -> str:
    """What is refused before the first change; `plan` refuses the same."""
    seen = observe_on(LocalSession({"/etc/gitlab": etc}), resource)
    with pytest.raises(Refused) as early:
        resource.refuse_early(seen)
    with pytest.raises(Refused) as planning:
        planned(resource, seen)
    assert early.value.text == planning.value.text
    return early.value.text


def outcome(etc: Path, resource: DefaultPair) -> str:
    """The notes, or "checked"."""
    seen = observe_on(LocalSession({"/etc/gitlab": etc}), resource)
    resource.refuse_early(seen)
    assert planned(resource, seen) == []
    return "; ".join(notes(resource, seen)) or "checked"


@pytest.mark.parametrize("resource", [APART, TOGETHER], ids=["two names", "one name"])
def test_nothing_on_the_host(etc: Path, resource: DefaultPair) -> None:
    """GitLab asks for a certificate: it is said, and not refused. gitlab.rb as the package installs it changes nothing."""
    host = resource.pair.host
    expected = (
        f"there is no certificate at /etc/gitlab/ssl/{host}.crt: GitLab asks Let's Encrypt for one when it is reconfigured, "
        f"which must reach port 80 of {host}"
    )
    assert outcome(etc, resource) == expected
    (etc / "gitlab.rb").write_text("external_url 'https://x.acme.dev'\n# letsencrypt['enable'] = nil\n")
    assert outcome(etc, resource) == expected


@pytest.mark.parametrize("resource", [APART, TOGETHER], ids=["two names", "one name"])
def test_a_certificate_at_the_default_path_is_used(etc: Path, resource: DefaultPair) -> None:
    """As before, whoever put it there; an unfit one is refused."""
    host = resource.pair.host
    put(etc, host, host)
    assert outcome(etc, resource) == "checked"
    put(etc, host, "other.acme.dev")
    seen = observe_on(LocalSession({"/etc/gitlab": etc}), resource)
    with pytest.raises(Refused, match=rf"/etc/gitlab/ssl/{host}\.crt: is not for {host}"):
        planned(resource, seen)


@pytest.mark.parametrize("gone", ["crt", "key"])
def test_half_a_pair_is_refused(etc: Path, gone: str) -> None:
    """GitLab asks for none then: one of the files exists."""
    put(etc, SITE, SITE)
    (etc / "ssl" / f"{SITE}.{gone}").unlink()
    assert refusal(etc, TOGETHER) == f"/etc/gitlab/ssl/{SITE}.{gone} is not on the host"


def test_gitlabs_own_certificate_from_lets_encrypt_has_both_names(etc: Path) -> None:
    """It is checked for the registry's name: what the reconfigure before this run has issued."""
    put(etc, SITE, SITE, REGISTRY)
    (etc / "gitlab-secrets.json").write_text(ISSUED)
    assert outcome(etc, APART) == "checked"
    put(etc, SITE, SITE)
    seen = observe_on(LocalSession({"/etc/gitlab": etc}), APART)
    with pytest.raises(Refused, match=rf"/etc/gitlab/ssl/{SITE}\.crt: is not for {REGISTRY}"):
        planned(APART, seen)


def test_gitlabs_own_certificate_from_elsewhere(etc: Path) -> None:
    """GitLab does not ask for another one: the registry's is missing. Unless the inventory enables it."""
    put(etc, SITE, SITE, REGISTRY)
    assert refusal(etc, APART) == f"/etc/gitlab/ssl/{REGISTRY}.crt is not on the host"
    assert outcome(etc, DefaultPair(APART.pair, APART.site, enabled=True)) == "checked"


@pytest.mark.parametrize(
    "line",
    [
        "letsencrypt['enable'] = false",
        "nginx['ssl_certificate'] = '/etc/ssl/own.crt'",
        "gitlab_rails['nginx']['ssl_certificate_key'] = '/etc/ssl/own.key'",
    ],
)
def test_an_administrator_keeps_gitlab_from_asking(etc: Path, line: str) -> None:
    """By gitlab.rb: the missing files are refused, as before."""
    (etc / "gitlab.rb").write_text(f"{line}\n")
    assert refusal(etc, APART) == f"/etc/gitlab/ssl/{REGISTRY}.crt is not on the host"
    assert refusal(etc, TOGETHER) == f"/etc/gitlab/ssl/{SITE}.crt is not on the host"


def test_no_secret_leaves_the_host(etc: Path) -> None:
    """The answers have the public half of the key, and of GitLab's secrets one word."""
    put(etc, SITE, SITE)
    (etc / "gitlab-secrets.json").write_text(ISSUED.replace("{", '{"db_key_base": "very-secret", ', 1))
    seen = observe_on(LocalSession({"/etc/gitlab": etc}), APART)
    answers = b"".join(seen[name].stdout + seen[name].stderr for name in APART.probe())
    assert b"very-secret" not in answers
    assert b"PRIVATE KEY" not in answers
    assert seen["issued"].text == "yes\n"
