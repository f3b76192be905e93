"""Certificates from this machine on real hosts: uploaded, renewed, rotated with their CA; unfit ones are not uploaded."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from provision_lab import LabHost
from provision_lab.certificates import Authority, Pair
from provision_lab.harness import Harness
from tests.support.certificates import (
    FULLCHAIN,
    HOST,
    KEY,
    handlers_run,
    issue,
    leaf,
    locked,
    served,
    swapped,
    trusted,
    upload,
)
from tests.support.runs import Outcome, applied, provision, reconfigures, unchanged, untouched, without_s3

OLD, NEW = Authority("the first CA"), Authority("the second CA")
HOSTS = ("gitlab", "runner-1")
converged = pytest.mark.usefixtures("first")


@pytest.fixture(scope="module")
def harness(harness_factory: Callable[..., Harness]) -> Harness:
    """Two bare hosts; GitLab and its registry both serve the uploaded certificate."""
    harness = without_s3(harness_factory(*map(LabHost, HOSTS)))
    harness.inventory["gitlab"]["settings"]["nginx"] = {"ssl_certificate": FULLCHAIN, "ssl_certificate_key": KEY}
    harness.inventory["registry"]["certificate"] = upload(harness, OLD, issue(OLD))
    return harness


@pytest.fixture(scope="module")
def first(harness: Harness) -> Outcome:
    """The first run."""
    return applied(harness, "all")


def test_bare_hosts_need_one_reconfigure_and_no_hup(harness: Harness, first: Outcome) -> None:
    """The upload comes before GitLab is configured: nothing is there yet that could take it over."""
    assert f"write {FULLCHAIN} and {KEY}" in first.changes(host="gitlab")
    assert handlers_run(first) == ["reconfigure"]
    assert reconfigures(harness) == 1
    unchanged(harness, "all")


@converged
def test_both_files_are_as_they_should_be(harness: Harness) -> None:
    """Only root can read the key; there are no other files beside the two."""
    look = "cd /etc/gitlab/ssl && stat -c '%n %a %U:%G' $(ls -A)"
    assert harness.lab.inside("gitlab", look).splitlines() == [
        f"{HOST}.crt 644 root:root",
        f"{HOST}.key 600 root:root",
    ]


@converged
def test_every_consumer_has_the_ca(harness: Harness) -> None:
    """The hosts' trust store, Docker and gitlab-runner have the CA: programs trust the registry without options."""
    bundle, own = "/etc/ssl/certs/ca-certificates.crt", "/usr/local/share/ca-certificates/provision-registry.crt"
    docker, runner = f"/etc/docker/certs.d/{HOST}:5555/ca.crt", f"/etc/gitlab-runner/certs/{HOST}.crt"
    assert trusted(harness, "gitlab", OLD) == [bundle, own]
    assert trusted(harness, "runner-1", OLD) == [docker, runner, bundle, own]
    for host in HOSTS:
        assert harness.lab.inside(host, f"curl -s -o /dev/null -w '%{{http_code}}' https://{HOST}:5555/v2/") == "401"


@converged
def test_a_new_certificate_costs_a_hup_and_no_reconfigure(harness: Harness) -> None:
    """Another certificate of the same authority is served at once, on both ports."""
    before, pair = reconfigures(harness), issue(OLD)
    upload(harness, OLD, pair)
    outcome = applied(harness, "certificates")
    assert outcome.changes()[0] == f"write {FULLCHAIN} and {KEY}"
    assert (len(outcome.changes()), handlers_run(outcome)) == (2, ["hup-certificates"])
    assert (served(harness), served(harness, 443)) == (leaf(pair), leaf(pair))
    assert reconfigures(harness) == before
    unchanged(harness, "all")


@converged
def test_rotating_the_ca_updates_all_in_one_run(harness: Harness) -> None:
    """Another authority: one run, verified by push and pull; the old one is removed everywhere."""
    before = reconfigures(harness)
    upload(harness, NEW, issue(NEW))
    outcome = applied(harness, "all")
    assert "verify push and pull" in outcome.messages()
    for host in HOSTS:
        assert trusted(harness, host, OLD) == []
        assert len(trusted(harness, host, NEW)) == (2 if host == "gitlab" else 4)
    assert reconfigures(harness) == before
    unchanged(harness, "all")


@converged
def test_two_authorities_at_once_and_one_again(harness: Harness) -> None:
    """Both authorities of a file are trusted, one file each; removing one leaves nothing behind."""
    ca = harness.folder / "ca.pem"
    ca.write_text(OLD.certificate + NEW.certificate)
    applied(harness, "certificates")
    listing = "ls /usr/local/share/ca-certificates"
    assert harness.lab.inside("gitlab", listing).split() == ["provision-registry-1.crt", "provision-registry-2.crt"]
    ca.write_text(NEW.certificate)
    applied(harness, "certificates")
    assert harness.lab.inside("gitlab", listing).split() == ["provision-registry.crt"]
    assert trusted(harness, "gitlab", OLD) == []


@converged
def test_a_ca_that_did_not_sign_it_is_reported(harness: Harness) -> None:
    """Clients would refuse the certificate: the error says so before anything is uploaded."""
    pair = issue(NEW)
    upload(harness, OLD, pair)
    outcome = provision(harness, "certificates", "--check")
    assert "it is signed by CN=the second CA, which is not in registry.certificate.ca" in outcome.messages()
    upload(harness, NEW, pair)


GOOD = issue(NEW)
UNFIT = {
    "another key": (Pair(GOOD.fullchain, issue(NEW).key), "the key does not belong to the certificate"),
    "another host": (issue(NEW, ["other.lab.test"]), f"is not for {HOST}: it names other.lab.test"),
    "a wildcard of another domain": (issue(NEW, ["*.gitlab.lab.test"]), "it names *.gitlab.lab.test"),
    "expired": (issue(NEW, start=-30, days=29), "expired on 20"),
    "not valid yet": (issue(NEW, start=2), "is not valid before 20"),
    "the chain upside down": (Pair(swapped(GOOD), GOOD.key), "the chain is out of order"),
    "a passphrase": (Pair(GOOD.fullchain, locked(GOOD.key)), "the key has a passphrase"),
    "no key": (Pair(GOOD.fullchain, "hello\n"), "the key is not a private key in PEM"),
    "no certificate": (Pair("hello\n", GOOD.key), "holds no PEM certificate"),
}


@pytest.mark.parametrize("kind", UNFIT)
@converged
def test_unfit_files_never_arrive(harness: Harness, kind: str) -> None:
    """Refused with the reason before any host is contacted, by every command that would use them."""
    pair, reason = UNFIT[kind]
    certificate = upload(harness, NEW, pair)
    with untouched(harness, "gitlab", "/etc/gitlab", "/var/lib/provision"):
        for command in ("certificates", "all"):
            outcome = provision(harness, command)
            assert outcome.code == 2
            assert reason in outcome.stderr, outcome.stderr
            assert certificate["local_fullchain"] in outcome.stderr
            assert "PRIVATE KEY" not in outcome.stderr.replace("-----BEGIN PRIVATE KEY-----", "")
            assert outcome.events == ()


@converged
def test_wildcards_match_and_short_lifetimes_are_reported(harness: Harness) -> None:
    """`*.lab.test` matches the host; a certificate that expires in a week is uploaded with a note."""
    upload(harness, NEW, issue(NEW, ["*.lab.test"], days=8))
    outcome = applied(harness, "certificates")
    assert f"the certificate for {FULLCHAIN} expires in 7 days" in outcome.messages()
