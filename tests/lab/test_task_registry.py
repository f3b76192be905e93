"""The task `registry`: a new port needs one reconfigure and changes nothing else; storage moves to S3.

The tests run in order on one host, which starts with GitLab 18.11 to include the upgrade over 19.2.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from provision_lab import LabHost
from provision_lab.harness import Harness, changed, inventory_of
from tests.support.registries import HostRegistry
from tests.support.runs import Outcome, applied, reconfigures, refused, twice, unchanged, untouched, without_s3

RB = "/etc/gitlab/gitlab.rb"
SERVER = ("gitlab", "certificates", "registry", "firewall")
Moved = tuple[Outcome, int, dict[str, tuple[str, str]]]  # the run, its reconfigures, which paths differ
OLD = {"gitlab": {"version": "18.11.5"}}


@pytest.fixture(scope="module")
def s3(harness: Harness) -> dict[str, Any]:
    """The lab's [registry.s3], which the inventory does not have at first."""
    table: dict[str, Any] = inventory_of(harness.lab)["registry"]["s3"]
    return table


@pytest.fixture(scope="module")
def harness(harness_factory: Callable[..., Harness]) -> Harness:
    """A bare GitLab host whose registry stores images on its disk."""
    return without_s3(harness_factory(LabHost("gitlab")))


def answer(harness: Harness, port: int) -> str:
    """The answer of `/v2/` on a port, requested from this machine with the lab's CA."""
    host = harness.lab.machine("gitlab").host.address
    script = f"curl -s -D - -o /dev/null --max-time 5 --cacert /etc/letsencrypt/live/gitlab.lab.test/fullchain.pem --resolve gitlab.lab.test:{port}:{host} https://gitlab.lab.test:{port}/v2/; true"
    return harness.lab.inside("gitlab", script)


def served(headers: str) -> bool:
    """Asserts 401 with GitLab's token endpoint."""
    return " 401" in headers.partition("\n")[0] and 'realm="https://gitlab.lab.test/jwt/auth"' in headers


def ours(harness: Harness) -> list[str]:
    """The registry's active lines in gitlab.rb."""
    text = harness.lab.inside("gitlab", f"cat {RB}")
    return [line for line in text.splitlines() if re.match(r"registry\w*( |\[)", line)]


def test_a_bare_host_with_an_older_gitlab(harness: Harness) -> None:
    """Each task by name, in order: one reconfigure for GitLab, one for the registry; keys of before 19.2."""
    applied(harness, *SERVER, changes=OLD)
    unchanged(harness, "server", changes=OLD)
    assert reconfigures(harness) == 2
    live = "/etc/letsencrypt/live/gitlab.lab.test"
    assert ours(harness) == [
        "registry_external_url 'https://gitlab.lab.test:5555'",
        f"registry_nginx['ssl_certificate'] = '{live}/fullchain.pem'",
        f"registry_nginx['ssl_certificate_key'] = '{live}/privkey.pem'",
    ]
    assert served(answer(harness, 5555))


def test_an_upgrade_spells_it_anew(harness: Harness, tmp_path: Path) -> None:
    """From 19.2 on, the certificate is below registry['nginx']: the old keys are removed.

    From 19.0 on the registry prefers a database. An image from before can be pulled: the registry marked its storage,
    which it does at a start with images. It has not started since the first push.
    """
    registry = HostRegistry.of(harness.lab, tmp_path)
    image, marks = "root/hello_hapi", "ls /var/opt/gitlab/gitlab-rails/shared/registry/docker/registry/lockfiles || :"
    assert registry.push(image, "before") == 201
    assert harness.lab.inside("gitlab", marks) == ""
    harness.inventory["gitlab"]["version"] = "19.2.*"
    outcome = twice(harness, "server")
    marking = [one for one in outcome.changes() if one.startswith("restart the registry: it marks images")]
    assert outcome.changes().index(marking[0]) < outcome.changes().index("wait until GitLab is ready")
    assert harness.lab.inside("gitlab", marks) == "filesystem-in-use\n"
    assert registry.pulled(image, "before") == [200, 200, 200]
    lines = [line.partition(" = ")[0] for line in ours(harness)]
    assert lines[1:] == ["registry['nginx']['ssl_certificate']", "registry['nginx']['ssl_certificate_key']"]
    notices = harness.lab.inside("gitlab", "cat $(ls -t /var/log/gitlab/reconfigure/*.log | head -n 1)")
    assert "registry_nginx" not in notices
    assert served(answer(harness, 5555))
    harness.inventory["gitlab"]["version"] = "19.3.0"
    assert not [one for one in twice(harness, "server").changes() if "restart the registry" in one]
    assert served(answer(harness, 5555))
    assert registry.pulled(image, "before") == [200, 200, 200]
    digest = registry.ask("HEAD", f"/v2/{image}/manifests/before")[1]["docker-content-digest"]
    assert registry.ask("DELETE", f"/v2/{image}/manifests/{digest}")[0] == 202  # so that the storage may change


