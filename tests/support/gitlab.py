"""The lab's GitLab for tests of runners: set up quickly, read and changed as an administrator does."""

from __future__ import annotations

import json
import re
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from provision_lab import LabHost
from provision_lab.harness import Harness
from provision_lab.hosts import Preparation
from tests.support.waiting import wait_for

URL = "https://gitlab.lab.test"
CONFIG = "/etc/gitlab-runner/config.toml"
_SWITCHES = "/etc/gitlab-standin"
_LOG = "/var/log/gitlab/nginx/access.log"
_REQUEST = re.compile(r'"(?P<method>[A-Z]+) (?P<path>\S+) HTTP/[\d.]+" (?P<status>\d+)')
Record = dict[str, Any]


def estate(harness_factory: Callable[..., Harness], *hosts: str, prepared: Preparation = "runner") -> Harness:
    """A GitLab, and hosts with gitlab-runner, or bare ones (`prepared` = ""). The inventory has no runners, but GitLab's CA."""
    server = LabHost("gitlab", prepared="server")
    harness = harness_factory(server, *(LabHost(name, prepared=prepared) for name in hosts))
    registry = harness.inventory.pop("registry")
    del harness.inventory["runners"]
    harness.inventory["registry"] = {name: registry[name] for name in ("external_url", "certificate")}
    return harness


class Server:
    """The lab's GitLab."""

    def __init__(self, harness: Harness) -> None:
        self._lab = harness.lab

    @property
    def runners(self) -> list[Record]:
        """All runners, oldest first, with their tokens and managers."""
        database = json.loads(self._lab.inside("gitlab", "cat /var/opt/gitlab/standin/db.json"))
        return sorted(database["runners"], key=lambda one: int(one["id"]))

    def runner(self, description: str) -> Record:
        """The only runner with that description."""
        (found,) = [one for one in self.runners if one["description"] == description]
        return found

    def ask(self, method: str, path: str, **data: Any) -> Any:
        """Sends an administrator's request to the API, without nginx and its log; the answer's JSON."""
        script = 'curl -sS -f -X "$0" -K - -H "Content-Type: application/json" --data-binary "$2" "http://127.0.0.1:8080/api/v4$1"'
        argv = f"sh -c {quoted(script)} {method} {quoted(path)} {quoted(json.dumps(data))}"
        message = self._lab.inside("gitlab", argv, stdin=f'header = "PRIVATE-TOKEN: {self._lab.secret("api_token")}"\n')
        return json.loads(message) if message.strip() else None

    def make(self, description: str, **fields: Any) -> str:
        """Creates a runner as in the UI; its token."""
        made = self.ask("POST", "/user/runners", runner_type="instance_type", description=description, **fields)
        return str(made["token"])

    def delete(self, description: str) -> None:
        """Deletes a runner as in the UI."""
        self.ask("DELETE", f"/runners/{self.runner(description)['id']}")

    @contextmanager
    def faults(self, *faults: Mapping[str, Any]) -> Iterator[None]:
        """Makes the API give these wrong answers while the block runs."""
        self._lab.inside("gitlab", f"cat > {_SWITCHES}/api-faults.json", stdin=json.dumps(faults))
        try:
            yield
        finally:
            self._lab.inside("gitlab", f"rm -f {_SWITCHES}/api-faults.json")

    @contextmanager
    def down(self) -> Iterator[None]:
        """Stops nginx while the block runs."""
        self._lab.inside("gitlab", "systemctl stop gitlab-nginx")
        try:
            yield
        finally:
            self._lab.inside("gitlab", "systemctl start gitlab-nginx")

    @contextmanager
    def settings(self, **settings: Any) -> Iterator[None]:
        """Sets switches of the stand-in while the block runs."""
        self._lab.inside("gitlab", f"cat > {_SWITCHES}/settings.json", stdin=json.dumps(settings))
        try:
            yield
        finally:
            self._lab.inside("gitlab", f"rm -f {_SWITCHES}/settings.json")

    @contextmanager
    def counted(self) -> Iterator[Counter[str]]:
        """The requests to the API while the block runs, by `METHOD /path`, without those of runners about jobs."""
        seen: Counter[str] = Counter()
        before = int(self._lab.inside("gitlab", f"wc -l < {_LOG}"))
        yield seen
        for line in self._lab.inside("gitlab", f"tail -n +{before + 1} {_LOG}").splitlines():
            found = _REQUEST.search(line)
            if found and not found["path"].startswith("/api/v4/jobs/") and ".git/" not in found["path"]:
                seen[f"{found['method']} {found['path'].partition('?')[0].removeprefix('/api/v4')}"] += 1


