"""Certificates that others put on the GitLab host: renewals are served after a HUP, unfit files are refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from provision_lab import LabHost
from provision_lab.certificates import Authority, Pair
from provision_lab.harness import Harness
from tests.support.certificates import HOST, handlers_run, issue, leaf, locked, on_disk, served, swapped
from tests.support.runs import applied, provision, reconfigures, unchanged, untouched, without_s3

FULLCHAIN = f"/etc/letsencrypt/live/{HOST}/fullchain.pem"
KEY = f"/etc/letsencrypt/live/{HOST}/privkey.pem"
CA = Authority("their CA")
GOOD = issue(CA)


@pytest.fixture(scope="module")
def harness(harness_factory: Callable[..., Harness]) -> Harness:
    """A GitLab host that is converged with a certificate like certbot's."""
    harness = without_s3(harness_factory(LabHost("gitlab")))
    del harness.inventory["registry"]["certificate"]["ca"]
    refused_when_bare(harness)
    on_disk(harness, GOOD, FULLCHAIN, KEY)
    outcome = applied(harness, "server")
    assert handlers_run(outcome) == ["reconfigure"]
    unchanged(harness, "server")
    return harness


def refused_when_bare(harness: Harness) -> None:
    """The certificate is missing on a bare host: nothing is installed and nothing is written before the refusal."""
    packages = "dpkg-query -W -f '${Package} ${Version}\\n'; find /etc/apt /etc/gitlab /opt/gitlab 2>/dev/null; :"
    harness.lab.inside("gitlab", f"rm -f {FULLCHAIN} {KEY}")
    before = harness.lab.inside("gitlab", packages)
    outcome = provision(harness, "server")
    assert outcome.code == 1
    assert f"{FULLCHAIN} is not on the host" in outcome.errors
    assert outcome.changes() == []
    assert harness.lab.inside("gitlab", packages) == before


def test_a_renewal_is_noticed_and_taken_over(harness: Harness) -> None:
    """The file is new and the port serves the old one: a HUP and no reconfigure, then the new one is served."""
    before, pair = reconfigures(harness), issue(CA)
    on_disk(harness, pair, FULLCHAIN, KEY)
    assert served(harness) == leaf(GOOD)
    outcome = applied(harness, "server")
    assert outcome.changes()[0] == f"serve the certificate that is now in {FULLCHAIN} at {HOST}:5555"
    assert (len(outcome.changes()), handlers_run(outcome)) == (2, ["hup-certificates"])
    assert (served(harness), served(harness, 443)) == (leaf(pair), leaf(pair))
    assert reconfigures(harness) == before
    unchanged(harness, "server")


def test_check_mode_plans_and_changes_nothing(harness: Harness) -> None:
    """The plan names the HUP; the port still serves the old certificate."""
    old = served(harness)
    on_disk(harness, issue(CA), FULLCHAIN, KEY)
    outcome = provision(harness, "certificates", "--check")
    assert (len(outcome.changes()), handlers_run(outcome)) == (2, ["hup-certificates"])
    assert served(harness) == old
    applied(harness, "certificates")


def test_the_registry_answers_right_after_the_hup(harness: Harness) -> None:
    """A HUP restarts the registry: the run waits until it runs again, and finds nothing to repair."""
    on_disk(harness, issue(CA), FULLCHAIN, KEY)
    outcome = applied(harness, "certificates", "registry")
    assert handlers_run(outcome) == ["hup-certificates"]
    ask = f"curl -sk -o /dev/null -w '%{{http_code}}' https://{HOST}:5555/v2/"
    assert harness.lab.inside("gitlab", ask) == "401"


def test_a_hup_that_was_killed_is_sent_later(harness: Harness) -> None:
    """The HUP is pending on the host: the next run sends it, although the port serves the right certificate by then."""
    harness.lab.inside("gitlab", "printf 'hup-certificates\\tx\\n' > /var/lib/provision/pending")
    assert handlers_run(applied(harness, "certificates")) == ["hup-certificates"]
    unchanged(harness, "server")


def test_a_key_that_others_can_read_is_closed(harness: Harness) -> None:
    """Mode 0644 becomes 0600, without a HUP."""
    harness.lab.inside("gitlab", f"chmod 0644 {KEY}")
    outcome = applied(harness, "certificates")
    assert outcome.changes() == [f"set {KEY} to 0600 (was 0644)"]
    unchanged(harness, "certificates")


UNFIT = {
    "another key": (Pair(GOOD.fullchain, issue(CA).key), "the key does not belong to the certificate"),
    "another host": (issue(CA, ["other.lab.test"]), f"is not for {HOST}: it names other.lab.test"),
    "expired": (issue(CA, start=-30, days=29), "expired on 20"),
    "not valid yet": (issue(CA, start=2), "is not valid before 20"),
    "the chain upside down": (Pair(swapped(GOOD), GOOD.key), "the chain is out of order"),
    "a passphrase": (Pair(GOOD.fullchain, locked(GOOD.key)), "is no private key without a passphrase"),
    "no key": (Pair(GOOD.fullchain, "hello\n"), "is no private key without a passphrase"),
    "no certificate": (Pair("hello\n", GOOD.key), "holds no PEM certificate"),
}


@pytest.mark.parametrize("kind", UNFIT)
def test_unfit_files_are_refused(harness: Harness, kind: str) -> None:
    """The error has the reason and the file's name. The served certificate stays, and the host is unchanged."""
    pair, reason = UNFIT[kind]
    old = served(harness)
    on_disk(harness, pair, FULLCHAIN, KEY)
    with untouched(harness, "gitlab", "/etc/gitlab", "/etc/letsencrypt", "/var/lib/provision"):
        outcome = provision(harness, "server")
    assert outcome.code == 1
    assert reason in outcome.errors
    assert FULLCHAIN in outcome.errors or KEY in outcome.errors
    assert served(harness) == old
    good = issue(CA)
    on_disk(harness, good, FULLCHAIN, KEY)
    assert handlers_run(applied(harness, "server")) == ["hup-certificates"], (
        "once it is fixed, the same command converges"
    )
    assert served(harness) == leaf(good)


def test_missing_files_are_named(harness: Harness) -> None:
    """The error names the files and the next step."""
    harness.lab.inside("gitlab", f"mv {KEY} {KEY}.away")
    outcome = provision(harness, "certificates")
    harness.lab.inside("gitlab", f"mv {KEY}.away {KEY}")
    assert outcome.code == 1
    assert f"{KEY} is not on the host" in outcome.errors
    assert "local_fullchain" in outcome.errors
