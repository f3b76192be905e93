"""`provision all` from three bare hosts to a pushed and pulled image; a second run changes nothing.

The state is checked independently: by pytest-testinfra, the Docker CLI, boto3, GitLab's API and OpenSSH.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3  # type: ignore[import-untyped]
import pytest

from benchmarks.chain import Step, longest_chain
from provision_lab import LabHost
from provision_lab.harness import Harness
from tests.support.gitlab import rails_boots
from tests.support.runs import Outcome, provision, strays, unchanged

HOSTS = ("gitlab", "runner-1", "runner-2")
RUNNERS = HOSTS[1:]
REGISTRY = "gitlab.lab.test:5555"
converged = pytest.mark.usefixtures("first")


@pytest.fixture(scope="module")
def harness(harness_factory: Callable[..., Harness]) -> Harness:
    """inventories/lab.toml unchanged, on three bare hosts."""
    return harness_factory(*map(LabHost, HOSTS))


@pytest.fixture(scope="module")
def first(harness: Harness) -> Outcome:
    """The first run. Rails boots for a minute after the reconfigure."""
    with rails_boots(harness, 60):
        outcome = provision(harness, "all")
    assert outcome.code == 0, f"{outcome.errors}\n{outcome.stderr}"
    return outcome


def test_bare_hosts_converge(first: Outcome) -> None:
    """Every host was changed, none failed, and both runner hosts verified push and pull."""
    assert (first.summary["failed"], first.summary["unreachable"], first.summary["check"]) == (0, 0, False)
    assert set(first.summary["hosts"]) == set(HOSTS)
    assert all(one["changed"] > 0 and one["skipped"] == 0 for one in first.summary["hosts"].values())
    assert first.of("error") == []
    assert len([one for one in first.of("message", task="verify") if "verify push and pull" in one["text"]]) == 2
    assert max(one["round_trips"] for one in first.summary["hosts"].values()) <= 15


@converged
def test_it_waited_until_rails_had_booted(first: Outcome, harness: Harness) -> None:
    """The reconfigure took the minute, as nginx's log shows too; no other host asked GitLab meanwhile."""
    (reconfigure,) = [one for one in first.of("change") if one["summary"] == "reconfigure GitLab"]
    assert first.summary["hosts"]["gitlab"]["seconds"] > 60, reconfigure
    log = harness.lab.inside("gitlab", "cat /var/log/gitlab/nginx/access.log")
    asked = re.findall(r'"[A-Z]+ (\S+) HTTP/[\d.]+" 502', log)
    assert set(asked) == {"/-/readiness"}
    assert len(asked) > 40
    assert [one for one in first.of("message") if one["kind"] == "waiting"] == []


@converged
def test_runners_are_prepared_while_gitlab_is_installed(first: Outcome) -> None:
    """Docker was running before GitLab, and the whole run took as long as its longest chain of plays."""
    ended = [(one["host"], one["task"]) for one in first.of("task")]
    for host in RUNNERS:
        assert ended.index((host, "docker")) < ended.index(("gitlab", "registry")) < ended.index((host, "register"))
    seconds = {(one["host"], one["task"]): one["seconds"] for one in first.of("task")}
    plays = [
        Step(
            ", ".join(one["tasks"]),
            {host: sum(seconds.get((host, task), 0.0) for task in one["tasks"]) for host in one["hosts"]},
            one["after"],
            one["serial"],
        )
        for one in first.of("start")[0]["plays"]
    ]
    chain = longest_chain(plays)
    connecting = 5  # seconds: the first observation, which is no part of a task
    assert first.summary["seconds"] <= 1.1 * (chain.seconds + connecting), chain


@converged
def test_the_next_run_changes_nothing(harness: Harness) -> None:
    """No change, exit code 0, every task of every host ok, at most 7 round trips for each host."""
    again = unchanged(harness, "all")
    assert again.statuses("gitlab") == dict.fromkeys(["gitlab", "certificates", "registry", "firewall"], "ok")
    for host in RUNNERS:
        assert again.statuses(host) == dict.fromkeys(["docker", "runner", "register", "verify", "deploy"], "ok")
    assert max(one["round_trips"] for one in again.summary["hosts"].values()) <= 7
    assert again.of("message") == []


