"""GitLab refuses a gitlab.rb: a reconfigure fails, or the file is broken."""

from __future__ import annotations

from collections.abc import Callable
from shlex import quote

import pytest

from provision_lab import LabHost
from provision_lab.harness import Harness
from tests.support.faults import fact, on_host, pending, zone, zone_in_force
from tests.support.runs import applied, provision, unchanged, without_s3


@pytest.fixture(scope="module")
def harness(harness_factory: Callable[..., Harness]) -> Harness:
    """A converged GitLab host."""
    return without_s3(harness_factory(LabHost("gitlab", prepared="server")))


@pytest.mark.parametrize("switch", ["fail-next-reconfigure", "fail-next-reconfigure-late"])
def test_a_failing_reconfigure_rolls_back(harness: Harness, switch: str) -> None:
    """The previous gitlab.rb is active, the error has the cause; then it succeeds."""
    changes, now = zone(f"Etc/{switch}"), zone_in_force(harness)
    harness.lab.inside("gitlab", f"echo 'the disk of the database is gone' > /etc/gitlab-standin/{switch}")
    outcome = provision(harness, "server", changes=changes)
    (error,) = outcome.of("error")
    assert (outcome.code, error["error"], error["resource"]) == (1, "ChangeFailed", "reconfigure")
    assert "the disk of the database is gone" in error["text"]
    assert "rolled back to the previous /etc/gitlab/gitlab.rb" in error["text"]
    assert error["hint"]
    assert outcome.statuses("gitlab")["registry"] == "failed"
    assert (zone_in_force(harness), pending(harness, "gitlab")) == (now, [])
    unchanged(harness, "server", changes=zone(now))
    applied(harness, "server", changes=changes)
    unchanged(harness, "server", changes=changes)


BROKEN = {
    "syntax": ("gitlab_rails['time_zone' = 'UTC'", ("gitlab.rb, line ", "ruby -c /etc/gitlab/gitlab.rb")),
    "raises": ("raise 'the vault is sealed'", ("the vault is sealed", "/etc/gitlab/gitlab.rb")),
    "unknown name": ("external_ulr 'https://gitlab.lab.test'", ("external_ulr", "/etc/gitlab/gitlab.rb")),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_gitlab_rb(harness: Harness, kind: str) -> None:
    """A file that was broken by hand: the error has the cause, GitLab runs, the file is unchanged; once fixed, it succeeds."""
    line, words = BROKEN[kind]
    changes = zone(f"Etc/{kind.replace(' ', '-')}")
    spoil = f"cp -p /etc/gitlab/gitlab.rb /root/good.rb; echo {quote(line)} >> /etc/gitlab/gitlab.rb"
    with on_host(harness, "gitlab", spoil, "mv /root/good.rb /etc/gitlab/gitlab.rb"):
        broken = fact(harness, "gitlab", "sha256sum < /etc/gitlab/gitlab.rb")
        outcome = provision(harness, "server", changes=changes)
        (error,) = outcome.of("error")
        assert (outcome.code, error["host"]) == (1, "gitlab")
        assert [one for one in words if one not in f"{error['text']} → {error['hint']}"] == []
        assert error["hint"]
        assert fact(harness, "gitlab", "sha256sum < /etc/gitlab/gitlab.rb") == broken
        status = "curl -sk -o /dev/null -w '%{http_code}' https://gitlab.lab.test:5555/v2/"
        assert fact(harness, "gitlab", status) == "401"
    applied(harness, "server", changes=changes)
    unchanged(harness, "server", changes=changes)
