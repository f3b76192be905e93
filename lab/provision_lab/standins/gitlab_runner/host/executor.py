"""The docker executor: services, volumes and containers of one job, with the host's Docker.

Sources: gitlab-runner's executors/docker (docker.go, services.go, volumes, networks, pull), shells/bash.go and abstract.go.
There is no helper image: git runs on the host, in the network of a container, with its names and addresses.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import secrets
import selectors
import shlex
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from .shell import DETECT, expand, script_of, shown
from .trace import GREEN, RESET, YELLOW, Stream, Trace

Table = dict[str, Any]
_GIT: Final = "/usr/lib/gitlab-runner/git"  # of the helper package; without it, the host's git
_SERVICE_WAIT: Final = 30.0
_FLAGS: Final = {  # keys of [runners.docker] and the options of docker that they are
    "cap_add": "--cap-add",
    "cap_drop": "--cap-drop",
    "security_opt": "--security-opt",
    "extra_hosts": "--add-host",
    "dns": "--dns",
    "dns_search": "--dns-search",
    "devices": "--device",
    "group_add": "--group-add",
    "links": "--link",
    "volumes_from": "--volumes-from",
    "memory": "--memory",
    "memory_swap": "--memory-swap",
    "memory_reservation": "--memory-reservation",
    "cpus": "--cpus",
    "cpuset_cpus": "--cpuset-cpus",
    "shm_size": "--shm-size",
    "userns_mode": "--userns",
    "runtime": "--runtime",
    "ipc_mode": "--ipc",
}
_SERVICE_FLAGS: Final = ("extra_hosts", "dns", "dns_search", "userns_mode", "runtime", "shm_size")


class Failure(Exception):
    """Why a job has failed; `reason` is a failure_reason of GitLab, `code` the script's exit code."""

    def __init__(self, text: str, reason: str, code: int | None = None) -> None:
        super().__init__(text)
        self.reason, self.code = reason, code


class SystemFailure(Failure):
    """The job could not be prepared, which is tried again."""

    def __init__(self, text: str) -> None:
        super().__init__(text, "runner_system_failure")


