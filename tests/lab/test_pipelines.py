"""The tasks `project` and `pipeline` on real hosts, and the pipelines that they commit: every line of both is run.

The lab's runner runs them in containers. Images are built, pushed, pulled and run with the lab's registry. The tests run in
order.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from provision_lab import LabHost
from provision_lab.container_images import BUILDAH
from provision_lab.harness import Harness
from tests.support.faults import Live, wait_until_free
from tests.support.gitlab import Server, rails_does_not_boot, writes
from tests.support.images import CONTAINERD_STORE, pushed
from tests.support.pipelines import CLI, commit, committed, ended, push_base, run, tags, tokens
from tests.support.runs import Outcome, applied, provision, refused, strays, succeeds, twice, unchanged, without_s3
from tests.support.waiting import wait_for

HOST = "runner-1"
PROJECT = "root/hello_hapi"
PLACE = "/projects/root%2Fhello_hapi"
SOURCE = "root/source"
AWAITED = "root/awaited"
REGISTRY = "gitlab.lab.test:5555"
IMAGE = f"{REGISTRY}/{PROJECT}"
converged = pytest.mark.usefixtures("images")
SUCCESS = dict.fromkeys(("build", "test", "release"), "success")
APP = 'FROM {base}\nRUN cat /bin/sh > /bin/copy\nCOPY app.sh /app.sh\nENTRYPOINT ["/bin/sh", "/app.sh"]\n'
APP_TEST = "sh /app.sh | grep -q hello && test -s /app.sh"
PLAYBOOK = '''"""An estate with its projects."""
from provision.tasks import (
    certificates, docker, firewall, gitlab, pipeline, play, project, register, registry, runner, verify
)
PLAYS = [
    play("gitlab", firewall, gitlab, certificates, registry),
    play("runners", docker, runner, register, verify),
    play("all", project, pipeline),
]
'''
RELEASED = '''"""A source, from the push to the running app."""
from provision.tasks import accounts, deploy, play, project, source

PLAYS = [play("all", accounts), play("all", project, source), play("all", deploy, serial=True)]
'''
HUB = {
    "template": "dockerhub",
    "image": f"{PROJECT}/hub",
    "build": "socket",
}
# What a container of a job needs in a lab: there is no DNS server, and the lab has a CA of its own.
TRUST = "/etc/ssl/certs/ca-certificates.crt"
SOCKET = "/var/run/docker.sock"
BUILDS = "-q --filter label=com.gitlab.gitlab-runner.managed=true --filter label=com.gitlab.gitlab-runner.type=build"
PYTHON_PROJECT = {
    "requirements.txt": "# none: the lab reaches no index\n",
    "greeting.py": 'def greeting(name):\n    return f"Hello, {name}!"\n',
    "test_greeting.py": (
        "import unittest\n\nfrom greeting import greeting\n\n\nclass Test(unittest.TestCase):\n"
        '    def test_it(self):\n        self.assertEqual(greeting("you"), "Hello, you!")\n'
    ),
    "Dockerfile": f"FROM {IMAGE}/base:1\nCOPY greeting.py /\n",
}


@pytest.fixture(scope="module")
def harness(harness_factory: Callable[..., Harness]) -> Harness:
    """Bare hosts; an inventory with a project that has a runner of its own."""
    harness = without_s3(harness_factory(LabHost("gitlab"), LabHost(HOST, prepared="runner")))
    seed = harness.lab.machine("gitlab").root / "etc/gitlab-standin/seed.json"
    seed.write_text(json.dumps({**json.loads(seed.read_text()), "projects": [SOURCE]}))
    docker = {
        "image": CLI,
        "pull_policy": ["always", "if-not-present"],
        "volumes": ["/cache", f"{SOCKET}:{SOCKET}", f"{TRUST}:{TRUST}:ro"],
        "extra_hosts": [f"gitlab.lab.test:{harness.lab.machine('gitlab').host.address}"],
    }
    harness.inventory["runners"][0] |= {"runner_type": "project_type", "project": PROJECT, "docker": docker}
    harness.inventory["docker"]["daemon"] |= harness.lab.docker_hub
    harness.inventory["projects"] = {
        PROJECT: {
            "shared_runners": False,
            "registry": "private",
            "runners": ["docker-builder"],
            "variables": {
                "DOCKERHUB_REGISTRY": REGISTRY,
                "DOCKERHUB_USER": "root",
                "DOCKERHUB_TOKEN": {"value": harness.lab.secret_source("registry_password"), "masked": True},
                "HIDDEN": {"value": harness.lab.secret_source("s3_secret_key"), "hidden": True},
            },
            "pipeline": {"template": "registry", "test": APP_TEST, "build": "socket"},
        }
    }
    (harness.folder / "playbooks").mkdir()
    (harness.folder / "playbooks/delivery.py").write_text(PLAYBOOK)
    return harness


@pytest.fixture(scope="module")
def first(harness: Harness) -> Outcome:
    """The first run of everything, from bare hosts."""
    return applied(harness, "delivery")


@pytest.fixture(scope="module")
def images(harness: Harness, first: Outcome) -> None:
    """The base image of the project's image, in its registry. Jobs have their images from the lab's mirror of Docker Hub."""
    del first
    push_base(harness, HOST, f"{IMAGE}/base:1")


@pytest.fixture(scope="module")
def server(harness: Harness) -> Server:
    """GitLab."""
    return Server(harness)


def app(text: str) -> dict[str, str]:
    """The project's files, with the output of its program."""
    return {"Dockerfile": APP.format(base=f"{IMAGE}/base:1"), "app.sh": f"echo {text}\n"}


