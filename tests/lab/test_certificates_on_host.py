"""Certificates that somebody else puts on the GitLab host: renewals are taken over by a HUP, unfit files are refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from provision_lab import LabHost
from provision_lab.certificates import Authority, Pair
from provision_lab.trial import Trial
from tests.support.certificates import HOST, issue, leaf, locked, on_disk, owed, served, swapped
from tests.support.runs import applied, provision, reconfigures, settled, untouched, without_s3

FULLCHAIN = f"/etc/letsencrypt/live/{HOST}/fullchain.pem"
KEY = f"/etc/letsencrypt/live/{HOST}/privkey.pem"
CA = Authority("their CA")
GOOD = issue(CA)


@pytest.fixture(scope="module")
def trial(trial_factory: Callable[..., Trial]) -> Trial:
    """A GitLab host that is converged with a certificate as certbot leaves it."""
    trial = without_s3(trial_factory(LabHost("gitlab")))
    del trial.inventory["registry"]["certificate"]["ca"]
    on_disk(trial, GOOD, FULLCHAIN, KEY)
    outcome = applied(trial, "server")
    assert owed(outcome) == ["reconfigure"]
    settled(trial, "server")
    return trial


def test_a_renewal_is_noticed_and_taken_over(trial: Trial) -> None:
    """The file is new, the port serves the old one: a HUP, no reconfigure, and the new one is served."""
    before, pair = reconfigures(trial), issue(CA)
    on_disk(trial, pair, FULLCHAIN, KEY)
    assert served(trial) == leaf(GOOD)
    outcome = applied(trial, "server")
    assert outcome.changes()[0] == f"have {HOST}:5555 serve the certificate that is now in {FULLCHAIN}"
    assert (len(outcome.changes()), owed(outcome)) == (2, ["hup-certificates"])
    assert (served(trial), served(trial, 443)) == (leaf(pair), leaf(pair))
    assert reconfigures(trial) == before
    settled(trial, "server")


def test_check_mode_tells_and_leaves_it(trial: Trial) -> None:
    """The plan names the HUP; nothing is served anew."""
    old = served(trial)
    on_disk(trial, issue(CA), FULLCHAIN, KEY)
    outcome = provision(trial, "certificates", "--check")
    assert (len(outcome.changes()), owed(outcome)) == (2, ["hup-certificates"])
    assert served(trial) == old
    applied(trial, "certificates")


def test_the_registry_answers_right_after_the_hup(trial: Trial) -> None:
    """A HUP ends the registry: the run waits until its supervisor has brought it back, and finds nothing to repair."""
    on_disk(trial, issue(CA), FULLCHAIN, KEY)
    outcome = applied(trial, "certificates", "registry")
    assert owed(outcome) == ["hup-certificates"]
    ask = f"curl -sk -o /dev/null -w '%{{http_code}}' https://{HOST}:5555/v2/"
    assert trial.lab.inside("gitlab", ask) == "401"


def test_a_hup_that_was_killed_is_made_good(trial: Trial) -> None:
    """The debt stands on the host: the next run pays it, though the port serves the right one by then."""
    trial.lab.inside("gitlab", "printf 'hup-certificates\\tx\\n' > /var/lib/provision/pending")
    assert owed(applied(trial, "certificates")) == ["hup-certificates"]
    settled(trial, "server")


def test_a_key_that_others_can_read_is_closed(trial: Trial) -> None:
    """0644 becomes 0600; nginx needs no word of it."""
    trial.lab.inside("gitlab", f"chmod 0644 {KEY}")
    outcome = applied(trial, "certificates")
    assert outcome.changes() == [f"set {KEY} to 0600 (was 0644)"]
    settled(trial, "certificates")


UNFIT = {
    "another key": (Pair(GOOD.fullchain, issue(CA).key), "certificate and key do not belong together"),
    "another host": (issue(CA, ["other.lab.test"]), f"is not for {HOST}: it names other.lab.test"),
    "expired": (issue(CA, start=-30, days=29), "expired on 20"),
    "not valid yet": (issue(CA, start=2), "is not valid before 20"),
    "the chain upside down": (Pair(swapped(GOOD), GOOD.key), "the chain is out of order"),
    "a passphrase": (Pair(GOOD.fullchain, locked(GOOD.key)), "is no private key without a passphrase"),
    "no key": (Pair(GOOD.fullchain, "hello\n"), "is no private key without a passphrase"),
    "no certificate": (Pair("hello\n", GOOD.key), "holds no PEM certificate"),
}


@pytest.mark.parametrize("kind", UNFIT)
def test_unfit_files_are_refused(trial: Trial, kind: str) -> None:
    """With the reason and the file's name; what is served stays, and nothing on the host changes."""
    pair, reason = UNFIT[kind]
    old = served(trial)
    on_disk(trial, pair, FULLCHAIN, KEY)
    with untouched(trial, "gitlab", "/etc/gitlab", "/etc/letsencrypt", "/var/lib/provision"):
        outcome = provision(trial, "server")
    assert outcome.code == 1
    assert reason in outcome.errors
    assert FULLCHAIN in outcome.errors or KEY in outcome.errors
    assert served(trial) == old
    good = issue(CA)
    on_disk(trial, good, FULLCHAIN, KEY)
    assert owed(applied(trial, "server")) == ["hup-certificates"], "mended, the same command converges"
    assert served(trial) == leaf(good)


def test_missing_files_are_named(trial: Trial) -> None:
    """With what to do about it."""
    trial.lab.inside("gitlab", f"mv {KEY} {KEY}.away")
    outcome = provision(trial, "certificates")
    trial.lab.inside("gitlab", f"mv {KEY}.away {KEY}")
    assert outcome.code == 1
    assert f"{KEY} is not on the host" in outcome.errors
    assert "local_fullchain" in outcome.errors
