"""A reconfigure succeeds, but a service does not start: the previous gitlab.rb is restored."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from provision.resources.gitlab import gitlab_rb as module
from provision.url import Url
from provision_lab import LabHost
from provision_lab.harness import Harness
from tests.support.faults import fact, gitlab_settings, pending
from tests.support.runs import applied, provision, reconfigures, succeeds, unchanged, without_s3

RB, BACKUP = "/etc/gitlab/gitlab.rb", "/var/lib/provision/rollback/gitlab.rb"
URL, REALM = "https://gitlab.lab.test:5555", "https://gitlab.lab.test/jwt/auth"


@pytest.fixture(scope="module")
def harness(harness_factory: Callable[..., Harness]) -> Harness:
    """A converged GitLab host."""
    return without_s3(harness_factory(LabHost("gitlab", prepared="server")))


def test_nginx_without_its_certificate(harness: Harness) -> None:
    """The certificate is missing: nginx's error after 90 s, rolled back; once fixed, it converges."""
    before, old = reconfigures(harness), fact(harness, "gitlab", f"sha256sum {RB}")
    gone = gitlab_settings(nginx={"ssl_certificate": "/etc/letsencrypt/gone.pem"}, gitlab_rails={"time_zone": "Rome"})
    outcome = provision(harness, "server", changes=gone)
    (error,) = outcome.of("error")
    assert (outcome.code, error["resource"], error["task"]) == (1, "reconfigure", "registry")
    assert "GitLab was reconfigured, but does not come up: " in error["text"]
    assert 'cannot load certificate "/etc/letsencrypt/gone.pem"' in error["text"]
    assert error["text"].endswith(f"rolled back to the previous {RB}")
    assert outcome.statuses("gitlab")["registry"] == "failed"
    assert (fact(harness, "gitlab", f"sha256sum {RB}"), reconfigures(harness), pending(harness, "gitlab")) == (
        old,
        before + 2,
        [],
    )
    assert fact(harness, "gitlab", f"curl -sk -o /dev/null -w '%{{http_code}}' {URL}/v2/") == "401"
    assert not succeeds(harness, "gitlab", "gitlab-ctl status | grep ^down")
    applied(harness, "server", changes=gitlab_settings(gitlab_rails={"time_zone": "Rome"}))
    unchanged(harness, "server", changes=gitlab_settings(gitlab_rails={"time_zone": "Rome"}))


BROKEN = {
    "certificate": (
        "cp /dev/null /etc/letsencrypt/bad.pem",
        "ssl_certificate",
        "/etc/letsencrypt/bad.pem",
        "no start line",
    ),
    "key": (
        "openssl ecparam -name prime256v1 -genkey -noout -out /etc/letsencrypt/bad.key",
        "ssl_certificate_key",
        "/etc/letsencrypt/bad.key",
        "mismatch",
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_nginx_with_a_bad_pair(harness: Harness, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """With the reconfigure's own script and a shorter limit: the certificate or key that nginx rejects is named."""
    monkeypatch.setattr(module, "_UP_SECONDS", 4)
    make, key, path, words = BROKEN[kind]
    harness.lab.inside("gitlab", make)
    old = fact(harness, "gitlab", f"sha256sum {RB}")
    line = f"nginx['{key}'] = '{path}'"
    harness.lab.inside(
        "gitlab", f"mkdir -p $(dirname {BACKUP}) && cp -p {RB} {BACKUP} && cat >> {RB}", stdin=f"\n{line}\n"
    )
    done = harness.lab.ssh("gitlab", "sudo sh -s", stdin=module.reconfigure(Url.parse(URL), REALM).run.script)
    assert done.returncode == 1
    assert "waiting until GitLab's services are up" in done.stdout
    assert words in done.stderr
    assert fact(harness, "gitlab", f"sha256sum {RB}") == old
    assert not succeeds(harness, "gitlab", "gitlab-ctl status | grep ^down")


def test_a_registry_that_cannot_start(harness: Harness) -> None:
    """The reconfigure itself fails, after runit's time: the registry's own error is reported, and it runs as before."""
    old = fact(harness, "gitlab", f"sha256sum {RB}")
    outcome = provision(harness, "server", changes=gitlab_settings(registry={"log_level": "nonsense"}))
    (error,) = outcome.of("error")
    assert (outcome.code, error["resource"]) == (1, "reconfigure")
    assert "STDOUT: timeout: down: registry: " in error["text"]
    assert "invalid loglevel nonsense" in error["text"]
    assert error["text"].endswith(f"rolled back to the previous {RB}")
    assert fact(harness, "gitlab", f"sha256sum {RB}") == old
    assert fact(harness, "gitlab", f"curl -sk -o /dev/null -w '%{{http_code}}' {URL}/v2/") == "401"
    applied(harness, "server")
    unchanged(harness, "server")


def test_a_metadata_database_is_not_turned_off(harness: Harness) -> None:
    """A registry that has used its database refuses to start without it: its reason is reported, and it runs as before."""
    outcome = provision(harness, "server", changes=gitlab_settings(registry={"database": {"enabled": False}}))
    (error,) = outcome.of("error")
    assert (outcome.code, error["resource"]) == (1, "reconfigure")
    assert "registry metadata database in use, please enable the database" in error["text"]
    assert error["text"].endswith(f"rolled back to the previous {RB}")
    assert fact(harness, "gitlab", f"curl -sk -o /dev/null -w '%{{http_code}}' {URL}/v2/") == "401"
    unchanged(harness, "server")


def test_a_service_that_somebody_stopped(harness: Harness) -> None:
    """The registry was stopped: its endpoint does not answer, and the reconfigure starts it again."""
    harness.lab.inside("gitlab", "gitlab-ctl stop registry")
    outcome = applied(harness, "server", changes=gitlab_settings(gitlab_rails={"time_zone": "Oslo"}))
    assert outcome.changes()[-1] == "reconfigure GitLab"
    unchanged(harness, "server", changes=gitlab_settings(gitlab_rails={"time_zone": "Oslo"}))