def test_check_mode_on_bare_hosts(harness: Harness) -> None:
    """GitLab is not installed: the changes are predicted, and nothing fails."""
    outcome = applied(harness, "delivery", "--check")
    assert f"would compare project {PROJECT} with GitLab" in outcome.messages()
    assert f"would compare the pipeline of project {PROJECT} with GitLab" in outcome.messages()


def test_everything_in_one_run(first: Outcome, server: Server) -> None:
    """The new runner is the project's and locked; settings, variables and the pipeline are set."""
    assert len(first.changes(task="project")) == 6
    assert first.changes(task="pipeline") == [f"commit .gitlab-ci.yml to branch main of project {PROJECT}"]
    runner = server.ask("GET", f"/runners/{server.runner('docker-builder')['id']}")
    assert (runner["locked"], [one["path_with_namespace"] for one in runner["projects"]]) == (True, [PROJECT])
    project = server.ask("GET", PLACE)
    assert (project["shared_runners_enabled"], project["container_registry_access_level"]) == (False, "private")
    assert "tags:\n    - docker\n" in committed(server, PROJECT)  # what the runner asks for


def test_the_next_run_changes_nothing_and_asks_nothing(harness: Harness, server: Server, first: Outcome) -> None:
    """The same number of round trips; no secret value is in the wrong place."""
    del first
    with server.counted() as seen:
        done = unchanged(harness, "delivery")
    assert [asked for asked in seen if "/projects/" in asked or "/runners/all" in asked] == []
    assert done.messages() == ""
    assert max(one["round_trips"] for one in done.summary["hosts"].values()) <= 9
    state = harness.lab.inside("gitlab", "cat /var/lib/provision/state.json")
    for secret in ("registry_password", "s3_secret_key", "api_token"):
        assert harness.lab.secret(secret) not in state
    assert strays(harness, "gitlab") == []


def test_manual_changes_are_reverted(harness: Harness, server: Server) -> None:
    """Manual changes in GitLab are reverted, and nothing else changes."""
    server.ask("PUT", PLACE, shared_runners_enabled=True)
    server.ask("PUT", f"{PLACE}/variables/DOCKERHUB_USER", value="anna")
    file = f"{PLACE}/repository/files/.gitlab-ci.yml"
    server.ask("PUT", file, branch="main", commit_message="by hand", content="x: {script: [y]}\n")
    with server.counted() as seen:
        outcome = twice(harness, "project", "pipeline")
    assert outcome.changes() == [
        f"set shared_runners_enabled of project {PROJECT}",
        f"set value of variable DOCKERHUB_USER of project {PROJECT}",
        f"commit .gitlab-ci.yml to branch main of project {PROJECT}",
    ]
    assert {asked: times for asked, times in writes(seen).items() if not asked.endswith("/ci/lint")} == {
        f"PUT /projects/{PROJECT}": 1,
        f"PUT /projects/{PROJECT}/variables/DOCKERHUB_USER": 1,
        f"PUT /projects/{PROJECT}/repository/files/.gitlab-ci.yml": 1,
    }
    (diff,) = [one["diff"] for one in outcome.of("change", task="pipeline")]
    assert "-x: {script: [y]}" in diff


def test_a_build_that_does_not_fit_the_runner(harness: Harness) -> None:
    """Refused before anything is contacted."""
    table: dict[str, Any] = {"projects": {PROJECT: {"pipeline": {"build": "dind"}}}}
    outcome = provision(harness, "pipeline", changes=table)
    assert outcome.code == 2
    assert "docker-builder is not privileged" in outcome.stderr


