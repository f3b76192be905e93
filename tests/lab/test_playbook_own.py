"""Playbooks on hosts of several kinds, and a user's own tasks, playbooks and templates beside the inventory.

Hosts: a plain one; one that calls itself Ubuntu; one with sshd on 2222 whose sudo asks for a password.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from provision.places import shipped
from provision_lab import LabHost
from provision_lab.trial import Trial
from tests.support.runs import applied, provision, settled, twice, untouched, without_s3

GITLAB, UBUNTU, ASKING = "gitlab", "runner-1", "runner-2"
BOOK = '''\
"""Greets, then sees to the firewall."""

from provision.tasks import firewall, play, task
from provision.resources import File
from provision.templating import render


@task(on="runners")
def banner(host):
    """Who logs in is told whose host it is."""
    yield File("/etc/issue.net", render("banner.j2", name=host.name, owner="ops"))


@task(on="gitlab")
def firewall(host):
    """Ours, in the place of the one that ships."""
    yield File("/etc/ours", "not ufw\\n")


PLAYS = [play("runners", banner), play("gitlab", firewall)]
'''


@pytest.fixture(scope="module")
def trial(trial_factory: Callable[..., Trial]) -> Trial:
    """Three bare hosts of three kinds."""
    trial = trial_factory(
        LabHost(GITLAB), LabHost(UBUNTU, ubuntu=True), LabHost(ASKING, sshd_port=2222, sudo="password")
    )
    return without_s3(trial)


@pytest.fixture
def playbooks(trial: Trial) -> Iterator[Path]:
    """The folder `playbooks` beside the inventory, empty again afterwards."""
    folder = trial.folder / "playbooks"
    folder.mkdir()
    yield folder
    for path in [*folder.rglob("*"), *(trial.folder / "templates").glob("*")]:
        if path.is_file():
            path.unlink()
    for path in sorted([*folder.rglob("*"), folder], reverse=True):
        path.rmdir()


def test_the_example_of_init_works_on_every_host(trial: Trial, playbooks: Path) -> None:
    """templates/init/motd.py, copied beside the inventory and named: on each host, whatever its sshd and sudo are like."""
    playbooks.joinpath("motd.py").write_text((shipped("templates") / "init/motd.py").read_text())
    outcome = twice(trial, "motd")
    assert len(outcome.changes()) == 3
    for host, group in ((GITLAB, "gitlab"), (UBUNTU, "runners"), (ASKING, "runners")):
        motd = (trial.lab.machine(host).root / "etc/motd").read_text()
        assert motd == f"{host} ({group}), kept by provision\n"


def test_own_tasks_and_templates_win(trial: Trial, playbooks: Path) -> None:
    """A playbook of one's own with a template of one's own; a task of one's own in the place of a shipped one."""
    playbooks.joinpath("greet.py").write_text(BOOK)
    templates = trial.folder / "templates"
    templates.mkdir(exist_ok=True)
    templates.joinpath("banner.j2").write_text("{{ name }} belongs to {{ owner }}\n")
    outcome = twice(trial, "greet")
    assert {host: outcome.statuses(host) for host in (GITLAB, UBUNTU)} == {
        GITLAB: {"firewall": "changed"},
        UBUNTU: {"banner": "changed"},
    }
    assert (trial.lab.machine(ASKING).root / "etc/issue.net").read_text() == "runner-2 belongs to ops\n"
    assert (trial.lab.machine(GITLAB).root / "etc/ours").read_text() == "not ufw\n"
    settled(trial, "firewall", "banner")
    templates.joinpath("banner.j2").write_text("{{ name }}: ask {{ owner }}\n")
    assert twice(trial, "banner").changes() == ["update /etc/issue.net"] * 2


def test_a_shipped_template_can_be_ones_own(trial: Trial, playbooks: Path) -> None:
    """templates/ beside the inventory wins over the shipped file of the same name."""
    del playbooks  # only for the cleaning up
    templates = trial.folder / "templates"
    templates.mkdir(exist_ok=True)
    text = (shipped("templates") / "apt.sources.j2").read_text()
    templates.joinpath("apt.sources.j2").write_text(f"# by our own template\n{text}")
    outcome = provision(trial, "docker", "--check", "--diff", "--limit", UBUNTU)
    (change,) = [one for one in outcome.of("change") if one["summary"].endswith("docker.sources")]
    assert "+# by our own template\n+Types: deb\n" in change["diff"]


def test_a_broken_playbook_is_named_and_nothing_is_contacted(trial: Trial, playbooks: Path) -> None:
    """File and line, exit code 2."""
    playbooks.joinpath("wrong.py").write_text('"""Wrong."""\n\nimport nonsense_that_is_not_there\n')
    outcome = provision(trial, "wrong")
    assert (outcome.code, outcome.events) == (2, ())
    assert f"{playbooks}/wrong.py:3: ModuleNotFoundError" in outcome.stderr


def test_the_runners_playbook_on_hosts_of_two_kinds(trial: Trial) -> None:
    """The server first, then both runner hosts at once: Ubuntu's way and Debian's, sudo with a password and without."""
    applied(trial, "server")
    twice(trial, "runners")
    assert trial.lab.inside(UBUNTU, "dpkg-query -W -f '${Version}' docker-ce").endswith("ubuntu.24.04~noble")
    assert trial.lab.inside(ASKING, "dpkg-query -W -f '${Version}' docker-ce").endswith("debian.12~bookworm")
    for host in (UBUNTU, ASKING):
        there = trial.lab.inside(host, "gitlab-runner verify 2>&1; systemctl is-active docker gitlab-runner")
        assert "is valid" in there
        assert there.endswith("active\nactive\n")


def test_limit_leaves_the_others_alone(trial: Trial) -> None:
    """Only the chosen host is contacted and changed."""
    wanted = {"docker": {"daemon": {"log-driver": "local"}}}
    with untouched(trial, ASKING, "/etc", "/var/lib/provision"):
        outcome = twice(trial, "runners", "--limit", "runners,!runner-2", changes=wanted)
    assert list(outcome.summary["hosts"]) == [UBUNTU]
    twice(trial, "runners", "--limit", "*-1")


def test_a_limit_that_matches_nothing_is_an_error(trial: Trial) -> None:
    """Exit code 2, with the names there are."""
    outcome = provision(trial, "all", "--limit", "runner-7")
    assert (outcome.code, outcome.events) == (2, ())
    assert "runner-7" in outcome.stderr


def test_everything_is_converged(trial: Trial) -> None:
    """`all` on what `server` and `runners` have left: nothing to do."""
    settled(trial, "all")
