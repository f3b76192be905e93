"""Which packages a release gets, and which release is refused, by what its host answers."""

from __future__ import annotations

from typing import Any

import pytest

from provision.errors import Refused
from provision.resources import AptSource, Packages, Resource
from provision.testing import NO_FILE, file_is, notes, observe, packages_are, planned
from tests.unit.tasks.conftest import Wants

MIRROR = '[apt]\n{} = {{ url = "https://mirror.example.com/debian"{} }}\n'
INSTALLED = {"docker": "docker-ce", "gitlab": "gitlab-ce", "runner": "gitlab-runner"}


def source_of(wants: Wants, task: str, text: str = "") -> AptSource:
    """The package source of a task."""
    (source,) = (one for one in wants(task, text) if isinstance(one, AptSource))
    assert isinstance(source, AptSource)
    return source


def seen(resource: Resource, system: str, *installed: str, source: Any = NO_FILE) -> Any:
    """What is observed on a host of `id codename version`."""
    name, codename, version = system.split(" ")
    answers = {
        "system": f"{name}\n{codename}\n{version}\namd64\n",
        "packages": packages_are(dict.fromkeys(installed, "1")),
    }
    files = {"key": NO_FILE, "source": source, "pin": NO_FILE, "sources": "\n", "missing": ""}
    return observe(resource, {name: one for name, one in {**files, **answers}.items() if name in resource.probe()})


def suite(resource: AptSource, observation: Any) -> str:
    """The suite that is written."""
    (written,) = (one.run.stdin.decode() for one in planned(resource, observation) if resource.path in one.summary)  # type: ignore[union-attr]
    return str(written.partition("Suites: ")[2].partition("\n")[0])


@pytest.mark.parametrize("task", ["docker", "gitlab", "runner"])
@pytest.mark.parametrize(
    "system",
    ["debian bookworm 12", "debian trixie 13", "ubuntu jammy 22.04", "ubuntu noble 24.04", "ubuntu resolute 26.04"],
)
def test_releases_with_packages(wants: Wants, task: str, system: str) -> None:
    """All three publish for them: nothing is said, and the suite is the release's own."""
    source = source_of(wants, task)
    there = seen(source, system)
    assert notes(source, there) == []
    assert suite(source, there) == system.split()[1]


@pytest.mark.parametrize(
    ("task", "system", "used"),
    [
        ("docker", "ubuntu stonking 26.10", "resolute"),
        ("gitlab", "ubuntu stonking 26.10", "resolute"),
        ("runner", "ubuntu tenacious 27.04", "resolute"),
        ("docker", "debian forky ", "trixie"),
        ("docker", "debian forky 14", "trixie"),
        ("gitlab", "debian sid ", "trixie"),
        ("runner", "debian duke 15", "forky"),
    ],
)
def test_a_newer_release_gets_the_newest_known_packages(wants: Wants, task: str, system: str, used: str) -> None:
    """With a note that names both; a mirror is treated alike, and one with a suite is asked for that."""
    source = source_of(wants, task)
    there = seen(source, system)
    assert suite(source, there) == used
    (note,) = notes(source, there)
    assert f"({system.split(' ')[1]}) gets " in note
    assert f"({used}), the newest that are known to this version of provision" in note
    mirrored = source_of(wants, task, MIRROR.format(task, ""))
    assert suite(mirrored, seen(mirrored, system)) == used
    own = source_of(wants, task, MIRROR.format(task, ', suite = "mine"'))
    assert suite(own, seen(own, system)) == "mine"
    assert notes(own, seen(own, system)) == []


def test_the_address_follows_the_suite(wants: Wants) -> None:
    """GitLab's repository has the code name in its address, too."""
    source = source_of(wants, "gitlab")
    (written,) = (
        one.run.stdin.decode()  # type: ignore[union-attr]
        for one in planned(source, seen(source, "ubuntu stonking 26.10"))
        if "gitlab.sources" in one.summary
    )
    assert "URIs: https://packages.gitlab.com/gitlab/gitlab-ce/ubuntu/resolute\nSuites: resolute\n" in written