def test_buildah_needs_a_user_namespace(harness: Harness) -> None:
    """A runner with Docker's own seccomp profile is refused before anything is contacted."""
    table: dict[str, Any] = {"projects": {PROJECT: {"pipeline": {"build": "buildah"}}}}
    table["runners"] = [harness.inventory["runners"][0] | {"docker": {"image": "docker:28"}}]
    outcome = provision(harness, "pipeline", changes=table)
    assert outcome.code == 2
    assert "docker-builder lacks security_opt seccomp:unconfined, apparmor:unconfined" in outcome.stderr


def test_gitlab_is_down(harness: Harness, server: Server) -> None:
    """A named task fails with the reason; the next run succeeds."""
    with server.down():
        assert "cannot be reached from this machine" in refused(harness, "project").errors
    unchanged(harness, "project")


@pytest.mark.parametrize("task", ["register", "project", "pipeline", "image"])
def test_while_gitlab_starts(harness: Harness, server: Server, tmp_path: Path, task: str) -> None:
    """Puma was restarted, and all of GitLab is 502: the task waits with a message, and does what it has to do."""
    match task:  # what it has to do
        case "register":
            server.ask("PUT", f"/runners/{server.runner('docker-builder')['id']}", tag_list=["by-hand"])
        case "project":
            server.ask("PUT", PLACE, shared_runners_enabled=True)
        case "pipeline":
            file = f"{PLACE}/repository/files/.gitlab-ci.yml"
            server.ask("PUT", file, branch="main", commit_message="by hand", content="x: {script: [y]}\n")
    (tmp_path / "hello").write_text("hello\n")
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY hello /\n")
    images = {"images": [{"name": f"{PROJECT}/waits", "tags": ["1"], "context": str(tmp_path)}]}
    with rails_does_not_boot(harness, restart=True) as boot:
        run = Live(harness, task, changes=images)
        text = run.until("message", kind="waiting")["text"]
        boot()
        outcome = run.end()
    assert outcome.code == 0, outcome.errors
    assert re.match(r"waiting for at most 300 s: .*502", text)
    assert re.search(r"^waited for \d+ s: ", outcome.messages(), re.MULTILINE)
    assert len(outcome.changes(task=task)) == 1
    unchanged(harness, task, changes=images)


def test_a_source_is_pushed(harness: Harness, server: Server) -> None:
    """A folder and its pipeline, by git over TLS with the lab's CA; only what changes is pushed again."""
    folder = harness.folder / "source"
    (folder / "bin").mkdir(parents=True)
    (folder / "Dockerfile").write_text(APP.format(base=f"{IMAGE}/base:1"))
    (folder / "bin/large").write_bytes(os.urandom(3_000_000))  # sent in chunks
    changes = {
        "projects": {
            SOURCE: {"source": "source", "pipeline": {"template": "registry", "test": "true", "build": "socket"}}
        }
    }
    outcome = applied(harness, "source", changes=changes)
    assert outcome.changes() == [f"push 3 files of source to branch main of project {SOURCE}"]
    assert "image: " in committed(server, SOURCE)
    unchanged(harness, "source", "pipeline", changes=changes)
    (folder / "Dockerfile").write_text(APP.format(base=f"{IMAGE}/base:1") + "EXPOSE 80\n")
    assert twice(harness, "source", changes=changes).changes() == [
        f"push 1 file of source to branch main of project {SOURCE}"
    ]
    place = f"/projects/{SOURCE.replace('/', '%2F')}/repository"
    assert [one["committer_name"] for one in server.ask("GET", f"{place}/commits")] == ["provision", "provision"]
    log = harness.lab.inside("gitlab", "cat /var/log/gitlab/nginx/access.log")
    assert f"POST /{SOURCE}.git/git-receive-pack" in log
    assert harness.lab.secret("api_token") not in log


@converged
def test_the_registry_pipeline(harness: Harness, server: Server) -> None:
    """Built, tested in the image and released as latest; the tested image is the released one."""
    done = run(harness, server, PROJECT, app("hello from 1"))
    assert (done.status, done.jobs) == ("success", SUCCESS), done.log
    found = tags(server, PROJECT, PROJECT)
    assert found["latest"] == found[done.sha[:8]]
    assert tokens(harness)
    assert [one for one in tokens(harness) if one in done.log] == []
    assert harness.lab.inside(HOST, "docker ps -aq") == ""  # nothing of the jobs is left


