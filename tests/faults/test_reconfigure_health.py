"""A reconfigure that ends well, and a service that does not come up with it: the previous gitlab.rb is back in force."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from provision.resources.gitlab import reconfigure as module
from provision_lab import LabHost
from provision_lab.trial import Trial
from tests.support.faults import fact, pending
from tests.support.runs import applied, provision, reconfigures, settled, succeeds, without_s3

RB, ASIDE = "/etc/gitlab/gitlab.rb", "/var/lib/provision/rollback/gitlab.rb"
URL, REALM = "https://gitlab.lab.test:5555", "https://gitlab.lab.test/jwt/auth"


@pytest.fixture(scope="module")
def trial(trial_factory: Callable[..., Trial]) -> Trial:
    """A GitLab host on which everything is in force."""
    trial = without_s3(trial_factory(LabHost("gitlab")))
    applied(trial, "server")
    return trial


def settings(**changes: Any) -> Mapping[str, Any]:
    """The inventory with other settings of GitLab's."""
    return {"gitlab": {"settings": changes}}


def test_nginx_without_its_certificate(trial: Trial) -> None:
    """The site's certificate has vanished: waited for 90 s, told with nginx's own line, taken back; mended, it converges."""
    before, old = reconfigures(trial), fact(trial, "gitlab", f"sha256sum {RB}")
    gone = settings(nginx={"ssl_certificate": "/etc/letsencrypt/gone.pem"}, gitlab_rails={"time_zone": "Rome"})
    outcome = provision(trial, "server", changes=gone)
    (error,) = outcome.of("error")
    assert (outcome.code, error["resource"], error["task"]) == (1, "reconfigure", "registry")
    assert "GitLab was reconfigured, but does not come up: " in error["text"]
    assert 'cannot load certificate "/etc/letsencrypt/gone.pem"' in error["text"]
    assert error["text"].endswith(f"the previous {RB} is back in force")
    assert outcome.statuses("gitlab")["firewall"] == "skipped"
    assert (fact(trial, "gitlab", f"sha256sum {RB}"), reconfigures(trial), pending(trial, "gitlab")) == (
        old,
        before + 2,
        [],
    )
    assert fact(trial, "gitlab", f"curl -sk -o /dev/null -w '%{{http_code}}' {URL}/v2/") == "401"
    assert not succeeds(trial, "gitlab", "gitlab-ctl status | grep ^down")
    applied(trial, "server", changes=settings(gitlab_rails={"time_zone": "Rome"}))
    settled(trial, "server", changes=settings(gitlab_rails={"time_zone": "Rome"}))


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
def test_nginx_with_a_bad_pair(trial: Trial, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """The same by the reconfigure's own script, with less patience: a certificate or key that nginx cannot use is named."""
    monkeypatch.setattr(module, "_ANSWER_SECONDS", 4)
    make, key, path, words = BROKEN[kind]
    trial.lab.inside("gitlab", make)
    old = fact(trial, "gitlab", f"sha256sum {RB}")
    line = f"nginx['{key}'] = '{path}'"
    trial.lab.inside("gitlab", f"mkdir -p $(dirname {ASIDE}) && cp -p {RB} {ASIDE} && cat >> {RB}", stdin=f"\n{line}\n")
    done = trial.lab.ssh("gitlab", "sudo sh -s", stdin=module.reconfigure(URL, REALM).run.script)
    assert done.returncode == 1
    assert "waiting until GitLab's services are up" in done.stdout
    assert words in done.stderr
    assert fact(trial, "gitlab", f"sha256sum {RB}") == old
    assert not succeeds(trial, "gitlab", "gitlab-ctl status | grep ^down")


def test_a_service_that_somebody_stopped(trial: Trial) -> None:
    """The registry was stopped by hand: its answer is what counts, and the reconfigure brings it up again."""
    trial.lab.inside("gitlab", "gitlab-ctl stop registry")
    outcome = applied(trial, "server", changes=settings(gitlab_rails={"time_zone": "Oslo"}))
    assert outcome.changes()[-1] == "reconfigure GitLab"
    settled(trial, "server", changes=settings(gitlab_rails={"time_zone": "Oslo"}))