class Executor:
    """The containers of one job.

    job     what POST jobs/request has answered
    values  the job's variables, expanded
    name    `runner-SHORT-project-ID-concurrent-N`
    """

    def __init__(self, entry: Table, job: Table, values: Mapping[str, Table], name: str, trace: Trace) -> None:
        self.entry, self.docker, self.job, self.values, self.trace = entry, entry.get("docker", {}), job, values, trace
        self.name, self.unique = name, f"{name}-{secrets.token_hex(8)}"
        self.directory = values["CI_PROJECT_DIR"]["value"]
        self.stopped: Callable[[], str] = lambda: ""  # why the current step must end
        self._made: list[str] = []
        self._temporary: list[str] = []
        self._binds: list[str] = []
        self._links: list[str] = []
        self._network = self.docker.get("network_mode", "")
        self._own_network = ""
        self._config = tempfile.TemporaryDirectory(prefix="runner-docker-")
        self._image: Table = {}
        self._build = ""

    # Preparing: volumes, network, services, image.

    def prepare(self) -> None:
        """Everything before the first script. Raises Failure."""
        if not self.docker:
            raise Failure("missing docker configuration", "runner_system_failure")
        image = self.job.get("image") or {}
        name = self.expand(str(image.get("name") or self.docker.get("image", "")))
        self.trace.print(f"Using Docker executor with image {name} ...")
        self._write_logins()
        self._create_volumes()
        if not self._network and self._flag("FF_NETWORK_PER_BUILD"):
            self._own_network = self._network = f"{self.unique}-network"
            self._run("network", "create", *self._labels(), self._network)
        self._start_services()
        self._image = {**image, "name": self._pull(name, image.get("pull_policy"))}
        self._start("predefined", self._image["name"], ["-i", "--entrypoint", "sh"], [])

    def _write_logins(self) -> None:
        """The logins of root, of the job and of DOCKER_AUTH_CONFIG: the last one wins, the job's does not replace root's."""
        own = Path.home() / ".docker/config.json"
        data: Table = json.loads(own.read_text()) if own.exists() else {}
        auths = {
            one["url"]: {"auth": base64.b64encode(f"{one['username']}:{one['password']}".encode()).decode()}
            for one in self.job.get("credentials", ())
            if one["type"] == "registry"
        }
        auths |= data.get("auths", {})
        if given := self.values.get("DOCKER_AUTH_CONFIG"):
            auths |= json.loads(given["value"]).get("auths", {})
        path = Path(self._config.name) / "config.json"
        path.touch(0o600)
        path.write_text(json.dumps({**data, "auths": auths}))

    def _create_volumes(self) -> None:
        for one in self.docker.get("volumes", []):
            if ":" in one:
                self._binds.append(one)
            elif not self.docker.get("disable_cache"):
                self._add_volume(one, self.name)
            else:
                self._temporary.append(self._add_volume(one, self.unique))
        if not any(one.split(":")[1] == "/builds" for one in self._binds):
            self._add_volume("/builds", self.name)

    def _add_volume(self, where: str, owner: str) -> str:
        protected = self.values.get("CI_COMMIT_REF_PROTECTED", {}).get("value") == "true"
        name = f"{owner}-cache-{hashlib.md5(where.encode()).hexdigest()}{'-protected' * protected}"
        self._run("volume", "create", *self._labels(type="cache", destination=where), name)
        self._binds.append(f"{name}:{where}")
        return name

    def _start_services(self) -> None:
        wanted = [*self.docker.get("services", []), *(self.job.get("services") or [])]
        started: dict[str, str] = {}
        for number, service in enumerate(wanted):
            full = self.expand(service["name"])
            base, version, aliases = split_service(full)
            aliases += [one for one in re.split(r"[ ,]+", service.get("alias") or "") if one]
            self.trace.print(f"Starting service {base}:{version}...")
            image = self._pull(full, service.get("pull_policy"))
            own = {**self._public(), **{one["key"]: one["value"] for one in service.get("variables") or ()}}
            options = [*self._options(_SERVICE_FLAGS), *self._privileged("services_privileged")]
            options += [f"--security-opt={one}" for one in self.docker.get("services_security_opt", [])]
            options += [f"--network-alias={one}" for one in aliases] if self._own_network else []
            entrypoint = service.get("entrypoint") or []
            options += [f"--entrypoint={entrypoint[0]}"] if entrypoint else []
            command = [*entrypoint[1:], *(service.get("command") or [])]
            name = self._start(f"{base.replace('/', '__')}-{number}", image, options, command, own)
            started[name] = base
            if not self._own_network:
                address = self._ask("inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", name)
                self._links += [f"{alias}:{address}" for alias in aliases]
        if started:
            self._wait_for_services(started)

    def _wait_for_services(self, started: Mapping[str, str]) -> None:
        seconds = self.docker.get("wait_for_services_timeout", 0) or _SERVICE_WAIT
        if seconds < 0:
            return
        self.trace.print(f"Waiting for services to be up and running (timeout {seconds:.0f} seconds)...")
        end = time.monotonic() + seconds
        for name in started:
            shown = json.loads(self._ask("inspect", name))[0]
            addresses = [one["IPAddress"] for one in shown["NetworkSettings"]["Networks"].values()]
            ports = sorted(int(one.split("/")[0]) for one in shown["Config"].get("ExposedPorts") or {} if "/tcp" in one)
            if not ports or not _answers(addresses[0], ports[0], end):
                why = f'service "{name}-wait-for-service" timeout' if ports else f"service {name} has no exposed ports"
                log = self._run("logs", "--tail", "100", name, check=False).stdout.decode(errors="replace")
                text = f"*** WARNING: Service {name} probably didn't start properly.\n\nHealth check error:\n{why}\n\n"
                self.trace.print(f"\n{text}Service container logs:\n{log}\n*********\n", YELLOW)

    def _pull(self, image: str, policies: list[str] | None) -> str:
        """Makes sure that the image is there. The policies are tried in turn; `always` is the default."""
        configured = self.docker.get("pull_policy") or ["always"]
        chosen = policies or ([configured] if isinstance(configured, str) else configured)
        allowed = self.docker.get("allowed_pull_policies") or configured
        if policies and not set(policies) <= {allowed, *allowed}:
            text = f'invalid pull policy for image "{image}": pull_policy ({policies}) defined in GitLab pipeline config is '
            raise Failure(f"{text}not one of the allowed_pull_policies ({allowed})", "runner_system_failure")
        self.trace.print(f"Using effective pull policy of [{' '.join(chosen)}] for container {image}")
        error = ""
        for attempt, policy in enumerate(chosen, 1):
            if attempt > 1:
                self.trace.print(f'Attempt #{attempt}: Trying "{policy}" pull policy', GREEN)
            present = self._run("image", "inspect", image, check=False).returncode == 0
            if policy == "never" or (policy == "if-not-present" and present):
                if present:
                    self._report_image(image)
                    return image
                error = f"Error response from daemon: No such image: {image}"
            else:
                self.trace.print(f"Pulling docker image {image} ...")
                done = self._run("pull", "--quiet", image, check=False)
                if done.returncode == 0:
                    self._report_image(image)
                    return image
                error = done.stderr.decode(errors="replace").strip()
            self.trace.print(f'WARNING: Failed to pull image with policy "{policy}": {error}', YELLOW)
        text = f'failed to pull image "{image}" with specified policies [{" ".join(chosen)}]: {error}'
        raise Failure(text, pull_failure(error))

    def _report_image(self, image: str) -> None:
        found = self._ask("image", "inspect", "-f", "{{.Id}} {{range .RepoDigests}}{{.}} {{end}}", image).split()
        digest = f" with digest {found[1]}" if len(found) > 1 else ""
        self.trace.print(f"Using docker image {found[0]} for {image}{digest} ...")

    # Containers.

    def _start(
        self, role: str, image: str, options: list[str], command: list[str], own: Mapping[str, str] | None = None
    ) -> str:
        """Starts a container in the background."""
        name = self._create(role, image, options, command, own)
        done = self._run("start", name, check=False)
        if done.returncode:
            raise SystemFailure(done.stderr.decode(errors="replace").strip())
        return name

    def _create(
        self, role: str, image: str, options: list[str], command: list[str], own: Mapping[str, str] | None
    ) -> str:
        name = f"{self.unique}-{role}"
        if own is None:  # a container of the job itself
            options = [*self._options(tuple(_FLAGS)), *self._privileged("privileged"), *options]
            options += [f"--add-host={one}" for one in self._links]
            options += [f"--tmpfs={path}:{more}" for path, more in self.docker.get("tmpfs", {}).items()]
            own = {one["key"]: one["value"] for one in self.values.values() if not one["file"]}
        options += [f"--network={self._network}"] if self._network else []
        options += [f"--volume={one}" for one in self._binds]
        options += self._labels(type=role if role in ("build", "predefined") else "service")
        # The values are in the environment of docker, not among its arguments.
        names = [f"--env={key}" for key in own]
        self._made.append(name)
        done = self._run("create", "--name", name, *options, *names, image, *command, check=False, own=own)
        if done.returncode:
            raise SystemFailure(done.stderr.decode(errors="replace").strip())
        return name

    def _labels(self, **more: str) -> list[str]:
        """The labels by which others know what belongs to a job. Source: executors/docker/internal/labels."""
        job, info, git = self.job, self.job["job_info"], self.job["git_info"]
        found = {"managed": "true", "job.id": job["id"], "job.sha": git["sha"], "job.ref": git["ref"], **more}
        found |= {"project.id": info["project_id"], "pipeline.id": info.get("pipeline_id", "")}
        return [f"--label=com.gitlab.gitlab-runner.{key}={value}" for key, value in found.items()]

    def _options(self, keys: Iterable[str]) -> list[str]:
        found = [(_FLAGS[key], self.docker[key]) for key in keys if self.docker.get(key)]
        lists = [(flag, value if isinstance(value, list) else [value]) for flag, value in found]
        return [f"{flag}={one}" for flag, values in lists for one in values]

    def _privileged(self, key: str) -> list[str]:
        given = self.docker.get(key)
        return ["--privileged"] if (self.docker.get("privileged") if given is None else given) else []

    # Scripts.

    def get_sources(self) -> None:
        """The commit in CI_PROJECT_DIR, by git on the host, in the network of the job. Raises Failure."""
        git, depth, strategy = self.job["git_info"], self.job["git_info"]["depth"], self._value("GIT_STRATEGY", "fetch")
        place = self._on_host(self.directory)
        if strategy in ("none", "empty"):
            self._say("Skipping Git repository setup")
            place.mkdir(parents=True, exist_ok=True)
            return
        scheme, _, rest = git["repo_url"].partition("://")
        url = f"{scheme}://{rest.partition('@')[2] or rest}"
        fetching = f"Fetching changes with git depth set to {depth}..." if depth else "Fetching changes..."
        place.mkdir(parents=True, exist_ok=True)
        shallow = [f"--depth={depth}"] if depth else []
        fetch = ["fetch", "origin", "--no-recurse-submodules", "--prune", "--quiet", *shallow, *git["refspecs"]]
        checkout = f"Checking out {git['sha'][:8]} as detached HEAD (ref is {git['ref']})..."
        self._git(
            place,
            shown(fetching),
            shlex.join(["git", "init", "--quiet", "."]),
            "rm -f .git/index.lock",
            f"if git remote add origin {shlex.quote(url)} 2>/dev/null; then {shown('Created fresh repository.')}; "
            f"else git remote set-url origin {shlex.quote(url)}; fi",
            shlex.join(["git", *fetch]),
            shown(checkout),
            shlex.join(["git", "checkout", "-f", "-q", git["sha"]]),
            "git clean -ffdxq",
            shown("Skipping Git submodules setup"),
        )

    def _say(self, text: str) -> None:
        self.trace.line("01O", f"{GREEN}{text}{RESET}\n".encode())

    def _git(self, place: Path, *lines: str) -> None:
        """Runs commands on this host in that folder, in the network of the job and with its names."""
        found = self._ask(
            "inspect", "-f", "{{.State.Pid}} {{.HostsPath}} {{.ResolvConfPath}}", f"{self.unique}-predefined"
        )
        pid, hosts, resolver = found.split()
        mounts = f"mount --bind {hosts} /etc/hosts\nmount --bind {resolver} /etc/resolv.conf"
        script = "\n".join(("set -e", "umask 0", mounts, f"cd {shlex.quote(str(place))}", *lines))
        helper = '!f() { test "$1" = get && printf "username=gitlab-ci-token\\npassword=%s\\n" "$CI_JOB_TOKEN"; }; f'
        settings = {
            "credential.helper": helper,
            "safe.directory": "*",
            "init.defaultBranch": "main",
            "advice.detachedHead": "false",
        }
        if authority := self._authority():
            settings["http.sslCAInfo"] = authority
        fixed = {
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "HOME": "/nonexistent",
        }
        # Without a name, git asks the name server for that of the host, which has none in the job's network.
        who = {f"GIT_{role}_{part}": "gitlab-runner" for role in ("AUTHOR", "COMMITTER") for part in ("NAME", "EMAIL")}
        fixed |= {**who, "LC_ALL": "C.UTF-8"}
        env = {**fixed, "PATH": os.environ["PATH"], "CI_JOB_TOKEN": self.job["token"]}
        if Path(_GIT).exists():
            env |= {"PATH": f"{_GIT}:{env['PATH']}", "GIT_EXEC_PATH": _GIT, "LD_LIBRARY_PATH": _GIT}
        env["GIT_CONFIG_COUNT"] = str(len(settings))
        for number, (key, value) in enumerate(settings.items()):
            env |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
        command = ["nsenter", "--net", "--target", pid, "unshare", "--mount", "sh"]
        code = self._follow(command, script.encode(), env)
        if code:
            raise Failure(f"exit code {code}", "script_failure", code)

    def _authority(self) -> str:
        """What the runner itself trusts this server by, besides the system's authorities."""
        server = self.trace.server
        named = Path(server.certs) / f"{server.url.partition('://')[2].partition('/')[0].split(':')[0]}.crt"
        return server.ca_file or (str(named) if named.exists() else "")

    def _on_host(self, path: str) -> Path:
        """Where a path in the job's containers is on this host."""
        for bind in sorted(self._binds, key=lambda one: -len(one.split(":")[1])):
            source, target = bind.split(":")[:2]
            if path == target or path.startswith(f"{target.rstrip('/')}/"):
                base = (
                    source
                    if source.startswith("/")
                    else self._ask("volume", "inspect", "-f", "{{.Mountpoint}}", source)
                )
                return Path(base) / path[len(target) :].lstrip("/")
        raise Failure(f"{path} is in no volume", "runner_system_failure")

    def run(self, lines: list[str], *, check: bool = True) -> None:
        """Runs a script in the build container. Raises Failure for an exit code other than 0."""
        if not self._build:
            entrypoint = self._image.get("entrypoint")
            options = ["-i"] + ([f"--entrypoint={entrypoint[0]}"] if entrypoint else [])
            command = [*(entrypoint[1:] if entrypoint else []), "sh", "-c", DETECT]
            if user := self.docker.get("user"):
                options.append(f"--user={user}")
            self._build = self._create("build", self._image["name"], options, command, None)
        code = self._follow(
            self._docker("start", "-a", "-i", self._build), script_of(self.directory, self.values, lines).encode(), None
        )
        if code and check:
            raise Failure(f"exit code {code}", "script_failure", code)

    def _follow(self, command: list[str], stdin: bytes, env: Mapping[str, str] | None) -> int:
        """Runs a command with its output in the log; its exit code. Ends it when the job must stop. Raises Failure."""
        output, errors = Stream(self.trace, "01O"), Stream(self.trace, "01E")
        child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=env or self._environment(),
            start_new_session=True,
        )

        def feed() -> None:
            try:
                assert child.stdin is not None
                child.stdin.write(stdin)
                child.stdin.close()
            except BrokenPipeError:
                return  # the shell has ended before it read everything

        threading.Thread(target=feed, daemon=True).start()
        stop = ""
        with selectors.DefaultSelector() as selector:
            for pipe, stream in ((child.stdout, output), (child.stderr, errors)):
                assert pipe is not None
                os.set_blocking(pipe.fileno(), False)
                selector.register(pipe, selectors.EVENT_READ, stream)
            while selector.get_map():
                for key, _ in selector.select(0.2):
                    data = os.read(key.fd, 65536)
                    if data:
                        key.data.write(data)
                    else:
                        selector.unregister(key.fileobj)
                if not stop and (stop := self.stopped()):
                    self._stop_build()
                    os.killpg(child.pid, signal.SIGTERM)  # the shell's git too; nobody has waited for the child yet
        output.close()
        errors.close()
        code = child.wait()
        if stop or (code and (stop := self.stopped())):
            raise Failure(stop, "stopped")
        return code

    def _stop_build(self) -> None:
        if self._build:
            self._run("stop", "--time", "5", self._build, check=False)

    def clean_up(self) -> None:
        """Removes the containers, the network and what is not kept between jobs."""
        if self._made:
            self._run("rm", "-f", "-v", *self._made, check=False)
        if self._temporary:
            self._run("volume", "rm", "-f", *self._temporary, check=False)
        if self._own_network:
            self._run("network", "rm", self._own_network, check=False)
        self._made, self._temporary = [], []
        self._config.cleanup()

    # The client.

    def expand(self, text: str) -> str:
        """A text with the job's variables in it."""
        return expand(text, {name: one["value"] for name, one in self.values.items()})

    def _value(self, name: str, default: str) -> str:
        return str(self.values[name]["value"]) if name in self.values else default

    def _flag(self, name: str) -> bool:
        given = self.entry.get("feature_flags", {}).get(name)
        return self._value(name, str(given or "")).lower() in ("1", "true")

    def _public(self) -> dict[str, str]:
        return {one["key"]: one["value"] for one in self.values.values() if one["public"] and not one["file"]}

    def _docker(self, *arguments: str) -> list[str]:
        host = ["--host", self.docker["host"]] if self.docker.get("host") else []
        return ["docker", "--config", self._config.name, *host, *arguments]

    def _environment(self) -> dict[str, str]:
        return {"PATH": os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"), "HOME": str(Path.home())}

    def _run(
        self, *arguments: str, check: bool = True, own: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        command = self._docker(*arguments)
        env = {**(own or {}), **self._environment()}
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, env=env, check=False)
        except FileNotFoundError:
            raise SystemFailure("Cannot connect to the Docker daemon: there is no docker on this host") from None
        if check and done.returncode:
            raise SystemFailure(done.stderr.decode(errors="replace").strip())
        return done

    def _ask(self, *arguments: str) -> str:
        return self._run(*arguments).stdout.decode().strip()


def _answers(address: str, port: int, end: float) -> bool:
    while time.monotonic() < end:
        try:
            with socket.create_connection((address, port), timeout=1):
                return True
        except OSError:
            time.sleep(0.2)
    return False


def split_service(name: str) -> tuple[str, str, list[str]]:
    """A service's image without registry port and version, the version, and its aliases. Source: SplitNameAndVersion."""
    image, _, digest = name.partition("@")
    head, colon, tail = image.rpartition(":")
    base, version = (head, tail) if colon and "/" not in tail else (image, "latest")
    service = re.sub(r"^([^/:]+):\d+", r"\1", base)
    first, second = service.replace("/", "__"), service.replace("/", "-")
    return service, f"@{digest}" if digest else version, list(dict.fromkeys([first, second]))


def pull_failure(error: str) -> str:
    """The failure_reason of a refused pull, in those that GitLab knows. Source: ClassifyImagePullFailure."""
    text = error.lower()
    known = ("not found", "manifest unknown", "pull access denied", "access to the resource is denied", "unauthorized")
    return "configuration_error" if any(one in text for one in known) else "image_pull_failure"