@pytest.fixture(scope="module")
def moved(harness: Harness) -> Moved:
    """The changes of `provision registry firewall` after `[registry] external_url` got another port."""
    harness.inventory["registry"]["external_url"] = "https://gitlab.lab.test:5556"
    before, count = harness.snapshot("gitlab"), reconfigures(harness)
    outcome = applied(harness, "registry", "firewall")
    return outcome, reconfigures(harness) - count, changed(before, harness.snapshot("gitlab"))


def test_a_new_port_is_one_reconfigure(harness: Harness, moved: Moved) -> None:
    """One edit, one reconfigure, one rule added and one removed; then no change; only the new port answers."""
    outcome, count, *_ = moved
    assert outcome.changes(task="registry") == [
        f"set registry_external_url in {RB}",
        "repair the registry endpoint https://gitlab.lab.test:5556/v2/: no answer",
        "reconfigure GitLab",
    ]
    assert outcome.changes(task="firewall") == ["allow 5556/tcp", "remove the rule for 5555/tcp"]
    assert count == 1
    unchanged(harness, "registry", "firewall")
    unchanged(harness, "server")
    assert served(answer(harness, 5556))
    assert answer(harness, 5555) == ""


def test_only_what_depends_on_the_port_changed(moved: Moved) -> None:
    """In the whole file system: gitlab.rb, nginx's and the registry's files, ufw's rules, our state."""
    _, _, differing = moved
    kept = {
        "etc/gitlab/gitlab.rb",
        "etc/ufw/user.rules",
        "etc/ufw/user6.rules",
        "var/lib/provision/state.json",
        "var/lib/provision/lock",
        "var/opt/gitlab/nginx/conf/nginx.conf",
        "var/opt/gitlab/standin/registry.yml",
        "var/opt/gitlab/registry/config.yml",
        "var/opt/gitlab/standin/api.json",
        "var/opt/gitlab/standin/db.json",
    }
    # The package's own notes of a reconfigure, and what is put aside before a file is replaced.
    noise = ("var/lib/provision/backup/", "var/opt/gitlab/nginx/", "opt/gitlab/", "etc/ufw/")
    assert [path for path in differing if path not in kept and not path.startswith(noise)] == []
    assert {"etc/gitlab/gitlab.rb", "etc/ufw/user.rules"} <= set(differing)


def test_only_its_line_of_gitlab_rb_changed(harness: Harness, moved: Moved) -> None:
    """Compared with the backup of before the edit."""
    del moved
    script = f"diff $(ls -t /var/lib/provision/backup/etc_gitlab_gitlab.rb.* | head -n 1) {RB}; true"
    lines = [line for line in harness.lab.inside("gitlab", script).splitlines() if line[0] in "<>"]
    assert lines == [
        "< registry_external_url 'https://gitlab.lab.test:5555'",
        "> registry_external_url 'https://gitlab.lab.test:5556'",
    ]


@pytest.mark.usefixtures("moved")
def test_a_stopped_registry_is_started(harness: Harness) -> None:
    """No file differs, but `/v2/` does not answer: one reconfigure."""
    harness.lab.inside("gitlab", "gitlab-ctl stop registry")
    before = reconfigures(harness)
    outcome = twice(harness, "registry")
    assert "repair the registry endpoint https://gitlab.lab.test:5556/v2/" in outcome.changes()[0]
    assert reconfigures(harness) == before + 1
    assert served(answer(harness, 5556))


@pytest.mark.usefixtures("moved")
def test_a_registry_line_that_was_changed_by_hand_is_restored(harness: Harness) -> None:
    """The administrator's other settings stay."""
    hand = "registry['debug_addr'] = 'localhost:5001' # mine"
    harness.lab.inside("gitlab", f"sed -i 's/:5556/:7777/' {RB}; echo \"{hand}\" >> {RB}")
    twice(harness, "registry")
    assert hand in ours(harness)
    assert served(answer(harness, 5556))


@pytest.mark.usefixtures("moved")
def test_storage_moves_into_s3(harness: Harness, s3: dict[str, Any]) -> None:
    """The host checks the bucket, then one reconfigure and a check of the registry; no diff has the secret."""
    harness.inventory["registry"]["s3"] = s3
    before = reconfigures(harness)
    outcome = twice(harness, "registry")
    assert reconfigures(harness) == before + 1
    assert "done: verify bucket registry: put, get and delete an object" in outcome.messages()
    config = harness.lab.inside("gitlab", "cat /var/opt/gitlab/registry/config.yml")
    storage = json.loads(next(line for line in config.splitlines() if line.startswith("storage: "))[9:])
    assert storage["s3"]["bucket"] == "registry"
    assert storage["s3"]["secretkey"] == harness.lab.secret("s3_secret_key")
    assert harness.lab.secret("s3_secret_key") not in repr(outcome.events)
    assert served(answer(harness, 5556))


@pytest.mark.usefixtures("moved")
def test_a_bucket_that_does_not_exist_is_refused(harness: Harness) -> None:
    """The registry has no images yet, so another bucket would be allowed; nothing changes."""
    with untouched(harness, "gitlab", "/etc", "/var/lib/provision"):
        outcome = refused(harness, "registry", changes={"registry": {"s3": {"bucket": "nowhere"}}})
    assert "there is no bucket nowhere" in outcome.errors
    assert served(answer(harness, 5556))
