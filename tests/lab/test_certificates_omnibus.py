"""A certificate by GitLab's own Let's Encrypt integration, which an inventory without `registry.certificate` gets.

GitLab and its registry have public names: below `zz`, which ISO 3166 leaves to users, so that it is never a domain. Only
the lab resolves them. The integration asks the staging directory first, and the real one only after that has issued a
certificate. Both are Debian's pebble here, which connects to port 80 of the host as a real authority does; the hosts
trust it as they trust Let's Encrypt. ufw allows SSH only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest

from provision_lab import LabHost
from provision_lab.certificates import Authority
from provision_lab.harness import Harness
from provision_lab.hosts import Server
from tests.support.acme import Pebble, issuer, pebble
from tests.support.certificates import served
from tests.support.runs import Outcome, provision, without_s3
from tests.support.waiting import wait_for

SITE, REGISTRY = "gitlab.lab.zz", "registry.lab.zz"
SSL = f"/etc/gitlab/ssl/{SITE}"
JOB = "/var/opt/gitlab/crond/letsencrypt-renew"
LOGS = "/var/log/gitlab/lets-encrypt"
TRUST = "authorities.pem"  # those of this machine's program
TRUSTED = ("/usr/local/share/ca-certificates", "/etc/gitlab/trusted-certs")


@pytest.fixture(scope="module")
def harness(harness_factory: Callable[..., Harness]) -> Harness:
    """Bare hosts without a certificate, and an inventory without one."""
    hosts = (LabHost(name, traits=("bare",)) for name in ("gitlab", "runner-1"))
    harness = without_s3(harness_factory(*hosts, server=Server(names=(SITE, REGISTRY), fullchain="")))
    harness.lab.inside(
        "gitlab", "apt-get -qq update && apt-get -qq -y install ufw && ufw allow 22/tcp && ufw --force enable"
    )
    tables = harness.inventory
    del tables["registry"]["certificate"], tables["hosts"]["gitlab"]["firewall"]
    tables["gitlab"]["external_url"] = f"https://{SITE}"
    tables["registry"]["external_url"] = f"https://{REGISTRY}:5555"
    return harness


@pytest.fixture(scope="module")
def authority(harness: Harness, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pebble]:
    """The ACME server. The authorities of the hosts, of GitLab and of this machine's program include its own."""
    folder = tmp_path_factory.mktemp("pebble")
    with pebble(harness, folder) as running:
        ca = running.tls.certificate + running.root
        (harness.folder / TRUST).write_text(ca)
        for host in ("gitlab", "runner-1"):
            write = "; ".join(f"mkdir -p {place}; cp /run/ca.crt {place}/public.crt" for place in TRUSTED)
            harness.lab.inside(host, f"cat > /run/ca.crt; {write}", stdin=ca)
        directories = {f"acme_{kind}_endpoint": running.directory for kind in ("staging", "production")}
        harness.inventory["gitlab"]["settings"] = {"letsencrypt": directories}
        yield running


def run(harness: Harness, *arguments: str, code: int = 0) -> Outcome:
    """A run whose own machine trusts the authority."""
    outcome = provision(harness, *arguments, env={"REQUESTS_CA_BUNDLE": str(harness.folder / TRUST)})
    assert outcome.code == code, f"{outcome.errors}\n{outcome.stderr}"
    return outcome


@pytest.fixture(scope="module")
def first(harness: Harness, authority: Pebble) -> Outcome:
    """The first run."""
    assert authority.directory
    return run(harness, "all")


pytestmark = pytest.mark.usefixtures("first")


def test_from_bare_hosts_to_a_verified_registry(harness: Harness, first: Outcome) -> None:
    """In one run: ports, GitLab, the staging certificate, the real one for both names, push and pull of an image."""
    assert list(first.statuses("gitlab")) == ["firewall", "gitlab", "certificates", "registry"]
    assert {"allow 80/tcp", "allow 443/tcp", "allow 5555/tcp"} <= set(first.changes(task="firewall"))
    for suffix in (".crt-staging", ".crt"):
        assert "Pebble" in issuer(harness.lab.inside("gitlab", f"cat {SSL}{suffix}"))
    assert "Pebble" in issuer(served(harness))
    assert served(harness) == served(harness, 443)
    (checked,) = [one["text"] for one in first.of("message", task="verify") if "push and pull" in one["text"]]
    assert f"{REGISTRY}:5555/root/hello_hapi" in checked