def test_a_host_that_was_set_up_for_its_own_release_keeps_it(wants: Wants) -> None:
    """Its packages were published after this version of the program: nothing is changed, nothing is said."""
    source = source_of(wants, "docker")
    own = (
        "Types: deb\nURIs: https://download.docker.com/linux/ubuntu\nSuites: stonking\nComponents: stable\n"
        "Architectures: amd64\nSigned-By: /etc/apt/keyrings/docker.asc\n"
    )
    system = "ubuntu stonking 26.10"
    there = seen(source, system, "docker-ce", source=file_is(own))
    assert [one.summary for one in planned(source, there) if "sources" in one.summary] == []
    assert notes(source, there) == []
    # Without Docker it was never installed from there.
    assert suite(source, seen(source, system, source=file_is(own))) == "resolute"


REFUSED = [
    ("docker", "debian buster 10", "Docker has no packages for Debian 10 (buster)"),
    ("docker", "ubuntu focal 20.04", "Docker has no packages for Ubuntu 20.04 (focal); free support for Ubuntu 20.04 (focal) ended on 2025-05-29"),
    ("docker", "ubuntu plucky 25.04", "Docker has no packages for Ubuntu 25.04 (plucky)"),
    ("gitlab", "ubuntu questing 25.10", "GitLab has no packages for Ubuntu 25.10 (questing); free support for Ubuntu 25.10 (questing) ended on 2026-07-09"),
    ("gitlab", "debian bullseye 11", "gitlab-ce 19.3 is the last version with packages for Debian 11 (bullseye); free support"),
    ("runner", "ubuntu xenial 16.04", "GitLab Runner has no packages for Ubuntu 16.04 (xenial)"),
]  # fmt: skip


@pytest.mark.parametrize(("task", "system", "text"), REFUSED)
def test_a_release_without_packages_is_refused(wants: Wants, task: str, system: str, text: str) -> None:
    """Before the first change of the run; the hint has the releases with packages, and the way out."""
    source = source_of(wants, task)
    for step in (lambda there: planned(source, there), source.refuse_early):
        with pytest.raises(Refused) as caught:
            step(seen(source, system))
        assert caught.value.text.startswith(text)
        assert f'[apt] {task} = {{ url = "https://…", suite = "{system.split()[1]}" }}' in caught.value.hint


@pytest.mark.parametrize(("task", "system", "text"), REFUSED)
def test_a_host_that_is_set_up_is_not_refused(wants: Wants, task: str, system: str, text: str) -> None:
    """It keeps its source, with a note. So does a host with a mirror, which may have kept the packages."""
    source = source_of(wants, task)
    there = seen(source, system, INSTALLED[task])
    source.refuse_early(there)
    (note,) = notes(source, there)
    assert note.startswith(text)
    assert suite(source, there) == system.split()[1]
    mirrored = source_of(wants, task, MIRROR.format(task, ""))
    mirrored.refuse_early(seen(mirrored, system))
    assert notes(mirrored, seen(mirrored, system))[0].startswith(text)


@pytest.mark.parametrize(
    ("version", "system", "problem"),
    [
        ("18.4.2", "debian trixie 13", "gitlab-ce 18.4.2 has no package for Debian 13 (trixie): the first is 18.5"),
        ("18.5.0", "debian trixie 13", ""),
        ("19.2.*", "ubuntu resolute 26.04", "gitlab-ce 19.2.* has no package for Ubuntu 26.04 (resolute): the first is 19.3"),
        ("19.*", "ubuntu resolute 26.04", ""),
        ("19.3.4", "debian bullseye 11", ""),
        ("19.4.0", "debian bullseye 11", "gitlab-ce 19.4.0 has no package for Debian 11 (bullseye): the first is 14.6, the last 19.3"),
        ("18.0.0", "ubuntu stonking 26.10", "Ubuntu 26.10 (stonking) gets GitLab's packages for Ubuntu 26.04 (resolute)"),
    ],
)  # fmt: skip
def test_a_version_of_gitlab_that_a_release_never_had(wants: Wants, version: str, system: str, problem: str) -> None:
    """It is refused before anything is installed; the last version of an old release can be asked for."""
    source = source_of(wants, "gitlab", f'version = "{version}"\n')
    if not problem:
        source.refuse_early(seen(source, system))
        return
    with pytest.raises(Refused) as caught:
        source.refuse_early(seen(source, system))
    assert caught.value.text.startswith(problem)
    source.refuse_early(seen(source, system, "gitlab-ce"))


