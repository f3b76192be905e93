"""GitLab that does not take a gitlab.rb: a reconfigure that fails, a file that somebody broke."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from shlex import quote
from typing import Any

import pytest

from provision_lab import LabHost
from provision_lab.trial import Trial
from tests.support.faults import fact, on_host, pending
from tests.support.runs import applied, provision, settled, without_s3

Tables = Mapping[str, Any]


@pytest.fixture(scope="module")
def trial(trial_factory: Callable[..., Trial]) -> Trial:
    """A GitLab host on which everything is in force."""
    trial = without_s3(trial_factory(LabHost("gitlab")))
    applied(trial, "server")
    return trial


def zone(name: str) -> Tables:
    """The inventory with another time zone: one edit of gitlab.rb, which owes a reconfigure."""
    return {"gitlab": {"settings": {"gitlab_rails": {"time_zone": name}}}}


def in_force(trial: Trial) -> str:
    """The time zone that gitlab.rb asks for."""
    return fact(trial, "gitlab", "sed -n \"s/^gitlab_rails.'time_zone'. = //p\" /etc/gitlab/gitlab.rb").strip("\"'")


@pytest.mark.parametrize("switch", ["fail-next-reconfigure", "fail-next-reconfigure-late"])
def test_a_failing_reconfigure_takes_itself_back(trial: Trial, switch: str) -> None:
    """The previous gitlab.rb is back in force, the cause and that are told, later tasks are skipped; then it succeeds."""
    changes, now = zone(f"Etc/{switch}"), in_force(trial)
    trial.lab.inside("gitlab", f"echo 'the disk of the database is gone' > /etc/gitlab-standin/{switch}")
    outcome = provision(trial, "server", changes=changes)
    (error,) = outcome.of("error")
    assert (outcome.code, error["error"], error["resource"]) == (1, "ChangeFailed", "reconfigure")
    assert "the disk of the database is gone" in error["text"]
    assert "the previous /etc/gitlab/gitlab.rb is back in force" in error["text"]
    assert error["hint"]
    assert outcome.statuses("gitlab")["firewall"] == "skipped"
    assert (in_force(trial), pending(trial, "gitlab")) == (now, [])
    settled(trial, "server", changes=zone(now))
    applied(trial, "server", changes=changes)
    settled(trial, "server", changes=changes)


BROKEN = {
    "syntax": ("gitlab_rails['time_zone' = 'UTC'", ("gitlab.rb, line ", "ruby -c /etc/gitlab/gitlab.rb")),
    "raises": ("raise 'the vault is sealed'", ("the vault is sealed", "/etc/gitlab/gitlab.rb")),
    "unknown name": ("external_ulr 'https://gitlab.lab.test'", ("external_ulr", "/etc/gitlab/gitlab.rb")),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_gitlab_rb(trial: Trial, kind: str) -> None:
    """Somebody broke gitlab.rb by hand: told with the cause, GitLab runs on, the file is theirs still; mended, it goes on."""
    line, words = BROKEN[kind]
    changes = zone(f"Etc/{kind.replace(' ', '-')}")
    spoil = f"cp -p /etc/gitlab/gitlab.rb /root/good.rb; echo {quote(line)} >> /etc/gitlab/gitlab.rb"
    with on_host(trial, "gitlab", spoil, "mv /root/good.rb /etc/gitlab/gitlab.rb"):
        broken = fact(trial, "gitlab", "sha256sum < /etc/gitlab/gitlab.rb")
        outcome = provision(trial, "server", changes=changes)
        (error,) = outcome.of("error")
        assert (outcome.code, error["host"]) == (1, "gitlab")
        assert [one for one in words if one not in f"{error['text']} → {error['hint']}"] == []
        assert error["hint"]
        assert fact(trial, "gitlab", "sha256sum < /etc/gitlab/gitlab.rb") == broken
        status = "curl -sk -o /dev/null -w '%{http_code}' https://gitlab.lab.test:5555/v2/"
        assert fact(trial, "gitlab", status) == "401"
    applied(trial, "server", changes=changes)
    settled(trial, "server", changes=changes)
