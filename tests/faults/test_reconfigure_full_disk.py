"""With any amount of free disk space, gitlab.rb is the old or the new one, and the run after a fix converges."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from provision_lab import LabHost
from provision_lab.harness import Harness
from tests.support.faults import fact, pending, zone, zone_in_force
from tests.support.runs import applied, provision, succeeds, unchanged, without_s3

RB, BACKUP = "/etc/gitlab/gitlab.rb", "/var/lib/provision/rollback/gitlab.rb"
FULL = "fallocate -l 1G /fill 2>/dev/null; cat /dev/zero >> /fill 2>/dev/null; truncate -s -{}K /fill"


@pytest.fixture(scope="module")
def harness(harness_factory: Callable[..., Harness]) -> Harness:
    """A converged GitLab host with a small disk."""
    return without_s3(harness_factory(LabHost("gitlab", disk_mb=160, prepared="server")))


def in_force(harness: Harness) -> tuple[str, str]:
    """The time zone in gitlab.rb, and a checksum of all its other lines."""
    return zone_in_force(harness), fact(harness, "gitlab", f"grep -v time_zone {RB} | sha256sum")


def test_at_whatever_step(harness: Harness) -> None:
    """With more and more space it fails later and later, each time with an error; finally it succeeds."""
    before, seen = in_force(harness), set()
    for room in (0, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 256, 512):
        harness.lab.inside("gitlab", FULL.format(room))
        outcome = provision(harness, "server", changes=zone("Full"))
        harness.lab.inside("gitlab", "rm -f /fill")
        value, rest = in_force(harness)
        assert (value in (before[0], "Full"), rest) == (True, before[1])
        assert succeeds(harness, "gitlab", f"ruby -c {RB}")
        if outcome.code == 0:
            break
        (error,) = outcome.of("error")
        assert (outcome.code, bool(error["hint"])) == (1, True)
        assert "No space left on device" in error["text"], error["text"]
        assert "full" in error["hint"], error["hint"]
        seen.add((error["resource"], value, bool(pending(harness, "gitlab"))))
    assert outcome.code == 0
    assert len(seen) > 1, seen
    unchanged(harness, "server", changes=zone("Full"))


def test_full_from_the_reconfigure_on(harness: Harness) -> None:
    """The disk fills up during the reconfigure: an error, and the run after the fix converges."""
    harness.lab.inside("gitlab", "cat > /etc/gitlab-standin/reconfigure-seconds; rm -f /run/full", stdin="2")
    fill = f"until pgrep -f '[g]itlab-ctl reconfigure'; do sleep 0.1; done; {FULL.format(0)}; touch /run/full"
    harness.lab.inside("gitlab", f"setsid sh -c {quoted(fill)} >/dev/null 2>&1 </dev/null &")
    changes = {
        "registry": {"external_url": "https://gitlab.lab.test:5556"}
    }  # files of the registry and nginx are written
    outcome = provision(harness, "server", changes={**zone("Full"), **changes})
    assert fact(harness, "gitlab", "ls /run/full") == "/run/full"
    harness.lab.inside("gitlab", "rm -f /fill /etc/gitlab-standin/reconfigure-seconds")
    assert outcome.code == 1
    assert "No space left on device" in outcome.errors
    assert f"is kept as {BACKUP}" in outcome.errors
    assert pending(harness, "gitlab") == ["reconfigure"]
    applied(harness, "server", changes={**zone("Full"), **changes})
    unchanged(harness, "server", changes={**zone("Full"), **changes})
    assert not succeeds(harness, "gitlab", f"test -e {BACKUP}")


def quoted(text: str) -> str:
    """The text quoted for a shell."""
    from shlex import quote

    return quote(text)
