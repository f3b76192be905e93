"""From a folder to a container that answers: built, pushed, deployed, changed, rolled back.

The app is the tutorial's small Flask app, on two runner hosts one after the other. The tests run in order and check
with the Docker CLI and over HTTP.
"""

from __future__ import annotations

import select
import signal
import subprocess
from collections.abc import Callable

import pytest

from provision_lab import LabHost
from provision_lab.harness import PROVISION, Harness
from tests.support.images import (
    BASE,
    CONTAINERD_STORE,
    HELLO,
    IMAGE,
    NO_FILES,
    REGISTRY,
    answer,
    apps,
    base_image,
    blobs,
    container,
    names,
    pushed,
    write_app,
)
from tests.support.runs import Outcome, applied, provision, refused, running, strays, twice, unchanged, without_s3
from tests.support.waiting import wait_for

RUNNERS = ("runner-1", "runner-2")
BUILD = f"build and push {REGISTRY}/root/hello_hapi:1.0, latest"
TOKEN = "the-token-of-the-app"


@pytest.fixture(scope="module")
def harness(harness_factory: Callable[..., Harness]) -> Harness:
    """An estate with a base image, one image and one app."""
    harness = without_s3(
        harness_factory(LabHost("gitlab", prepared="server"), *(LabHost(name, prepared="runner") for name in RUNNERS))
    )
    applied(harness, "all")
    base_image(harness, "runner-1")
    write_app(harness)
    harness.inventory |= {"images": [IMAGE], "apps": [HELLO]}
    return harness


@pytest.fixture(scope="module")
def first(harness: Harness) -> Outcome:
    """The first run: built, pushed, deployed."""
    return applied(harness, "image", "deploy")


in_order = pytest.mark.usefixtures("first")


def test_bare(harness: Harness) -> None:
    """Check mode shows the plan and changes nothing."""
    outcome = applied(harness, "image", "deploy", "--check")
    assert outcome.changes(task="image") == [BUILD]
    assert outcome.changes(task="deploy") == [f"deploy hello: {REGISTRY}/root/hello_hapi:1.0"] * 2
    assert names(harness, "runner-1") == []


def test_built_pushed_and_deployed(harness: Harness, first: Outcome) -> None:
    """One host has built the image, both run the app; both tags are in the registry."""
    assert first.changes(host="runner-1") == [BUILD, f"deploy hello: {REGISTRY}/root/hello_hapi:1.0"]
    assert first.changes(host="runner-2") == [f"deploy hello: {REGISTRY}/root/hello_hapi:1.0"]
    assert [answer(harness, host) for host in RUNNERS] == ["hello world!"] * 2
    digests = harness.lab.inside(
        "runner-1", f"docker images --digests --format '{{{{.Tag}}}} {{{{.Digest}}}}' {REGISTRY}/root/hello_hapi"
    )
    found = dict(line.split() for line in digests.splitlines())
    assert found["1.0"] == found["latest"] != "<none>"


@in_order
def test_one_host_after_the_other(first: Outcome) -> None:
    """The second host begins when the first has finished."""
    order = [
        (one["type"], one["host"])
        for one in first.events
        if one.get("task") == "deploy" and one["type"] in ("change", "task")
    ]
    assert order == [("change", "runner-1"), ("task", "runner-1"), ("change", "runner-2"), ("task", "runner-2")]


@in_order
def test_again_nothing_is_done(harness: Harness) -> None:
    """Seven round trips, no change, and the containers keep running."""
    before = [container(harness, host) for host in RUNNERS]
    outcome = unchanged(harness, "image", "deploy")
    assert max(one["round_trips"] for one in outcome.summary["hosts"].values()) <= 7
    assert outcome.messages() == ""
    assert [container(harness, host) for host in RUNNERS] == before


@in_order
def test_another_text(harness: Harness) -> None:
    """One build, and one replacement on each host; nothing else. Of the layers only the one with the text is pushed."""
    write_app(harness, "hello beautiful world!")
    before = blobs(harness)
    outcome = twice(harness, "image", "deploy")
    new = {digest: size for digest, size in blobs(harness).items() if digest not in {*before, NO_FILES}}
    assert len(new) == 3, "the layer, the image's configuration and its manifest"
    assert pushed(harness, "root/hello_hapi", "1.0")["layers"][-1]["digest"] in new
    assert sum(new.values()) < 20_000
    assert outcome.changes(host="runner-1") == [
        BUILD,
        f"replace hello: {REGISTRY}/root/hello_hapi:1.0 names another image now",
    ]
    assert outcome.changes(host="runner-2") == [
        f"replace hello: {REGISTRY}/root/hello_hapi:1.0 names another image now"
    ]
    assert [answer(harness, host) for host in RUNNERS] == ["hello beautiful world!"] * 2
    assert [names(harness, host) for host in RUNNERS] == [["hello"]] * 2


