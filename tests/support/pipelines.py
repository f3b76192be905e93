"""Pipelines of the lab's GitLab, which its runner runs in containers: a commit, and what became of it."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from provision_lab.harness import Harness
from tests.support.gitlab import Server
from tests.support.waiting import wait_for

CLI = "docker:28.5.2-cli"
_DONE = ("success", "failed", "canceled", "skipped")
_SECONDS = 480  # a module may build, test and release while hosts of other tests boot


@dataclass(frozen=True)
class Pipeline:
    """A pipeline that has ended: its jobs' states in the order of the file, and their logs."""

    sha: str
    status: str
    jobs: dict[str, str]
    logs: dict[str, str]

    @property
    def log(self) -> str:
        """All logs."""
        return "\n".join(f"== {name}: {self.jobs[name]}\n{text}" for name, text in self.logs.items())


def commit(server: Server, project: str, files: Mapping[str, str], branch: str = "main") -> None:
    """Commits files by the API, to a new branch if it is not main; only the last one makes a pipeline."""
    place = f"/projects/{quote(project, safe='')}/repository"
    known = {one["path"] for one in server.ask("GET", f"{place}/tree")}
    for number, (name, text) in enumerate(files.items(), 1):
        skip = "" if number == len(files) else " [skip ci]"
        sent = {"branch": branch, "commit_message": f"write {name}{skip}", "content": text}
        if number == 1 and branch != "main":
            sent["start_branch"] = "main"
        server.ask("PUT" if name in known else "POST", f"{place}/files/{quote(name, safe='')}", **sent)


def run(harness: Harness, server: Server, project: str, files: Mapping[str, str], branch: str = "main") -> Pipeline:
    """Commits files, and waits for the end of the pipeline that this makes."""
    commit(server, project, files, branch)
    return ended(harness, server, project, branch)


def ended(harness: Harness, server: Server, project: str, branch: str = "main") -> Pipeline:
    """The newest pipeline of a branch, when it has ended."""
    place = f"/projects/{quote(project, safe='')}/pipelines"
    newest: dict[str, Any] = {}

    def done() -> bool:
        newest.update(server.ask("GET", f"{place}/latest?ref={branch}"))
        return newest["status"] in _DONE

    wait_for(done, f"the pipeline of {project} ends", _SECONDS)
    found = list(reversed(server.ask("GET", f"{place}/{newest['id']}/jobs?per_page=100")))
    logs = {one["name"]: log_of(harness, one["id"]) for one in found if one["started_at"]}
    return Pipeline(newest["sha"], newest["status"], {one["name"]: one["status"] for one in found}, logs)


def log_of(harness: Harness, job: int) -> str:
    """A job's log without times, marks and colours."""
    text = harness.lab.inside("gitlab", f"cat /var/opt/gitlab/gitlab-ci/builds/{job}.log")
    text = re.sub(r"(?m)^\S+Z [0-9a-f]{2}[OE][ +]", "", text)
    return re.sub(r"\x1b\[[0-9;]*[mK]|section_\w+:\d+:\w+\r", "", text)


def tokens(harness: Harness) -> list[str]:
    """The tokens that jobs had."""
    jobs = json.loads(harness.lab.inside("gitlab", "cat /var/opt/gitlab/standin/db.json"))["jobs"]
    return [one["token"] for one in jobs if one["token"]]


def committed(server: Server, project: str) -> str:
    """The pipeline in the project's repository."""
    found = server.ask("GET", f"/projects/{quote(project, safe='')}/repository/files/.gitlab-ci.yml?ref=main")
    return base64.b64decode(found["content"]).decode()


def tags(server: Server, project: str, image: str) -> dict[str, str]:
    """The tags of an image in the registry, with their digests."""
    registry = f"/projects/{quote(project, safe='')}/registry/repositories"
    repositories = server.ask("GET", f"{registry}?tags=true")
    (found,) = [one for one in repositories if one["path"] == image]
    place = f"{registry}/{found['id']}/tags"
    return {one["name"]: server.ask("GET", f"{place}/{one['name']}")["digest"] for one in found["tags"]}


def push_base(harness: Harness, host: str, name: str) -> None:
    """Pushes a small image with a shell to its registry, and removes it from the host."""
    registry = name.partition("/")[0]
    login = f"docker login -u root --password-stdin {registry} && docker push -q {name} && docker logout {registry}"
    layer = "mkdir -p /tmp/base/bin && cp /bin/busybox /tmp/base/bin/ && for one in sh grep test cat; do ln -s busybox /tmp/base/bin/$one; done"
    harness.lab.inside(host, f"{layer} && tar -C /tmp/base -c . | docker import - {name} && rm -r /tmp/base")
    harness.lab.inside(host, login, stdin=harness.lab.secret("registry_password"))
    harness.lab.inside(host, f"docker image rm -f {name}")