DISTRO = '[docker]\nsource = "distro"\n'
APART = ("docker.io", "docker-cli", "docker-buildx", "docker-compose")
INSIDE = ("docker.io", "docker-buildx", "docker-compose-v2")


def docker_of(wants: Wants, version: str = "") -> Packages:
    """The distribution's Docker."""
    text = DISTRO + (f'version = "{version}"\n' if version else "")
    (packages,) = (one for one in wants("docker", text) if isinstance(one, Packages))
    assert isinstance(packages, Packages)
    return packages


def on(packages: Packages, system: str, **installed: str) -> Any:
    """What is observed on a host with these packages."""
    name, codename, version = system.split(" ")
    there = packages_are({key.replace("__", ".").replace("_", "-"): value for key, value in installed.items()})
    answers = {"": there, "system": f"{name}\n{codename}\n{version}\namd64\n"}
    return observe(packages, {question: one for question, one in answers.items() if question in packages.probe()})


@pytest.mark.parametrize(
    ("system", "names"),
    [
        ("debian bookworm 12", ("docker.io",)),
        ("debian trixie 13", APART),
        ("debian forky ", APART),
        ("debian duke 15", APART),
        ("ubuntu focal 20.04", ("docker.io",)),
        ("ubuntu jammy 22.04", INSIDE),
        ("ubuntu noble 24.04", INSIDE),
        ("ubuntu resolute 26.04", INSIDE),
        ("ubuntu tenacious 27.04", INSIDE),
    ],
)
def test_the_distributions_docker_by_release(wants: Wants, system: str, names: tuple[str, ...]) -> None:
    """Client, buildx and Compose are named: docker.io only recommends or suggests them."""
    packages = docker_of(wants)
    (change,) = planned(packages, on(packages, system))
    assert change.summary == f"install {', '.join(names)}"


def test_missing_plugins_are_added_without_an_upgrade(wants: Wants) -> None:
    """On a host that an earlier version set up: docker.io is not part of the transaction, so Docker is not restarted."""
    packages = docker_of(wants)
    (change,) = planned(packages, on(packages, "ubuntu noble 24.04", docker__io="29.1.3-0ubuntu3~24.04.2"))
    assert change.summary == "install docker-buildx, docker-compose-v2"
    assert " docker.io" not in change.run.script  # type: ignore[union-attr]
    complete = dict.fromkeys(("docker__io", "docker_buildx", "docker_compose_v2"), "1")
    assert planned(packages, on(packages, "ubuntu noble 24.04", **complete)) == []


def test_a_version_is_that_of_engine_and_client(wants: Wants) -> None:
    """buildx and Compose have version numbers of their own."""
    packages = docker_of(wants, "26.1*")
    install, hold = planned(packages, on(packages, "debian trixie 13"))
    assert "docker.io=26.1*" in install.run.script  # type: ignore[union-attr]
    assert "docker-cli=26.1*" in install.run.script  # type: ignore[union-attr]
    assert "docker-buildx=" not in install.run.script  # type: ignore[union-attr]
    assert hold.summary == "hold docker.io, docker-cli"


def test_the_distributions_docker_on_an_old_release(wants: Wants) -> None:
    """It is refused before the first change, unless docker.io is installed."""
    packages = docker_of(wants)
    with pytest.raises(Refused, match=r"the Docker packages of Debian 10 \(buster\) are too old") as caught:
        packages.refuse_early(on(packages, "debian buster 10"))
    assert caught.value.hint == "use a newer release: Debian 11, 12, 13, 14"
    there = on(packages, "debian buster 10", docker__io="18.09")
    packages.refuse_early(there)
    assert planned(packages, there) == []
    assert notes(packages, there) == ["the Docker packages of Debian 10 (buster) are too old"]


def test_dockers_packages_replace_those_of_the_distribution(wants: Wants) -> None:
    """By the names of every release: two packages with the same file cannot be installed together."""
    (packages,) = (one for one in wants("docker", "[docker]\n") if isinstance(one, Packages))
    assert {*APART, *INSIDE} <= {*packages.conflicting}