@in_order
def test_a_broken_version_is_rolled_back(harness: Harness) -> None:
    """The old version answers, the second host is unchanged; the failure is reported until it is fixed."""
    write_app(harness, code='print("cannot start: no database", flush=True)\nraise SystemExit(3)\n')
    second = container(harness, "runner-2")
    outcome = refused(harness, "image", "deploy")
    (error,) = outcome.of("error")
    assert (error["host"], error["task"], error["resource"]) == ("runner-1", "deploy", "App hello")
    for words in ("it ended", "cannot start: no database", "the previous container runs again"):
        assert words in error["text"]
    assert "skipped: runner-1 failed earlier" in outcome.messages()
    assert [answer(harness, host) for host in RUNNERS] == ["hello beautiful world!"] * 2
    assert container(harness, "runner-2") == second
    assert names(harness, "runner-1") == ["hello"]
    again = refused(harness, "deploy", "--limit", "runner-1")
    assert "cannot start" in again.errors
    write_app(harness, "hello again")
    applied(harness, "image", "deploy")
    unchanged(harness, "image", "deploy")
    assert [answer(harness, host) for host in RUNNERS] == ["hello again"] * 2
    assert [strays(harness, host) for host in RUNNERS] == [[], []]


@in_order
def test_an_app_that_never_gets_well(harness: Harness) -> None:
    """The app runs but answers wrongly: when its time is over, the previous version runs again, with the reason."""
    check = {"url": "http://localhost:5001/", "contains": "goodbye", "seconds": 10}
    outcome = refused(
        harness, "deploy", "--limit", "runner-1", changes=apps({**HELLO, "check": check, "environment": {"MODE": "x"}})
    )
    assert "not healthy within 10 s: the answer of http://localhost:5001/ does not contain goodbye" in outcome.errors
    assert "the previous container runs again" in outcome.errors
    assert (answer(harness, "runner-1"), answer(harness, "runner-1", "/mode")) == ("hello again", "none 0")
    assert names(harness, "runner-1") == ["hello"]
    applied(harness, "deploy", "--limit", "runner-1")


@in_order
def test_settings(harness: Harness) -> None:
    """Variables with a secret, a volume, a command check and Docker's health check; the image stays the same."""
    token = harness.folder / "token"
    token.write_text(TOKEN)
    changed = {
        **HELLO,
        "environment": {"MODE": "lab", "API_TOKEN": {"file": str(token)}},
        "volumes": ["hello-data:/data:ro"],
        "restart": "always",
        "health": {"command": "python -c 1", "interval": "1s", "retries": 3},
        "check": {"command": ["python", "-c", "import os; assert os.environ['MODE'] == 'lab'"]},
    }
    outcome = twice(harness, "deploy", "--diff", changes=apps(changed))
    assert outcome.changes() == ["replace hello: its settings differ"] * 2
    assert answer(harness, "runner-1", "/mode") == f"lab {len(TOKEN)}"
    assert TOKEN not in str(outcome.events)
    inspect = (
        "docker inspect -f '{{.HostConfig.RestartPolicy.Name}} {{.State.Health.Status}} {{json .Config.Labels}}' hello"
    )
    seen = harness.lab.inside("runner-1", inspect)
    assert seen.startswith("always healthy")
    assert TOKEN not in seen
    # Docker's own runc-process files hold a container's environment for the moment of a health check.
    grep = "cat > /dev/shm/p; grep -rlsF --exclude='runc-process*' -f /dev/shm/p /var/lib/provision /etc /root /home /tmp; rm /dev/shm/p; ls -A /dev/shm"
    assert harness.lab.inside("runner-1", grep, stdin=TOKEN) == ""
    applied(harness, "deploy")
    harness.lab.inside("runner-1", "docker volume rm hello-data")


@in_order
@pytest.mark.parametrize("drift", ["docker stop hello", "docker rm -f hello"])
def test_drift(harness: Harness, drift: str) -> None:
    """A stopped or removed container is replaced, on that host only."""
    harness.lab.inside("runner-2", drift)
    outcome = twice(harness, "deploy")
    assert [(one["host"], one["summary"].split()[0]) for one in outcome.of("change")] in (
        [("runner-2", "start")],
        [("runner-2", "deploy")],
    )
    assert answer(harness, "runner-2") == "hello again"


