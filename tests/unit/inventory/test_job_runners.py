"""Which runners of the inventory take a pipeline's jobs, and whether they can build."""

from __future__ import annotations

from typing import Any

import pytest

from provision.errors import UsageError
from provision.inventory.tables.projects import Pipeline, Project, check_runners, job_tags
from provision.inventory.tables.runners import Runner

SOCKET = "/var/run/docker.sock:/var/run/docker.sock"


def runner(name: str = "r", executor: str = "docker", *, labels: tuple[str, ...] = (), **docker: Any) -> Runner:
    """A runner."""
    return Runner(name=name, executor=executor, tags=labels, docker={"image": "docker:28", **docker})  # type: ignore[arg-type]


def pipeline(build: str = "dind", labels: tuple[str, ...] | None = None) -> Pipeline:
    """A pipeline."""
    return Pipeline(template="registry", build=build, tags=labels)  # type: ignore[arg-type]


FITTING = {
    "dind": {"privileged": True, "volumes": ["/certs/client", "/cache"]},
    "dind-without-tls": {"privileged": True},
    "socket": {"volumes": ["/cache", SOCKET]},
    "buildah": {"security_opt": ["seccomp:unconfined", "apparmor=unconfined"]},
}


@pytest.mark.parametrize("build", FITTING)
def test_what_fits(build: str) -> None:
    """As in GitLab's documentation. Privileged services suffice; kubernetes runners are not checked."""
    check_runners("x", pipeline(build), [runner(**FITTING[build])], named=True)
    check_runners("x", pipeline(build), [], named=True)
    check_runners("x", pipeline(build), [runner(executor="kubernetes")], named=True)
    if build.startswith("dind"):
        services = {**FITTING[build], "privileged": False, "services_privileged": True}
        check_runners("x", pipeline(build), [runner(**services)], named=True)
    if build == "buildah":
        check_runners("x", pipeline(build), [runner(privileged=True)], named=True)
    if build == "dind":
        check_runners("x", pipeline(build), [runner(privileged=True, volumes=["certs:/certs/client"])], named=True)


@pytest.mark.parametrize(
    ("build", "found", "words"),
    [
        ("dind", runner(), "r is not privileged"),
        ("dind", runner(privileged=True, volumes=["/cache"]), "r does not share the volume /certs/client"),
        ("dind-without-tls", runner(volumes=["/certs/client"]), "r is not privileged"),
        ("socket", runner(privileged=True, volumes=["/certs/client"]), "r does not mount /var/run/docker.sock"),
        ("socket", runner(volumes=["/var/run/docker.sock"]), "r does not mount /var/run/docker.sock"),
        ("buildah", runner(), "r lacks security_opt seccomp:unconfined, apparmor:unconfined"),
        ("buildah", runner(security_opt=["seccomp:unconfined"]), "r lacks security_opt apparmor:unconfined"),
        ("dind", runner(executor="shell"), "r has the executor shell, not docker"),
    ],
)
def test_what_does_not_fit(build: str, found: Runner, words: str) -> None:
    """The message names the runner, the reason and the required settings."""
    with pytest.raises(UsageError) as caught:
        check_runners('projects."g/p".pipeline', pipeline(build), [found], named=True)
    assert caught.value.text.startswith(
        f'projects."g/p".pipeline: build = "{build}" does not work with the [[runners]]'
    )
    assert words in caught.value.text
    assert "[runners.docker]" in caught.value.hint


def test_one_of_several() -> None:
    """All runners that the project names must be able to build; of others one suffices, as tags decide."""
    fits, not_so = runner("good", **FITTING["dind"]), runner("bad")
    check_runners("x", pipeline(), [fits, not_so], named=False)
    with pytest.raises(UsageError, match="bad is not privileged"):
        check_runners("x", pipeline(), [fits, not_so], named=True)


def test_tags_choose() -> None:
    """A runner that takes none of the jobs is not checked; one must take them."""
    tagged, other = runner("good", labels=("dind",), **FITTING["dind"]), runner("bad", labels=("small",))
    check_runners("x", pipeline(labels=("dind",)), [tagged, other], named=True)
    with pytest.raises(UsageError, match=r"no runner of the project takes jobs with the tags \['big'\]: good, bad"):
        check_runners("x", pipeline(labels=("big",)), [tagged, other], named=True)
    with pytest.raises(UsageError, match=r"no runner of the project takes jobs with the tags \[\]"):
        check_runners("x", pipeline(labels=()), [tagged, other], named=True)


def test_tags_by_default() -> None:
    """The tags that all runners have, if none takes jobs without tags."""
    one, two = runner(labels=("docker", "big")), runner(labels=("docker", "small"))
    assert job_tags(pipeline(), [one, two]) == ("docker",)
    assert job_tags(pipeline(), [one, runner()]) == ()
    assert job_tags(pipeline(), []) == ()
    assert job_tags(pipeline(labels=("mine",)), [one]) == ("mine",)
    assert job_tags(pipeline(labels=()), [one]) == ()


def test_the_runners_of_a_project() -> None:
    """Those that the project names, or all when it names none."""
    one, two = runner("one"), runner("two")
    assert Project(
        runners=(
            "two",
            7,
        )
    ).job_runners([one, two]) == [two]
    assert Project(runners=()).job_runners([one, two]) == [one, two]
    assert Project(runners=("elsewhere",)).job_runners([one, two]) == []
