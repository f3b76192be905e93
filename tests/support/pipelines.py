"""Runs a pipeline as gitlab-runner does: jobs by stage, whole scripts, the variables that GitLab sets.

The lab has no privileged containers. Jobs of a `docker:…-cli` image run in the host's own shell with its Docker; jobs
of other images run in a container of that image, with the volumes, hosts and security options of `[runners.docker]`.
"""

from __future__ import annotations

import base64
import re
import shlex
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import yaml

from provision_lab.harness import Harness
from tests.support.gitlab import Server

BUILDS = "/builds/project"
_CONFIG = "/dev/shm/job-docker"


@dataclass(frozen=True)
class Job:
    """A job that has run."""

    name: str
    code: int
    log: str


@dataclass
class Pipeline:
    """A `.gitlab-ci.yml` on a host, with a checkout in /builds/project.

    variables  predefined and the project's
    docker     the runner's [runners.docker]
    """

    harness: Harness
    host: str
    text: str
    variables: Mapping[str, str]
    docker: Mapping[str, Any] = field(default_factory=dict)
    jobs: list[Job] = field(default_factory=list)

    def run(self) -> Pipeline:
        """Runs stage by stage, up to a stage with a failed job."""
        tree = yaml.safe_load(self.text)
        for stage in tree["stages"]:
            for name, job in tree.items():
                if isinstance(job, dict) and job.get("stage") == stage and self._matches(job):
                    self.jobs.append(self._run(name, {**tree.get("default", {}), **job}, tree.get("variables", {})))
            if any(one.code for one in self.jobs):
                break
        return self

    @property
    def codes(self) -> dict[str, int]:
        """Exit codes by job, in order."""
        return {one.name: one.code for one in self.jobs}

    @property
    def logs(self) -> str:
        """The logs of all jobs."""
        return "\n".join(f"== {one.name}: {one.code}\n{one.log}" for one in self.jobs)

    def _matches(self, job: Mapping[str, Any]) -> bool:
        """Whether one of the job's rules matches. The shipped templates only use `$A == $B`."""
        rules = [re.fullmatch(r"\$(\w+) == \$(\w+)", one["if"]) for one in job.get("rules", ())]
        assert None not in rules
        return not rules or any(one and self.variables[one[1]] == self.variables[one[2]] for one in rules)

    def _run(self, name: str, job: Mapping[str, Any], shared: Mapping[str, str]) -> Job:
        # A project's variables override those of the file, which may refer to them.
        values = expanded({**shared, **job.get("variables", {}), **self.variables})
        lines = [*job.get("before_script", ()), *job["script"]]
        exports = "".join(f"export {key}={shlex.quote(value)}\n" for key, value in values.items())
        script = f"{exports}set -eu\ncd {BUILDS}\n" + "\n".join(lines) + "\n"
        run = "env -u DOCKER_HOST sh -s"
        if re.fullmatch(r"docker:[\d.]+-cli", job["image"]):
            # The client uses the host's socket; DOCKER_HOST names the service of a real pipeline.
            script = f"export DOCKER_CONFIG={_CONFIG} DOCKER_BUILDKIT=1\n{script}"
        else:
            volumes = (f"{BUILDS}:{BUILDS}", *(one for one in self.docker.get("volumes", ()) if ":" in one))
            options = [f"-v {one}" for one in volumes]
            options += [f"--add-host {one}" for one in self.docker.get("extra_hosts", ())]
            options += [f"--security-opt {one}" for one in self.docker.get("security_opt", ())]
            run = f"docker run --rm -i {' '.join(options)} {job['image']} sh -s"
        done = self._shell(f"{run} 2>&1", script)
        self._shell(f"rm -rf {_CONFIG}", "")
        return Job(name, done.returncode, done.stdout)

    def _shell(self, command: str, stdin: str) -> subprocess.CompletedProcess[str]:
        leader = str(self.harness.lab.machine(self.host).leader)
        argv = ["nsenter", "-t", leader, "-a", "sh", "-c", command]
        return subprocess.run(
            argv,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            env={"PATH": _PATH, "HOME": "/root"},
        )


_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def expanded(values: Mapping[str, str]) -> dict[str, str]:
    """The variables with references to other variables replaced."""

    def fill(text: str, depth: int = 0) -> str:
        assert depth < 9, text
        return re.sub(
            r"\$(\w+)", lambda found: fill(str(values[found[1]]), depth + 1) if found[1] in values else found[0], text
        )

    return {name: fill(str(value)) for name, value in values.items()}


def committed(server: Server, project: str) -> str:
    """The pipeline in the project's repository."""
    found = server.ask("GET", f"/projects/{quote(project, safe='')}/repository/files/.gitlab-ci.yml?ref=main")
    return base64.b64decode(found["content"]).decode()


def checkout(harness: Harness, host: str, files: dict[str, str]) -> None:
    """Writes the project's files on the host."""
    harness.lab.inside(host, f"rm -rf {BUILDS} && mkdir -p {BUILDS}")
    for name, text in files.items():
        harness.lab.inside(host, f"cat > {BUILDS}/{name}", stdin=text)


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