@pytest.mark.parametrize("host", RUNNERS)
@converged
def test_docker_logs_in_pushes_and_pulls(harness: Harness, host: str) -> None:
    """The user's Docker CLI pushes and pulls over TLS on 5555; the image's blobs are in the bucket."""
    image = f"{REGISTRY}/root/hello_hapi:from-{host}"
    layer = f"mkdir -p /tmp/image && hostname > /tmp/image/name && tar -C /tmp/image -c . | docker import - {image}"
    config = "export DOCKER_CONFIG=/tmp/docker-config;"
    password = harness.lab.secret("registry_password")
    output = harness.lab.ssh(host, f"{config} docker login -u root --password-stdin {REGISTRY}", stdin=password)
    assert output.returncode == 0, output.stderr
    pushed = harness.lab.ssh(host, f"{config} {layer} && docker push {image} && docker image rm {image}")
    assert pushed.returncode == 0, pushed.stderr
    pulled = harness.lab.ssh(
        host, f"{config} docker pull -q {image} && docker create --name made {image} x && docker cp made:/name -"
    )
    assert pulled.returncode == 0, pulled.stderr
    assert f"{host}\n" in pulled.stdout
    digest = re.search(r"digest: sha256:(\w+)", pushed.stdout)
    assert digest is not None
    assert any(digest[1] in key and "/blobs/" in key for key in bucket(harness))
    harness.lab.ssh(host, f"docker rm made; docker image rm {image}; rm -r /tmp/docker-config /tmp/image")


def bucket(harness: Harness) -> list[str]:
    """The keys of all objects in the lab's bucket."""
    lab = harness.lab
    client = boto3.client(
        "s3",
        endpoint_url=lab.s3_url,
        region_name=lab.server.region,
        aws_access_key_id=lab.secret("s3_access_key"),
        aws_secret_access_key=lab.secret("s3_secret_key"),
    )
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=lab.server.bucket)
    return [one["Key"] for page in pages for one in page.get("Contents", [])]


@converged
def test_the_check_of_the_bucket_leaves_nothing(harness: Harness) -> None:
    """The bucket contains only what the registry wrote."""
    assert {key.partition("/")[0] for key in bucket(harness)} == {"docker"}


def api(harness: Harness, path: str) -> Any:
    """The answer of GitLab's API to curl on the GitLab host."""
    header = f'header = "PRIVATE-TOKEN: {harness.lab.secret("api_token")}"\n'
    url = f"https://gitlab.lab.test/api/v4{path}"
    return json.loads(harness.lab.inside("gitlab", f"curl -sf --cacert /root/ca.pem -K - '{url}'", stdin=header))


@pytest.fixture(autouse=True, scope="module")
def ca(harness: Harness) -> Path:
    """The lab's CA, at the path that `api` uses."""
    path = harness.lab.machine("gitlab").root / "root/ca.pem"
    path.write_bytes(harness.lab.ca.read_bytes())
    return path


@converged
def test_verify_leaves_no_tag(harness: Harness) -> None:
    """The tags that verify pushed are deleted."""
    found = api(harness, "/projects/root%2Fhello_hapi/registry/repositories?tags=true")
    tags = [tag["name"] for one in found for tag in one["tags"]]
    assert [tag for tag in tags if tag.startswith("provision")] == []


@converged
def test_one_runner_a_host_is_registered(harness: Harness) -> None:
    """GitLab has one runner for each host; config.toml has it: privileged, docker executor, a valid token."""
    known = {one["id"]: api(harness, f"/runners/{one['id']}") for one in api(harness, "/runners/all")}
    assert len(known) == 2
    for host in RUNNERS:
        config = tomllib.loads(harness.lab.inside(host, "cat /etc/gitlab-runner/config.toml"))
        assert config["concurrent"] == 2
        (entry,) = config["runners"]
        assert (entry["name"], entry["executor"]) == ("docker-builder", "docker")
        assert entry["docker"]["privileged"] is True
        assert entry["docker"]["volumes"] == ["/certs/client", "/cache"]
        listed = harness.lab.inside(host, "gitlab-runner list 2>&1")
        assert f"Executor=docker Token={entry['token']} URL=https://gitlab.lab.test" in re.sub(
            r"\x1b\[[\d;]*m", "", listed
        )
        assert "is valid" in harness.lab.inside(host, "gitlab-runner verify 2>&1")
        (mine,) = [one for one in known.values() if f"for {host}:" in one["maintenance_note"]]
        assert (mine["tag_list"], mine["run_untagged"], mine["paused"]) == (["docker"], False, False)


