"""A certificate by GitLab's own Let's Encrypt integration, on a host whose ufw allows SSH only.

The integration asks the staging directory first, and the real one only after that has issued a certificate. Both are
Debian's pebble here, which connects to port 80 of the host as a real authority does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from provision_lab.certificates import Authority
from provision_lab.harness import Harness
from provision_lab.run import LabError
from tests.support.acme import Pebble, acme_certificate, closed_host, issuer
from tests.support.certificates import HOST, served
from tests.support.runs import applied, provision, unchanged

SSL = f"/etc/gitlab/ssl/{HOST}"


@pytest.fixture(scope="module")
def harness(harness_factory: Callable[..., Harness]) -> Harness:
    """A bare host whose ufw allows SSH only."""
    return closed_host(harness_factory)


@pytest.fixture(scope="module")
def authority(harness: Harness, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pebble]:
    """The ACME server, whose CA GitLab and the host trust."""
    with acme_certificate(harness, tmp_path_factory.mktemp("pebble"), "omnibus") as running:
        directories = {f"acme_{kind}_endpoint": running.directory for kind in ("staging", "production")}
        harness.inventory["gitlab"]["settings"] = {"letsencrypt": directories}
        yield running


def test_without_the_firewall_task_the_remedy_is_named(harness: Harness, authority: Pebble) -> None:
    """`provision gitlab certificates registry` on the closed host: what failed, and the task that opens port 80."""
    outcome = provision(harness, "gitlab", "certificates", "registry")
    assert outcome.code == 1, authority.directory
    assert "acme_certificate[staging]" in outcome.errors
    assert "run `provision firewall`" in outcome.errors


def test_the_first_install(harness: Harness, authority: Pebble) -> None:
    """The staging certificate, then the real one; GitLab and the registry serve it."""
    outcome = applied(harness, "server")
    assert {"allow 80/tcp", "allow 443/tcp", "allow 5555/tcp"} <= set(outcome.changes(task="firewall")), authority
    for suffix in (".crt-staging", ".crt"):
        assert "Pebble" in issuer(harness.lab.inside("gitlab", f"cat {SSL}{suffix}"))
    assert "Pebble" in issuer(served(harness))
    assert served(harness) == served(harness, 443)
    unchanged(harness, "server")


def test_the_renewal(harness: Harness) -> None:
    """What GitLab's timer calls, shortly before the end: the port is still open, and the new certificate is served."""
    pair = Authority("an old authority").issue([HOST], [], days=5)
    for path, text in (
        (f"{SSL}.crt", pair.fullchain),
        (f"{SSL}.key", pair.key),
        (f"{SSL}.crt-staging", pair.fullchain),
    ):
        harness.lab.inside("gitlab", f"cat > {path}", stdin=text)
    harness.lab.inside("gitlab", "gitlab-ctl renew-le-certs")
    assert "Pebble" in issuer(served(harness))


def test_a_renewal_needs_the_port(harness: Harness) -> None:
    """Without the rule it fails, and with the firewall task it succeeds again."""
    harness.lab.inside("gitlab", f"ufw delete allow 80/tcp; rm {SSL}.crt-staging")
    with pytest.raises(LabError, match="Validation failed"):
        harness.lab.inside("gitlab", "gitlab-ctl renew-le-certs")
    assert applied(harness, "server").changes() == ["allow 80/tcp"]
    harness.lab.inside("gitlab", "gitlab-ctl renew-le-certs")
