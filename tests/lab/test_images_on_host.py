"""Images on a host with real Docker: what .dockerignore excludes, an image without a registry, pruning."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from provision_lab import LabHost
from provision_lab.harness import Harness
from tests.support.ignore import CASES, FILES
from tests.support.images import BASE, HELLO, answer, base_image, names, write_app
from tests.support.runs import applied, strays, twice, unchanged, without_registry, without_s3

HOST = "runner-1"
LOCAL = {"name": "python-hello-world", "context": "hello", "push": False}
APP = {**HELLO, "image": "python-hello-world", "pull": False}
NOW = {"prune": {"days": 0}}


@pytest.fixture(scope="module")
def harness(harness_factory: Callable[..., Harness]) -> Harness:
    """A host with Docker and a base image; no registry anywhere."""
    harness = without_registry(without_s3(harness_factory(LabHost(HOST, prepared="runner"))))
    base_image(harness, HOST)
    write_app(harness)
    return harness


@pytest.mark.parametrize(("text", "paths", "left"), CASES)
def test_dockers_rules_of_dockerignore(
    harness: Harness, text: str, paths: tuple[str, ...], left: tuple[str, ...]
) -> None:
    """`docker build` on the host gives the results of the table that our own rules are tested with."""
    assert paths == FILES
    context = harness.lab.machine(HOST).root / "root/context"
    for name in FILES:
        (context / name).parent.mkdir(parents=True, exist_ok=True)
        (context / name).write_text("x")
    (context / ".dockerignore").write_bytes(text.encode())
    (context / "Dockerfile").write_text("FROM scratch\nCOPY . /\n")
    build = "cd /root/context && docker build -q -t ignored . >/dev/null && docker create --name ignored ignored x >/dev/null"
    listing = harness.lab.inside(HOST, f"{build} && docker export ignored | tar -t")
    found = {line for line in listing.splitlines() if not line.endswith("/")}
    harness.lab.inside(
        HOST, "docker rm ignored; docker image rm -f ignored; docker image prune -f; rm -rf /root/context /root/.docker"
    )
    assert sorted(found & set(FILES)) == sorted(left)


def test_an_image_that_is_not_pushed(harness: Harness) -> None:
    """Built, run and replaced on one host without any registry, as in the tutorial's first part."""
    harness.inventory |= {"images": [LOCAL], "apps": [APP]}
    twice(harness, "image", "deploy")
    assert answer(harness, HOST) == "hello world!"
    write_app(harness, "hello beautiful world!")
    outcome = twice(harness, "image", "deploy")
    assert outcome.changes() == [
        "build python-hello-world:latest",
        "replace hello: python-hello-world:latest names another image now",
    ]
    assert answer(harness, HOST) == "hello beautiful world!"


def test_an_image_that_was_removed_by_hand_is_built_again(harness: Harness) -> None:
    """It is built again, since no registry has it."""
    harness.lab.inside(HOST, "docker rm -f hello; docker image rm python-hello-world")
    assert applied(harness, "image").changes() == ["build python-hello-world:latest"]
    applied(harness, "deploy")


def test_a_large_context(harness: Harness, tmp_path: Path) -> None:
    """Tens of megabytes that do not compress arrive complete."""
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY . /\n")
    with Path("/dev/urandom").open("rb") as noise:
        (tmp_path / "data").write_bytes(noise.read(48 << 20))
    image = {"name": "large", "context": str(tmp_path), "push": False}
    applied(harness, "image", changes={"images": [LOCAL, image]})
    size = harness.lab.inside(HOST, "docker image inspect -f '{{.Size}}' large")
    assert int(size) >= 48 << 20
    harness.lab.inside(HOST, "docker image rm large")


def images(harness: Harness) -> set[str]:
    """All tagged images of the host."""
    return set(harness.lab.inside(HOST, "docker images -f dangling=false --format '{{.Repository}}:{{.Tag}}'").split())


def test_pruning(harness: Harness) -> None:
    """Old, unused images and build cache: planned with the space first, then removed. Apps, running containers and the
    runner's caches stay.

    An image that was built in 2001 and came today is not old.
    """
    make = f"""
    echo x | docker import - old:1 >/dev/null 2>&1; head -c 2000000 /dev/urandom > /tmp/x; tar -C /tmp -c x | docker import - old:1
    docker tag {BASE} gitlab-runner-helper:x86_64-latest; rm /tmp/x
    docker run --name gone {BASE} python -c 1
    docker run --label com.gitlab.gitlab-runner.type=cache --name runner-cache {BASE} python -c 1
    docker run -d --name theirs {BASE} python -c 'import time; time.sleep(600)'
    docker volume create runner-abc-cache
    export DOCKER_CONFIG=/tmp/config SOURCE_DATE_EPOCH=1000000000
    printf 'FROM {BASE}\\nLABEL built=2001\\n' | docker build -q -t came-today:1 - && docker save came-today:1 -o /tmp/x &&
      docker image rm came-today:1 && docker load -q -i /tmp/x && rm -r /tmp/x /tmp/config
    """
    harness.lab.inside(HOST, make)
    unchanged(harness, "prune")
    before = images(harness)
    planned = applied(harness, "prune", "--check", "--diff", changes=NOW)
    (change,) = planned.changes()
    assert change.startswith("remove 1 stopped container (gone), ")
    assert "of the build cache" in change
    assert "old:1" in change
    assert "at least" in change
    assert images(harness) == before
    assert twice(harness, "prune", changes=NOW).changes() == [change]
    assert images(harness) == before - {"old:1", "came-today:1"}
    assert names(harness, HOST) == ["hello", "runner-cache", "theirs"]
    assert "runner-abc-cache" in harness.lab.inside(HOST, "docker volume ls -q")
    unchanged(harness, "image", "deploy")


def test_the_timer(harness: Harness) -> None:
    """The installed timer does the same; disabled, nothing of it is left."""
    wanted = {"prune": {"days": 0, "timer": True}}
    twice(harness, "prune", changes=wanted)
    host = harness.host(HOST)
    assert host.service("provision-prune.timer").is_enabled
    assert host.service("provision-prune.timer").is_running
    harness.lab.inside(HOST, "docker rm -f theirs; systemctl start provision-prune.service")
    assert "old:1" not in images(harness)
    assert answer(harness, HOST) == "hello beautiful world!"
    twice(harness, "prune")
    assert not host.file("/usr/local/lib/provision").exists
    assert strays(harness, HOST) == []