def test_a_branch_releases_nothing(harness: Harness, server: Server) -> None:
    """Built and tested only; layers of the last release come from the registry."""
    before = tags(server, PROJECT, PROJECT)["latest"]
    harness.lab.inside(HOST, f"docker image rm -f $(docker images -q {IMAGE}); docker builder prune -af")
    done = run(harness, server, PROJECT, app("hello from 2"), "feature")
    assert done.jobs == {"build": "success", "test": "success"}, done.log
    assert tags(server, PROJECT, PROJECT)["latest"] == before
    assert re.search(r"#(\d+) \[.*\] RUN cat .*(?:\n#\1 .*)*\n#\1 CACHED", done.logs["build"]), done.log


def test_what_fails_its_test_is_not_released(harness: Harness, server: Server) -> None:
    """A failed test of the image prevents the release."""
    before = tags(server, PROJECT, PROJECT)["latest"]
    done = run(harness, server, PROJECT, app("goodbye"))
    assert (done.status, done.jobs) == ("failed", {"build": "success", "test": "failed", "release": "skipped"}), (
        done.log
    )
    assert "ERROR: Job failed: exit code 1" in done.logs["test"]
    assert tags(server, PROJECT, PROJECT)["latest"] == before


def test_a_stop_of_the_runner_ends_its_jobs(harness: Harness, server: Server) -> None:
    """GitLab knows why, and no container is left. As gitlab-runner: a stop does not wait for jobs."""
    script = f"long: {{script: [sleep 300], image: '{CLI}', tags: [docker]}}\n"
    commit(server, PROJECT, {".gitlab-ci.yml": script}, "long")
    wait_for(lambda: succeeds(harness, HOST, f"docker ps {BUILDS} | grep -q ."), "the job runs", 180)
    harness.lab.inside(HOST, "systemctl restart gitlab-runner")
    done = ended(harness, server, PROJECT, "long")
    assert "ERROR: Job failed (system failure): aborted: terminated" in done.log
    assert harness.lab.inside(HOST, "docker ps -aq") == ""


@converged
def test_a_source_is_released_and_deployed(harness: Harness, server: Server) -> None:
    """One run pushes, waits and deploys; a failed test leaves the app as it is; a killed run is continued by the next."""
    (harness.folder / "playbooks/released.py").write_text(RELEASED)
    folder, place = harness.folder / "awaited", f"/projects/{AWAITED.replace('/', '%2F')}/pipelines"
    folder.mkdir()
    (folder / "Dockerfile").write_text(APP.format(base=f"{REGISTRY}/{AWAITED}/base:1"))
    test = "grep -q hello /app.sh || { echo not ok 1 - no greeting; exit 1; }"
    pipeline = {"template": "registry", "test": test, "build": "socket"}
    awaited = {"create": True, "runners": ["docker-builder"], "source": "awaited", "wait": True, "pipeline": pipeline}
    changes: dict[str, Any] = {"projects": {AWAITED: awaited}, "apps": [{"name": "hello", "image": AWAITED}]}

    def write(text: str) -> None:
        (folder / "app.sh").write_text(f"echo {text}\nexec busybox sleep 100000\n")

    def app_and_release() -> list[str]:
        container = harness.lab.inside(HOST, "docker ps -q --filter name=^hello$ && docker logs hello").split("\n")
        return [*container, tags(server, AWAITED, AWAITED)["latest"]]

    def pipelines() -> list[str]:
        return [one["status"] for one in server.ask("GET", place)]

    applied(harness, "accounts", changes=changes)
    push_base(harness, HOST, f"{REGISTRY}/{AWAITED}/base:1")
    write("hello from 1")
    first = applied(harness, "released", changes=changes)
    assert [one.split(" of ")[0] for one in first.changes(task="source")] == ["push 3 files", "wait for the pipeline"]
    assert f"{AWAITED}: pipeline #{server.ask('GET', place)[0]['id']}: release: release: success" in first.messages()
    assert app_and_release()[1] == "hello from 1"
    unchanged(harness, "released", changes=changes)

    write("goodbye")
    before = app_and_release()
    for _ in range(2):  # the second run pushes nothing, and fails again
        failed = refused(harness, "released", changes=changes)
        assert "test: test: failed, script failure" in failed.errors
        assert "  | not ok 1 - no greeting\n" in failed.errors
        assert f"hello is unchanged: the pipeline of project {AWAITED} has not succeeded" in failed.messages()
        assert (app_and_release(), pipelines()) == (before, ["failed", "success"])

    write("hello from 2")
    killed = Live(harness, "released", changes=changes)
    killed.until("message", kind="waiting", task="source")
    killed.kill()
    for host in ("gitlab", HOST):
        wait_until_free(harness, host)
    done = applied(harness, "released", changes=changes)
    assert [one.split(" of ")[0] for one in done.changes(task="source")] == ["wait for the pipeline"]
    assert [one.split(":")[0] for one in done.changes(task="deploy")] == ["replace hello"]
    after = app_and_release()
    assert (after[1], after[0] == before[0], pipelines()) == ("hello from 2", False, ["success", "failed", "success"])
    shown = harness.run("ci", AWAITED, "--no-wait", changes=changes)
    assert (shown.returncode, "✓ release" in shown.stdout) == (0, True), shown.stdout
    applied(harness, "deploy", changes={"projects": {AWAITED: awaited}})  # the app is removed


