"""Playbooks on hosts of several kinds, with the user's own tasks, playbooks and templates beside the inventory.

The hosts: a plain one, one with an os-release of Ubuntu, one with sshd on 2222 and a sudo password.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from provision.templating import shipped
from provision_lab import LabHost
from provision_lab.harness import Harness
from tests.support.labs import release
from tests.support.runs import applied, provision, twice, unchanged, untouched, without_s3

GITLAB, UBUNTU, ASKING = "gitlab", "runner-1", "runner-2"
BOOK = '''\
"""Greets, then sees to the firewall."""

from provision.tasks import firewall, play, task
from provision.resources import File
from provision.templating import render


@task(on="runners")
def banner(host):
    """A login prints whose host it is."""
    yield File("/etc/issue.net", render("banner.j2", name=host.name, owner="ops"))


@task(on="gitlab")
def firewall(host):
    """Ours, in the place of the one that ships."""
    yield File("/etc/ours", "not ufw\\n")


PLAYS = [play("runners", banner), play("gitlab", firewall)]
'''


@pytest.fixture(scope="module")
def harness(harness_factory: Callable[..., Harness]) -> Harness:
    """Three bare hosts of three kinds."""
    harness = harness_factory(
        LabHost(GITLAB), LabHost(UBUNTU, ubuntu=True), LabHost(ASKING, sshd_port=2222, sudo="password")
    )
    return without_s3(harness)


@pytest.fixture
def playbooks(harness: Harness) -> Iterator[Path]:
    """The folder `playbooks` beside the inventory, emptied afterwards."""
    folder = harness.folder / "playbooks"
    folder.mkdir()
    yield folder
    for path in [*folder.rglob("*"), *(harness.folder / "templates").glob("*")]:
        if path.is_file():
            path.unlink()
    for path in sorted([*folder.rglob("*"), folder], reverse=True):
        path.rmdir()


def test_the_example_of_init_works_on_every_host(harness: Harness, playbooks: Path) -> None:
    """templates/init/motd.py beside the inventory runs on each host, whatever its sshd port and sudo are."""
    playbooks.joinpath("motd.py").write_text((shipped("templates") / "init/motd.py").read_text())
    outcome = twice(harness, "motd")
    assert len(outcome.changes()) == 3
    for host, group in ((GITLAB, "gitlab"), (UBUNTU, "runners"), (ASKING, "runners")):
        motd = (harness.lab.machine(host).root / "etc/motd").read_text()
        assert motd == f"{host} ({group}), kept by provision\n"


def test_own_tasks_and_templates_win(harness: Harness, playbooks: Path) -> None:
    """An own playbook with an own template; an own task replaces a shipped one of the same name."""
    playbooks.joinpath("greet.py").write_text(BOOK)
    templates = harness.folder / "templates"
    templates.mkdir(exist_ok=True)
    templates.joinpath("banner.j2").write_text("{{ name }} belongs to {{ owner }}\n")
    outcome = twice(harness, "greet")
    assert {host: outcome.statuses(host) for host in (GITLAB, UBUNTU)} == {
        GITLAB: {"firewall": "changed"},
        UBUNTU: {"banner": "changed"},
    }
    assert (harness.lab.machine(ASKING).root / "etc/issue.net").read_text() == "runner-2 belongs to ops\n"
    assert (harness.lab.machine(GITLAB).root / "etc/ours").read_text() == "not ufw\n"
    unchanged(harness, "firewall", "banner")
    templates.joinpath("banner.j2").write_text("{{ name }}: ask {{ owner }}\n")
    assert twice(harness, "banner").changes() == ["update /etc/issue.net"] * 2


def test_a_shipped_template_can_be_ones_own(harness: Harness, playbooks: Path) -> None:
    """A file in templates/ beside the inventory overrides the shipped one of the same name."""
    del playbooks  # only for the cleaning up
    templates = harness.folder / "templates"
    templates.mkdir(exist_ok=True)
    text = (shipped("templates") / "apt.sources.j2").read_text()
    templates.joinpath("apt.sources.j2").write_text(f"# by our own template\n{text}")
    outcome = provision(harness, "docker", "--check", "--diff", "--limit", UBUNTU)
    (change,) = [one for one in outcome.of("change") if one["summary"].endswith("docker.sources")]
    assert "+# by our own template\n+Types: deb\n" in change["diff"]


def test_a_broken_playbook_is_named_and_nothing_is_contacted(harness: Harness, playbooks: Path) -> None:
    """The error has file and line; exit code 2."""
    playbooks.joinpath("wrong.py").write_text('"""Wrong."""\n\nimport nonsense_that_is_not_there\n')
    outcome = provision(harness, "wrong")
    assert (outcome.code, outcome.events) == (2, ())
    assert f"{playbooks}/wrong.py:3: ModuleNotFoundError" in outcome.stderr


def test_the_runners_playbook_on_hosts_of_two_kinds(harness: Harness) -> None:
    """The server first, then both runner hosts at once: Ubuntu and Debian, sudo with and without a password."""
    applied(harness, "server")
    twice(harness, "runners")
    assert harness.lab.inside(UBUNTU, "dpkg-query -W -f '${Version}' docker-ce").endswith(
        f"~{release(harness.lab, UBUNTU)[1]}"
    )
    assert harness.lab.inside(ASKING, "dpkg-query -W -f '${Version}' docker-ce").endswith(
        f"~{release(harness.lab, ASKING)[1]}"
    )
    for host in (UBUNTU, ASKING):
        there = harness.lab.inside(host, "gitlab-runner verify 2>&1; systemctl is-active docker gitlab-runner")
        assert "is valid" in there
        assert there.endswith("active\nactive\n")


def test_limit_leaves_the_others_alone(harness: Harness) -> None:
    """Only the selected host is contacted and changed."""
    wanted = {"docker": {"daemon": {"log-driver": "local"}}}
    with untouched(harness, ASKING, "/etc", "/var/lib/provision"):
        outcome = twice(harness, "runners", "--limit", "runners,!runner-2", changes=wanted)
    assert list(outcome.summary["hosts"]) == [UBUNTU]
    twice(harness, "runners", "--limit", "*-1")


def test_a_limit_that_matches_nothing_is_an_error(harness: Harness) -> None:
    """Exit code 2, with the existing names."""
    outcome = provision(harness, "all", "--limit", "runner-7")
    assert (outcome.code, outcome.events) == (2, ())
    assert "runner-7" in outcome.stderr


def test_everything_is_converged(harness: Harness) -> None:
    """After `server` and `runners`, `all` changes nothing."""
    unchanged(harness, "all")