@contextmanager
def rails_boots(harness: Harness, seconds: float, host: str = "gitlab") -> Iterator[None]:
    """Rails needs that long at each start of Puma within the block: until then everything behind Workhorse is 502."""
    switch = f"{_SWITCHES}/rails-boot-seconds"
    harness.lab.inside(host, f"mkdir -p {_SWITCHES}; echo {seconds} > {switch}")
    try:
        yield
    finally:
        harness.lab.inside(host, f"rm -f {switch}")


@contextmanager
def rails_does_not_boot(harness: Harness, *, restart: bool) -> Iterator[Callable[[], None]]:
    """Puma that is started within the block answers when the yielded function is called, or at the block's end.

    restart  whether somebody has just restarted it
    """
    up = f"[ ! -e {_SWITCHES}/rails-boot-seconds ] || {{ rm {_SWITCHES}/rails-boot-seconds; gitlab-ctl restart puma; }}"

    def boot() -> None:
        harness.lab.inside("gitlab", up)
        wait_for(lambda: readiness(harness) == "200", "GitLab is ready", 60)

    harness.lab.inside("gitlab", f"echo 3600 > {_SWITCHES}/rails-boot-seconds")
    try:
        if restart:
            harness.lab.inside("gitlab", "gitlab-ctl restart puma")
        yield boot
    finally:
        boot()


def readiness(harness: Harness) -> str:
    """The status of GitLab's own health check."""
    curl = "curl -sk -o /dev/null -w '%{http_code}' --connect-to ::127.0.0.1:"
    return harness.lab.inside("gitlab", f"{curl} {URL}/-/readiness")


def writes(seen: Mapping[str, int]) -> dict[str, int]:
    """The counted requests that change something in GitLab."""
    return {
        asked: times
        for asked, times in seen.items()
        if not asked.startswith("GET ") and not asked.endswith("/runners/verify")
    }


def config(harness: Harness, host: str) -> str:
    """The host's config.toml."""
    return harness.lab.inside(host, f"cat {CONFIG}")


def entries(harness: Harness, host: str) -> list[Record]:
    """The `[[runners]]` of the host's config.toml."""
    return list(tomllib.loads(config(harness, host)).get("runners", []))


def listed(harness: Harness, host: str) -> dict[str, str]:
    """The tokens by name in the output of `gitlab-runner list`."""
    message = harness.lab.inside(host, "gitlab-runner list 2>&1")
    return dict(re.findall(r"^(\S+) +Executor=\S+ Token=(\S+) URL=", plain(message), re.MULTILINE))


def plain(text: str) -> str:
    """The text without colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def process(harness: Harness, host: str, service: str = "gitlab-runner") -> str:
    """The id of the service's main process."""
    return harness.lab.inside(host, f"systemctl show {service} -p MainPID --value").strip()


def docker_runner(name: str, **fields: Any) -> Record:
    """The inventory table of a runner with the docker executor."""
    return {"name": name, "executor": "docker", "docker": {"image": "docker:28"}, **fields}


def with_runners(*runners: Mapping[str, Any]) -> dict[str, Sequence[Mapping[str, Any]]]:
    """The change that gives the inventory these runners."""
    return {"runners": [dict(one) for one in runners]}


def quoted(text: str) -> str:
    """The text quoted for a shell."""
    return "'" + text.replace("'", "'\\''") + "'"