@in_order
def test_a_tag_moved_by_somebody_else(harness: Harness) -> None:
    """Named tasks ask the registry: a tag pushed from elsewhere is deployed, and `image` restores its own."""
    password = harness.lab.secret("registry_password")
    push = f"""
    export DOCKER_CONFIG=/dev/shm/other; mkdir $DOCKER_CONFIG; docker login -u root --password-stdin {REGISTRY} || exit 1
    printf 'FROM {REGISTRY}/root/hello_hapi:1.0\\nRUN sed -i "s/hello again/hello from elsewhere/" /app.py\\n' | docker build -t {REGISTRY}/root/hello_hapi:1.0 -
    docker push {REGISTRY}/root/hello_hapi:1.0; rm -r $DOCKER_CONFIG
    """
    harness.lab.inside("runner-2", push, stdin=password)
    assert len(applied(harness, "deploy").changes()) == 2
    assert [answer(harness, host) for host in RUNNERS] == ["hello from elsewhere"] * 2
    assert applied(harness, "image").changes() == [BUILD]
    assert len(applied(harness, "deploy").changes()) == 2
    assert [answer(harness, host) for host in RUNNERS] == ["hello again"] * 2


@in_order
def test_the_controller_is_killed_in_the_middle(harness: Harness) -> None:
    """The host finishes the deployment by itself; the next run finds the app and converges."""
    write_app(harness, "hello after all")
    applied(harness, "image")
    argv = [*PROVISION, "deploy", "--limit", "runner-1", "-i", str(harness.write())]
    with running(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as run:
        wait_for(lambda: set(names(harness, "runner-1")) > {"hello"}, "a second container")
        run.send_signal(signal.SIGKILL)
    wait_for(lambda: names(harness, "runner-1") == ["hello"], "one container", 60)
    wait_for(lambda: answer(harness, "runner-1").startswith("hello a"), "an answer", 60)
    wait_for(lambda: provision(harness, "deploy").code == 0, "a run that gets the lock")
    unchanged(harness, "deploy")
    assert [answer(harness, host) for host in RUNNERS] == ["hello after all"] * 2


@in_order
def test_a_script_that_runs_out_of_time(harness: Harness) -> None:
    """Stopped during its check of the new container, it rolls back to the previous one."""
    check = {"url": "http://localhost:5001/", "contains": "goodbye", "seconds": 100}
    before = container(harness, "runner-1").split()[0]
    path = harness.write(apps({**HELLO, "check": check, "environment": {"MODE": "x"}}), "late.toml")
    argv = [*PROVISION, "deploy", "--limit", "runner-1", "-i", str(path)]
    with (harness.folder / "late.log").open("wb") as log, running(argv, stdout=log, stderr=log) as run:
        # Docker gives the previous container 10 s to stop.
        wait_for(lambda: answer(harness, "runner-1", "/mode").startswith("x"), "the new container", 60)
        harness.lab.inside("runner-1", "kill -TERM $(pgrep -f '^timeout -k 30 1900')")
        assert run.wait(45) == 1
    # The rollback has ended when the run has.
    assert names(harness, "runner-1") == ["hello"], (harness.folder / "late.log").read_text("utf-8")
    assert container(harness, "runner-1").split()[0] == before
    wait_for(lambda: answer(harness, "runner-1") == "hello after all", "the previous container's answer", 60)
    assert len(applied(harness, "deploy").changes()) == 1, "it is still pending"
    unchanged(harness, "deploy")


@in_order
def test_what_a_killed_host_left(harness: Harness) -> None:
    """Between two containers, as after a loss of power: the next run knows which one served, and converges."""
    harness.lab.inside(
        "runner-1",
        "docker stop hello; docker rename hello hello.provision-old; docker create --name hello --label provision.app=hello "
        + BASE
        + " python",
    )
    assert applied(harness, "deploy").changes() == [
        f"deploy hello: {REGISTRY}/root/hello_hapi:1.0, after an interrupted deployment"
    ]
    unchanged(harness, "deploy")
    assert names(harness, "runner-1") == ["hello"]
    assert answer(harness, "runner-1") == "hello after all"


@in_order
def test_logs(harness: Harness) -> None:
    """Logs of each host with its name; an unknown app is bad usage."""
    answer(harness, "runner-2", "/from-this-test")
    both = harness.run("logs", "hello")
    assert both.returncode == 0
    assert {line.partition(":")[0] for line in both.stdout.splitlines()} == set(RUNNERS)
    assert any(line.startswith("runner-2: ") and "GET /from-this-test" in line for line in both.stdout.splitlines())
    one = harness.run("logs", "hello", "--limit", "runner-2", "-n", "1")
    assert len(one.stdout.splitlines()) == 1
    assert "GET /from-this-test" in one.stdout
    wrong = harness.run("logs", "helo")
    assert (wrong.returncode, 'did you mean "hello"?' in wrong.stderr) == (2, True)


@in_order
def test_logs_that_are_followed(harness: Harness) -> None:
    """New lines are shown at once; Ctrl-C ends the command here and on the host."""
    argv = [*PROVISION, "logs", "hello", "-f", "-n", "0", "-l", "runner-1", "-i", str(harness.write())]
    with running(argv, stdout=subprocess.PIPE) as run:
        assert run.stdout is not None
        wait_for(lambda: "docker logs" in harness.lab.inside("runner-1", "ps -eo args"), "docker logs on the host")

        def shown() -> bool:  # a line that was printed before Docker follows is not shown: the next one is
            answer(harness, "runner-1", "/followed")
            return bool(select.select([run.stdout], [], [], 1)[0])

        wait_for(shown, "the request in the log")
        assert "GET /followed" in run.stdout.readline()
        run.send_signal(signal.SIGINT)
        assert run.wait(10) == 130
    wait_for(lambda: "docker logs" not in harness.lab.inside("runner-1", "ps -eo args"), "its end on the host")


@in_order
def test_a_dropped_app_is_removed(harness: Harness) -> None:
    """A container of ours is removed, as planned; a container of others stays."""
    harness.lab.inside("runner-1", f"docker run -d --name theirs {BASE} python -c 'import time; time.sleep(600)'")
    planned = applied(harness, "deploy", "--check", changes={"apps": []})
    assert planned.changes() == ["remove hello: it is no longer in the inventory"] * 2
    assert twice(harness, "deploy", changes={"apps": []}).changes() == planned.changes()
    assert [names(harness, host) for host in RUNNERS] == [["theirs"], []]
    harness.lab.inside("runner-1", "docker rm -f theirs")
    assert [strays(harness, host) for host in RUNNERS] == [[], []]


@in_order
def test_the_containerd_image_store(harness: Harness) -> None:
    """A tag names one manifest there too, because no attestation makes an index of it. A second run changes nothing."""
    daemon = {**harness.inventory["docker"]["daemon"], **CONTAINERD_STORE}
    harness.inventory["hosts"]["runner-2"]["docker"] = {"daemon": daemon}
    harness.inventory["apps"] = []
    applied(harness, "docker")
    assert "io.containerd.snapshotter" in harness.lab.inside("runner-2", "docker info -f '{{.DriverStatus}}'")
    base_image(harness, "runner-2")
    write_app(harness, "hello from us")
    twice(harness, "image", changes={"images": [{**IMAGE, "tags": ["3.0"], "host": "runner-2"}]})
    assert "layers" in pushed(harness, "root/hello_hapi", "3.0")
    applied(harness, "verify", "--limit", "runner-2")


@in_order
def test_an_index_that_a_pipeline_pushed(harness: Harness) -> None:
    """With an attestation, a tag names an index: `deploy` notices a new one, `prune` keeps it, in both image stores."""
    password = harness.lab.secret("registry_password")
    image = f"{REGISTRY}/root/hello_hapi"

    # Docker asks for the tag while it writes it. The registry (2.8.3, on a disk) may answer 500 to that: an empty link.
    def push(text: str) -> None:
        script = f"""
        set -e
        export DOCKER_CONFIG=/dev/shm/other; mkdir $DOCKER_CONFIG; docker login -u root --password-stdin {REGISTRY}
        printf 'FROM {image}:3.0\\nRUN sed -i "s/hello from us/{text}/" /app.py\\n' | docker build -t {image}:ci -
        docker push {image}:ci || docker push {image}:ci
        rm -r $DOCKER_CONFIG
        """
        harness.lab.inside("runner-2", script, stdin=password)

    push("hello from a pipeline")
    assert "manifests" in pushed(harness, "root/hello_hapi", "ci")
    harness.inventory |= {"images": [], "apps": [{**HELLO, "image": "root/hello_hapi:ci"}]}
    twice(harness, "deploy")
    assert [answer(harness, host) for host in RUNNERS] == ["hello from a pipeline"] * 2
    push("hello from the next one")
    assert twice(harness, "deploy").changes() == [f"replace hello: {image}:ci names another image now"] * 2
    assert applied(harness, "prune", changes={"prune": {"days": 0}}).changes()
    unchanged(harness, "deploy")
    assert [answer(harness, host) for host in RUNNERS] == ["hello from the next one"] * 2
    for host in RUNNERS:
        harness.lab.inside(host, f"docker image inspect {image}:ci")
