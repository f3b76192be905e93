"""`Packages`: bare, half done, converged, broken."""

from __future__ import annotations

import pytest

from provision.errors import ProbeFailed
from provision.host.pending import Handler
from provision.host.releases import Installed, System, read_packages, read_system
from provision.resources import Packages, Result
from provision.resources.base import Change
from provision.shell import Command, sh
from provision.testing import observe, packages_are, planned

DOCKER = Packages(
    ("docker-ce", "docker-ce-cli", "containerd.io"),
    version="5:29.*",
    versioned=("docker-ce", "docker-ce-cli"),
    hold=True,
    conflicting=("docker.io", "runc"),
    downgrade=True,
)
CONVERGED = {"docker-ce": "5:29.1-1", "docker-ce-cli": "5:29.1-1", "containerd.io": "1.7"}


def plan(resource: Packages, versions: dict[str, str], held: tuple[str, ...] = ()) -> list[Change]:
    """The changes for what is installed."""
    return planned(resource, observe(resource, packages_are(versions, held)))


def install_line(change: Change) -> str:
    """The script of a change with its arguments: `NAME.sh ARGUMENTS`."""
    assert isinstance(change.run, Command)
    name, arguments = change.run.script.splitlines()[:2]
    return f"{name.removeprefix('# ')} {arguments.removeprefix('set -- ')}"


def test_bare() -> None:
    """All in one transaction, pinned ones with their version; then those are held."""
    install, hold = plan(DOCKER, {})
    assert install.summary == "install docker-ce, docker-ce-cli, containerd.io (version 5:29.*)"
    assert (install.action, install.deadline) == ("create", 24 * 3600 + 3 * 900)
    assert install_line(install) == (
        "install_packages.sh 900 60 1800 '' '' yes '' '' 'docker-ce=5:29.*' 'docker-ce-cli=5:29.*' containerd.io"
    )
    assert hold.run == sh("apt-mark hold -- docker-ce docker-ce-cli")


def test_partly_applied() -> None:
    """One of a pinned pair at another version: both are replaced and held again; packages without a version are not."""
    install, hold = plan(DOCKER, {**CONVERGED, "docker-ce": "5:28.0-1"}, ("docker-ce", "docker-ce-cli"))
    assert install.summary == "replace docker-ce 5:28.0-1 by version 5:29.*"
    assert install.action == "update"
    assert install_line(install).endswith(" yes '' '' 'docker-ce=5:29.*' 'docker-ce-cli=5:29.*'")
    assert hold.run == sh("apt-mark hold -- docker-ce docker-ce-cli")


def test_a_handler_for_a_replaced_package() -> None:
    """It runs after an installed package was replaced, and not after the first installation."""
    handler = Handler("ready", "wait for it", sh("true"))
    wanted = Packages("gitlab-ce", version="19.3.0-*", notify=(handler,))
    assert plan(wanted, {})[0].notify == ()
    assert plan(wanted, {"gitlab-ce": "18.0.0-ce.0"})[0].notify == (handler,)
    assert wanted.handlers == (handler,)


def test_one_is_missing() -> None:
    """The summary names the missing ones."""
    install, *_ = plan(DOCKER, {"docker-ce": "5:29.1-1", "docker-ce-cli": "5:29.1-1"}, ("docker-ce", "docker-ce-cli"))
    assert install.summary == "install containerd.io (version 5:29.*)"


def test_converged() -> None:
    """Installed at the version, and held."""
    assert plan(DOCKER, CONVERGED, ("docker-ce", "docker-ce-cli")) == []


def test_not_held() -> None:
    """Only the package that is not held is held."""
    (hold,) = plan(DOCKER, CONVERGED, ("docker-ce",))
    assert (hold.summary, hold.run) == ("hold docker-ce-cli", sh("apt-mark hold -- docker-ce-cli"))


def test_our_hold_is_removed_with_its_version() -> None:
    """The hold that we recorded is removed; another one stays."""
    free = Packages(("docker-ce", "docker-ce-cli"))
    seen = observe(
        free,
        {
            "": packages_are({"docker-ce": "5:29.1-1", "docker-ce-cli": "5:29.1-1"}, ("docker-ce", "docker-ce-cli")),
        },
        record=["docker-ce"],
    )
    (change,) = planned(free, seen)
    assert change.summary == "unhold docker-ce"
    assert change.run == sh("apt-mark unhold -- docker-ce")
    assert change.record is None


def test_conflicting_packages_are_removed_first() -> None:
    """Only installed ones."""
    remove, *rest = plan(DOCKER, {"runc": "1.0"})
    assert remove.summary == "remove runc: in conflict with docker-ce"
    assert remove.action == "delete"
    assert install_line(remove) == "remove_packages.sh 900 runc"
    assert len(rest) == 2


def test_a_removed_package_with_its_configuration_left_is_not_installed() -> None:
    """dpkg's `rc`."""
    docker = Packages(("ufw",))
    seen = observe(docker, "ufw\t0.36\trc \n")
    assert [one.summary for one in planned(docker, seen)] == ["install ufw"]


def test_any_version_is_accepted() -> None:
    """Without version, hold and origin, installed packages stay."""
    assert plan(Packages(("curl", "openssl")), {"curl": "1", "openssl": "0.1"}) == []


def test_an_origin_is_asserted_before_installing() -> None:
    """The script compares the addresses that apt would fetch from; the environment is for apt alone."""
    runner = Packages(
        ("gitlab-runner", "gitlab-runner-helper-images"),
        version="19.3.0-*",
        origin="https://packages.gitlab.com/",
        environment=("NO_DOCKER_PRUNE=1",),
    )
    install, *_ = plan(runner, {})
    assert isinstance(install.run, Command)
    assert install_line(install) == (
        "install_packages.sh 900 60 1800 https://packages.gitlab.com/ NO_DOCKER_PRUNE=1 no '' '' "
        "'gitlab-runner=19.3.0-*' 'gitlab-runner-helper-images=19.3.0-*'"
    )


def test_a_label_names_the_first_and_counts_the_others() -> None:
    """Plans show it."""
    assert DOCKER.label == "Packages docker-ce +2"
    assert Packages(("ufw",)).label == "Packages ufw"


class TestFacts:
    """Answers of dpkg and os-release."""

    def test_packages(self) -> None:
        """Installed ones with version and hold; half installed ones (`iF`, `iU`) are not."""
        text = "a\t1:2~rc1\tii \nb\t2\thi \nc\t3\trc \nd\t\tun \ne\t5\tiU \n"
        found = read_packages(Result(text.encode()))
        assert found["a"] == Installed("1:2~rc1", held=False)
        assert found["b"] == Installed("2", held=True)
        assert set(found) == {"a", "b"}

    def test_no_dpkg(self) -> None:
        """Broken."""
        with pytest.raises(ProbeFailed, match=r"dpkg-query: .*not found"):
            read_packages(Result(b"", b"sh: dpkg-query: not found\n", 127))

    def test_system(self) -> None:
        """Four lines."""
        assert read_system(Result(b"ubuntu\nnoble\n24.04\namd64\n")) == System("ubuntu", "noble", "24.04", "amd64")

    @pytest.mark.parametrize(
        "result",
        [Result(b"fedora\n\n41\n"), Result(b"fedora\n\n41\namd64\n"), Result(b"", b"no os-release", 2)],
    )
    def test_another_system(self, result: Result) -> None:
        """Only Debian and Ubuntu are accepted."""
        with pytest.raises(ProbeFailed, match="not Debian or Ubuntu"):
            read_system(result)
