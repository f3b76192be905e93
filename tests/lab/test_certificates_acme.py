"""A certificate by ACME on a real host: certbot gets one from Debian's pebble and renews it, and GitLab serves it.

Omnibus's own integration is Chef code inside the real package, which the lab does not have. For it, tests/unit/tasks
checks what is written to gitlab.rb.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from provision_lab.harness import Harness
from tests.support.acme import Pebble, acme_certificate, closed_host, issuer
from tests.support.certificates import HOST, handlers_run, served
from tests.support.runs import applied, provision, reconfigures, succeeds, unchanged
from tests.support.waiting import wait_for

LIVE = f"/etc/letsencrypt/live/{HOST}"


@pytest.fixture(scope="module")
def harness(harness_factory: Callable[..., Harness]) -> Harness:
    """A bare host whose ufw allows SSH only."""
    return closed_host(harness_factory)


@pytest.fixture(scope="module")
def authority(harness: Harness, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pebble]:
    """The change that makes the inventory use an ACME server, with its CA for every consumer."""
    with acme_certificate(harness, tmp_path_factory.mktemp("pebble"), "certbot") as running:
        harness.inventory["registry"]["certificate"]["acme"]["directory"] = running.directory
        yield running


def renew(harness: Harness) -> None:
    """Runs what certbot's timer runs, without the days of waiting, until its hook has the registry running again."""
    harness.lab.inside("gitlab", "certbot renew --force-renewal --no-random-sleep-on-renew -q")
    ask = f"test $(curl -sk -o /dev/null -w '%{{http_code}}' https://{HOST}:5555/v2/) = 401"
    wait_for(lambda: succeeds(harness, "gitlab", ask), "the registry is back")


def from_pebble(certificate: str) -> bool:
    """Whether pebble issued a certificate."""
    return "Pebble" in issuer(certificate)


@pytest.fixture(scope="module")
def converged(harness: Harness, authority: Pebble) -> None:
    """The bare host converged in one run with one reconfigure: GitLab serves the new certificate."""
    outcome = applied(harness, "server")
    why = f"get a certificate for {HOST} from {authority.directory}: there is none"
    assert why in outcome.changes()
    assert handlers_run(outcome) == ["reconfigure"]
    assert reconfigures(harness) == 1
    unchanged(harness, "server")


pytestmark = pytest.mark.usefixtures("converged")


def test_it_is_served_and_trusted(harness: Harness) -> None:
    """Both ports serve it, and programs on the host trust it."""
    assert from_pebble(served(harness))
    assert served(harness) == served(harness, 443)
    assert harness.lab.inside("gitlab", f"curl -sS -o /dev/null -w '%{{http_code}}' https://{HOST}:5555/v2/") == "401"


def test_certbot_renews_by_its_own_timer(harness: Harness) -> None:
    """The timer is enabled, and the command that it starts renews this certificate."""
    there = harness.host("gitlab")
    assert there.service("certbot.timer").is_enabled
    assert there.service("certbot.timer").is_running
    assert HOST in harness.lab.inside("gitlab", "certbot certificates 2>/dev/null")


def test_gitlab_serves_what_certbot_renewed(harness: Harness) -> None:
    """certbot's hook is enough; the next run changes nothing."""
    old, before = served(harness), reconfigures(harness)
    renew(harness)
    assert served(harness) != old
    assert from_pebble(served(harness))
    assert reconfigures(harness) == before
    unchanged(harness, "server")


def test_nginx_makes_room_on_port_80(harness: Harness) -> None:
    """GitLab redirects from port 80: certbot's challenge succeeds, and nginx runs again afterwards."""
    redirect = {"gitlab": {"settings": {"nginx": {"redirect_http_to_https": True}}}}
    applied(harness, "server", changes=redirect)
    old = served(harness)
    renew(harness)
    assert served(harness) != old
    assert harness.lab.inside("gitlab", f"curl -s -o /dev/null -w '%{{http_code}}' http://{HOST}/") == "301"
    unchanged(harness, "server", changes=redirect)
    applied(harness, "server")


def test_another_authority_is_asked_anew(harness: Harness, authority: Pebble) -> None:
    """From a staging server to the real one: a new certificate, served after a HUP."""
    old, staging = served(harness), "https://staging.lab.test/dir"
    harness.lab.inside("gitlab", f"sed -i 's|^server = .*|server = {staging}|' /etc/letsencrypt/renewal/{HOST}.conf")
    outcome = applied(harness, "server")
    assert outcome.changes()[0] == (
        f"get a certificate for {HOST} from {authority.directory}: the existing one is from {staging}"
    )
    assert handlers_run(outcome) == ["hup-certificates"]
    assert served(harness) != old
    unchanged(harness, "server")


def test_a_failed_challenge_changes_nothing(harness: Harness) -> None:
    """Port 80 is taken: certbot's error, the old certificate still served; once fixed, it converges."""
    old = served(harness)
    conf = f"/etc/letsencrypt/renewal/{HOST}.conf"
    harness.lab.inside("gitlab", f"sed -i 's|^server = .*|server = https://staging.lab.test/dir|' {conf}")
    harness.lab.inside("gitlab", "systemd-run -q --unit=squatter python3 -m http.server 80")
    wait_for(lambda: succeeds(harness, "gitlab", "curl -s -o /dev/null http://127.0.0.1/"), "port 80 is taken")
    try:
        outcome = provision(harness, "server")
    finally:
        harness.lab.inside("gitlab", "systemctl stop squatter")
    assert outcome.code == 1, outcome.changes()
    assert "Could not bind TCP port 80" in outcome.errors
    assert served(harness) == old
    applied(harness, "server")
    assert served(harness) != old


def test_files_that_certbot_does_not_know_are_not_overwritten(harness: Harness) -> None:
    """Files from another source are refused, with both solutions."""
    harness.lab.inside("gitlab", f"mv /etc/letsencrypt/renewal/{HOST}.conf /root/")
    outcome = provision(harness, "certificates")
    harness.lab.inside("gitlab", f"mv /root/{HOST}.conf /etc/letsencrypt/renewal/")
    assert outcome.code == 1
    assert f"{LIVE}/fullchain.pem exists, but certbot has no renewal configuration for it" in outcome.errors
    unchanged(harness, "server")


def test_an_unknown_directory_is_reported(harness: Harness) -> None:
    """The ACME server does not answer: certbot's error, nothing changed."""
    nowhere = {"registry": {"certificate": {"acme": {"directory": "https://nowhere.lab.test/dir"}}}}
    old = served(harness)
    outcome = provision(harness, "certificates", changes=nowhere)
    assert outcome.code == 1
    assert "nowhere.lab.test" in outcome.errors
    assert served(harness) == old