@converged
def test_the_dockerhub_pipeline(harness: Harness, server: Server) -> None:
    """Verified, measured, published: the target registry is a variable of the project."""
    harness.inventory["projects"][PROJECT]["pipeline"] = dict(HUB)
    assert twice(harness, "pipeline").changes() == [f"commit .gitlab-ci.yml to branch main of project {PROJECT}"]
    done = run(harness, server, PROJECT, PYTHON_PROJECT)
    assert done.jobs == dict.fromkeys(("requirements", "tests", "publish"), "success"), done.log
    assert re.search(r"TOTAL .* 100%", done.logs["tests"])
    found = tags(server, PROJECT, f"{PROJECT}/hub")
    assert found["latest"] == found[done.sha[:8]]
    assert harness.lab.secret("registry_password") not in done.log


def test_too_little_coverage_is_not_published(harness: Harness, server: Server) -> None:
    """A line that no test runs prevents publishing."""
    before = tags(server, PROJECT, f"{PROJECT}/hub")["latest"]
    more = PYTHON_PROJECT["greeting.py"] + "\n\ndef unused():\n    return 1\n"
    done = run(harness, server, PROJECT, {"greeting.py": more})
    assert done.jobs == {"requirements": "success", "tests": "failed", "publish": "skipped"}
    assert "less than fail-under=100" in done.log
    assert tags(server, PROJECT, f"{PROJECT}/hub")["latest"] == before


@converged
def test_the_containerd_image_store(harness: Harness, server: Server) -> None:
    """As in docker:29-dind: the release is the image that was tested, and one manifest, not an index of attestations."""
    harness.inventory["docker"]["daemon"] |= CONTAINERD_STORE
    harness.inventory["projects"][PROJECT]["pipeline"] = {
        "template": "registry",
        "test": "sh /app.sh | grep -q hello",
        "build": "socket",
    }
    applied(harness, "docker", "pipeline")
    assert "io.containerd.snapshotter" in harness.lab.inside(HOST, "docker info -f '{{.DriverStatus}}'")
    done = run(harness, server, PROJECT, app("hello from 6"))
    assert done.jobs == SUCCESS, done.log
    found = tags(server, PROJECT, PROJECT)
    assert found["latest"] == found[done.sha[:8]]
    assert "layers" in pushed(harness, PROJECT, "latest")


@converged
def test_buildah_without_privileges(harness: Harness, server: Server) -> None:
    """Built, tested and released in containers that have no daemon; the tested image is the released one."""
    docker = harness.inventory["runners"][0]["docker"]
    docker |= {
        "volumes": ["/cache", "/etc/docker/certs.d:/etc/docker/certs.d:ro"],
        "security_opt": ["seccomp:unconfined", "apparmor:unconfined"],
    }
    harness.inventory["projects"][PROJECT]["pipeline"] = {"template": "registry", "test": APP_TEST, "build": "buildah"}
    BUILDAH.load(harness.lab, HOST, "quay.io/buildah/stable:v1.43.1")
    applied(harness, "register", "pipeline")
    config = harness.lab.inside(HOST, "cat /etc/gitlab-runner/config.toml")
    assert "privileged = true" not in config
    assert SOCKET not in config
    done = run(harness, server, PROJECT, app("hello from 7"))
    assert done.jobs == SUCCESS, done.log
    found = tags(server, PROJECT, PROJECT)
    assert found["latest"] == found[done.sha[:8]]
    assert "layers" in pushed(harness, PROJECT, "latest")
    harness.lab.inside(
        HOST, "sed -i '/security_opt/d' /etc/gitlab-runner/config.toml && systemctl kill -s HUP gitlab-runner"
    )
    refused_by_seccomp = run(harness, server, PROJECT, app("hello from 8"))
    assert refused_by_seccomp.jobs["build"] == "failed"
    assert "unshare(CLONE_NEWUSER): Operation not permitted" in refused_by_seccomp.log
