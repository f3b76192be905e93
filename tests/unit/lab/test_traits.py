"""Traits of hosts, as changes of a file tree; what they do on a host is in tests/lab/test_bare_hosts.py."""

import subprocess
from pathlib import Path

import pytest

from provision_lab import LabHost
from provision_lab.hosts import Trait
from provision_lab.machine import Tree
from provision_lab.traits import apply_traits

HOSTS = "127.0.0.1 localhost\n198.18.0.10 gitlab gitlab.lab.test\n198.18.0.11 runner\n"


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """The files that traits change."""
    for path, text in {
        "etc/hosts": HOSTS,
        "home/ubuntu/.bashrc": "# own\n",
        "usr/bin/date": "#!/bin/sh\necho real\n",
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
        (tmp_path / path).chmod(0o755)
    return Tree(tmp_path)


@pytest.mark.parametrize(
    ("name", "left"),
    [
        ("gitlab", "127.0.0.1 localhost\n198.18.0.10 gitlab.lab.test\n198.18.0.11 runner\n"),
        ("runner", "127.0.0.1 localhost\n198.18.0.10 gitlab gitlab.lab.test\n"),
    ],
)
def test_a_nameless_host_resolves_all_but_its_own_name(tree: Tree, name: str, left: str) -> None:
    """The names in GitLab's URLs stay."""
    apply_traits(tree, LabHost(name, traits=("nameless",)))
    assert (tree.root / "etc/hosts").read_text() == left


def test_a_noisy_host_prints_before_the_users_own_lines(tree: Tree) -> None:
    """On both streams; sshd's banner has 2,000 lines."""
    apply_traits(tree, LabHost("x", traits=("noisy",)))
    bashrc = tree.root / "home/ubuntu/.bashrc"
    done = subprocess.run(["bash", str(bashrc)], capture_output=True, text=True, check=False)
    assert (done.stdout.count("welcome"), done.stderr.count("trouble")) == (9, 9)
    assert bashrc.read_text().endswith("# own\n")
    assert len((tree.root / "etc/banner").read_text().splitlines()) == 2000


def test_a_clock_that_is_behind_keeps_the_real_programs(tree: Tree) -> None:
    """Programs that are not there get no wrapper."""
    apply_traits(tree, LabHost("x", traits=("clock-behind",)))
    assert (tree.root / "usr/lib/provision-lab/date").read_text().endswith("echo real\n")
    assert 'exec /usr/lib/provision-lab/date "$@"' in (tree.root / "usr/bin/date").read_text()
    assert not (tree.root / "usr/bin/curl").exists()


@pytest.mark.parametrize("trait", ["bare"])
def test_a_bare_host_is_a_layer(tree: Tree, trait: Trait) -> None:
    """Its files are not changed one by one."""
    apply_traits(tree, LabHost("x", traits=(trait,)))
    assert (tree.root / "etc/hosts").read_text() == HOSTS