def test_the_next_run_changes_nothing(harness: Harness) -> None:
    """The certificate is from GitLab's integration: the registry's default files are not asked for."""
    assert run(harness, "all").changes() == []


def test_crond_renews_it(harness: Harness) -> None:
    """Shortly before the end, GitLab's own timer has a new certificate served.

    Its schedule is changed in its file, as omnibus-gitlab's own test plan of crond does.
    """
    line = harness.lab.inside("gitlab", f"cat {JOB}")
    command = "root /opt/gitlab/bin/gitlab-ctl renew-le-certs\n"
    assert re.fullmatch(rf"[1-5]?\d 0 \*/4 \* \* {command}", line)
    assert "run: crond: " in harness.lab.inside("gitlab", "gitlab-ctl status crond")
    _let_it_end(harness)
    harness.lab.inside("gitlab", f"cat > {JOB} && gitlab-ctl restart crond", stdin=f"@every 1s {command}")
    wait_for(lambda: "Pebble" in issuer(served(harness)), "crond renews the certificate", 60)
    harness.lab.inside("gitlab", f"cat > {JOB} && gitlab-ctl restart crond", stdin=line)
    assert run(harness, "gitlab", "certificates", "registry").changes() == []


def test_a_renewal_needs_the_port(harness: Harness) -> None:
    """Without the rule it fails, which its log says; with the firewall task it succeeds again."""
    _let_it_end(harness)
    old = served(harness)
    harness.lab.inside("gitlab", "ufw delete allow 80/tcp")
    printed = harness.lab.inside("gitlab", "gitlab-ctl renew-le-certs 2>&1")
    assert "Validation failed" in printed
    assert "There was an error renewing Let's Encrypt certificates" in printed
    assert "Validation failed" in harness.lab.inside("gitlab", f"cat $(ls -t {LOGS}/* | head -n 1)")
    assert served(harness) == old
    assert run(harness, "server").changes() == ["allow 80/tcp"]
    harness.lab.inside("gitlab", "gitlab-ctl renew-le-certs")
    wait_for(lambda: served(harness) != old, "nginx, which reloads in the background, serves the new certificate", 10)


def test_without_the_firewall_task_the_remedy_is_named(harness: Harness) -> None:
    """A reconfigure that cannot get a certificate: what failed, and the task that opens port 80."""
    harness.inventory["registry"]["certificate"] = {"acme": {"client": "omnibus", "email": "ops@lab.zz"}}
    harness.lab.inside("gitlab", f"ufw delete allow 80/tcp; rm {SSL}.crt-staging")
    outcome = run(harness, "gitlab", "certificates", "registry", code=1)
    assert "acme_certificate[staging]" in outcome.errors
    assert "run `provision firewall`" in outcome.errors


def test_asked_for_by_name(harness: Harness) -> None:
    """`acme.client = "omnibus"` in the inventory is the same integration, with the ports that it needs."""
    outcome = run(harness, "server")
    assert "allow 80/tcp" in outcome.changes(task="firewall")
    rb = harness.lab.inside("gitlab", "cat /etc/gitlab/gitlab.rb")
    assert "letsencrypt['enable'] = true" in rb
    assert "Pebble" in issuer(served(harness))
    assert run(harness, "server").changes() == []


def _let_it_end(harness: Harness) -> None:
    """Puts certificates near their end in the place of GitLab's, and has nginx serve them."""
    pair = Authority("an old authority").issue([SITE, REGISTRY], [], days=5)
    for path, text in ((".crt", pair.fullchain), (".key", pair.key), (".crt-staging", pair.fullchain)):
        harness.lab.inside("gitlab", f"cat > {SSL}{path}", stdin=text)
    harness.lab.inside("gitlab", "gitlab-ctl hup nginx")
    wait_for(lambda: "an old authority" in issuer(served(harness)), "nginx serves the old certificate")