@pytest.mark.parametrize("host", RUNNERS)
@converged
def test_runner_hosts_are_as_wanted(harness: Harness, host: str) -> None:
    """Packages, services, group, CA and daemon.json, checked by testinfra."""
    there = harness.host(host)
    for name in ("docker-ce", "containerd.io", "gitlab-runner", "gitlab-runner-helper-images"):
        assert there.package(name).is_installed
    assert there.package("gitlab-runner").version == there.package("gitlab-runner-helper-images").version
    for name in ("docker", "gitlab-runner"):
        assert there.service(name).is_running
        assert there.service(name).is_enabled
    assert "docker" in there.user("ubuntu").groups
    assert there.file(f"/etc/docker/certs.d/{REGISTRY}/ca.crt").content == harness.lab.ca.read_bytes()
    daemon = json.loads(there.file("/etc/docker/daemon.json").content_string)
    assert daemon == harness.inventory["docker"]["daemon"]
    assert there.check_output("docker info -f '{{.LoggingDriver}}'") == "json-file"


@converged
def test_the_firewall_allows_ssh_and_the_registry(harness: Harness) -> None:
    """ufw is enabled, 5555 and 22 are open, another port is not; a new SSH login works."""
    status = harness.host("gitlab").check_output("ufw status")
    assert status.startswith("Status: active")
    for port in ("22/tcp", "5555/tcp", "80/tcp", "443/tcp"):
        assert re.search(rf"^{port} +ALLOW +Anywhere", status, re.MULTILINE), status
    assert harness.lab.ssh("gitlab", "true").returncode == 0
    harness.lab.inside("gitlab", "systemd-run -q --unit=listener busybox httpd -f -p 8099")
    probe = "timeout 2 bash -c 'exec 3<>/dev/tcp/gitlab.lab.test/%d'"
    assert harness.lab.ssh("runner-1", probe % 5555).returncode == 0
    assert harness.lab.ssh("runner-1", probe % 8099).returncode != 0
    harness.lab.inside("gitlab", "systemctl stop listener")


@converged
def test_what_is_secret_is_roots_alone(harness: Harness) -> None:
    """Others cannot read gitlab.rb, config.toml and our folder."""
    gitlab, runner = harness.host("gitlab"), harness.host("runner-1")
    assert (gitlab.file("/etc/gitlab/gitlab.rb").mode, gitlab.file("/etc/gitlab/gitlab.rb").user) == (0o600, "root")
    assert (runner.file("/etc/gitlab-runner/config.toml").mode, runner.file("/etc/gitlab-runner").mode) == (
        0o600,
        0o700,
    )
    for host in HOSTS:
        there = harness.host(host)
        assert there.file("/var/lib/provision").mode == 0o700
        assert there.file("/var/lib/provision/state.json").mode == 0o600


@converged
def test_apts_keys_and_sources_can_be_read_by_apt(harness: Harness) -> None:
    """apt's own user can read the keys; otherwise apt would skip the repository without an error."""
    for host in RUNNERS:
        modes = harness.lab.inside(host, "stat -c '%a %U %n' /etc/apt/keyrings/*.asc /etc/apt/sources.list.d/*.sources")
        assert {line.split()[0] for line in modes.splitlines()} == {"644"}, modes


@pytest.mark.parametrize("host", HOSTS)
@converged
def test_nothing_of_ours_stays_elsewhere(harness: Harness, host: str) -> None:
    """No file of ours outside /var/lib/provision, no process, no image, no pending handler."""
    assert strays(harness, host) == []
    if host in RUNNERS:
        assert harness.lab.inside(host, "docker images -qa; docker ps -qa") == ""
