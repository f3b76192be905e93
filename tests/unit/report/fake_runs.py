"""Fake runs: the events that the engine would send, for the tests of the reports and for looking at reports.

    python tests/unit/report/fake_runs.py first|noop|failed|many|check|interrupted [--html FILE] [--json] [--diff] [-v]

plays one in real time on the terminal.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from provision.engine.events import (
    ChangeEvent,
    ErrorEvent,
    Event,
    HostSummary,
    Message,
    Output,
    Start,
    StartedPlay,
    Status,
    Step,
    Summary,
    TaskDone,
)

Timed = tuple[float, Event]  # seconds since the event before, event


def everywhere(text: str) -> list[Event]:
    """A run of one task on one host, with a text in every place that is not the program's own."""
    return [
        Start(("t",), ("h",), False),
        ChangeEvent("h", "t", text, "update", text, f"+{text}", True),
        Message("h", "t", text),
        ErrorEvent("h", "t", text, "ChangeFailed", text, text),
        Summary(False, 1, 1, 0, 1.0, {"h": HostSummary(changed=1, failed=1)}),
    ]


HEADLINES = {
    "docker": "Install Docker Engine, configure it and start it",
    "runner": "Install gitlab-runner and its helper images from GitLab's repository and start the service",
    "register": "Register each [[runners]] of the inventory and keep its settings in config.toml",
    "gitlab": "Install GitLab and apply its settings",
    "certificates": "Check that certificate and key match each other and the registry's name",
    "registry": "Set up the container registry over TLS, with its images in S3",
    "firewall": "Allow SSH, the registry and the listed ports in ufw",
    "verify": "Verify that an image can be pushed and pulled",
}
DAEMON = """\
--- /etc/docker/daemon.json
+++ /etc/docker/daemon.json
@@ -0,0 +1,4 @@
+{
+  "log-driver": "json-file",
+  "log-opts": {"max-size": "10m"}
+}
"""
RUBY = """\
--- /etc/gitlab/gitlab.rb
+++ /etc/gitlab/gitlab.rb
@@ -1,3 +1,5 @@
 external_url "https://gitlab.example.com"
-# registry_external_url 'https://registry.example.com'
+registry_external_url "https://gitlab.example.com:5555"
+registry['storage'] = { "s3_v2" => { "bucket" => "registry", "secretkey" => "***" } }
 gitlab_rails['time_zone'] = "UTC"
"""
# task, resource, action, summary, diff, step's output
DOCKER = [
    ("AptSource docker", "create", "add the package source docker", "", ""),
    (
        "Packages docker-ce …",
        "create",
        "install docker-ce 5:29.1.0, docker-ce-cli, containerd.io",
        "",
        "Unpacking docker-ce (5:29.1.0) …",
    ),
    ("File /etc/docker/daemon.json", "create", "write /etc/docker/daemon.json", DAEMON, ""),
    ("restart-docker", "run", "restart docker", "", ""),
]
RUNNER = [
    ("AptSource runner", "create", "add the package source runner", "", ""),
    (
        "Packages gitlab-runner …",
        "create",
        "install gitlab-runner 19.3.0, gitlab-runner-helper-images 19.3.0",
        "",
        "Setting up gitlab-runner (19.3.0)",
    ),
]
REGISTER = [("RunnerConfig docker-builder", "create", "register docker-builder at https://gitlab.example.com", "", "")]
REGISTRY = [
    ("RubySettings /etc/gitlab/gitlab.rb", "update", "set registry_external_url and 1 more in gitlab.rb", RUBY, ""),
    ("reconfigure", "run", "reconfigure GitLab", "", "Running handlers: · gitlab Reconfigured!"),
]
FIREWALL = [("Firewall", "update", "allow 5555/tcp", "", "")]


def play(
    host: str, task: str, changes: list[tuple[str, str, str, str, str]], *, check: bool = False, pace: float = 1.0
) -> Iterator[Timed]:
    """The events of a task on a host that makes these changes."""
    yield 0.01, Step(host, task, "observing", "observing")
    for resource, action, summary, diff, output in changes:
        if not check:
            yield 0.05, Step(host, task, summary)
            if output:
                yield pace, Output(host, task, output + "\n")
        seconds = 0.0 if check else (2.4 if output else 0.1)
        yield pace, ChangeEvent(host, task, resource, action, summary, diff, not check, seconds=seconds)
    status: Status = "changed" if changes else "ok"
    yield 0.0, TaskDone(host, task, status, pace * len(changes), len(changes), HEADLINES[task])


def interleave(*streams: Iterator[Timed]) -> Iterator[Timed]:
    """Hosts at the same time: one event of each in turn."""
    rest = list(streams)
    while rest:
        for one in list(rest):
            try:
                delay, event = next(one)
                yield delay / len(rest), event
            except StopIteration:
                rest.remove(one)


def first(*, check: bool = False) -> Iterator[Timed]:
    """A first run over a GitLab host and two runners."""
    hosts = ("gitlab", "runner-1", "runner-2")
    plays = (
        StartedPlay(("gitlab", "certificates", "registry", "firewall"), hosts[:1]),
        StartedPlay(("docker", "runner"), hosts[1:]),
        StartedPlay(("register", "verify"), hosts[1:], (0,)),
        StartedPlay(("deploy",), hosts[1:], (0, 2), serial=True),
    )
    yield 0.0, Start(("all",), hosts, check, plays)
    yield from interleave(
        *(
            iter([(0.3, Step(host, "", "connecting", "connecting")), (0.2, Step(host, "", "observing", "observing"))])
            for host in hosts
        )
    )
    server = {"gitlab": [], "certificates": [], "registry": REGISTRY, "firewall": FIREWALL}
    for task, changes in server.items():
        yield from play("gitlab", task, changes, check=check)
    for task, changes in {"docker": DOCKER, "runner": RUNNER, "register": REGISTER}.items():
        yield from interleave(*(play(host, task, changes, check=check) for host in hosts[1:]))
    for host in hosts[1:]:
        if check:
            change = ChangeEvent(
                host,
                "register",
                "RunnerConfig",
                "update",
                "set concurrent in config.toml",
                "",
                False,
                predicted=True,
                requires="runner",
            )
            yield 0.0, change
            continue
        yield 0.2, Message(host, "verify", "pushed and pulled gitlab.example.com:5555/sammy/hello_hapi")
        yield 0.0, TaskDone(host, "verify", "ok", 3.2, 0, HEADLINES["verify"])
    counts = {"gitlab": HostSummary(4, 3, round_trips=9, bytes_sent=41_200, bytes_received=9_120, seconds=12.25)}
    runner = 8 if check else 7
    for host in hosts[1:]:
        counts[host] = HostSummary(4, runner, round_trips=14, bytes_sent=18_004, bytes_received=31_877, seconds=41.17)
    yield 0.0, Summary(check, 3 + 2 * runner, 0, 0, 41.23, counts)


def noop() -> Iterator[Timed]:
    """A run that finds nothing to change."""
    hosts = ("gitlab", "runner-1", "runner-2")
    yield 0.0, Start(("all",), hosts, False)
    for host in hosts:
        yield 0.1, Step(host, "", "connecting", "connecting")
    for host in hosts:
        for task in ("firewall",) if host == "gitlab" else ("docker", "runner"):
            yield 0.0, TaskDone(host, task, "ok", 0.01, 0, HEADLINES[task])
    counts = HostSummary(2, round_trips=4, bytes_sent=14_000, bytes_received=6_000, seconds=0.75)
    yield 0.0, Summary(False, 0, 0, 0, 0.78, dict.fromkeys(hosts, counts))


def failed(*, interrupted: bool = False) -> Iterator[Timed]:
    """One host's package is missing, one cannot be reached, one goes well."""
    hosts = ("gitlab", "runner-1", "runner-2")
    yield 0.0, Start(("all",), hosts, False)
    yield from play("gitlab", "registry", REGISTRY)
    yield 0.2, Step("runner-1", "docker", "install docker-ce 5:29.1.0")
    yield (
        1.0,
        Output("runner-1", "docker", "Reading package lists...\nE: Version '5:29.1.0' for 'docker-ce' was not found\n"),
    )
    yield (
        0.1,
        ErrorEvent(
            "runner-1",
            "docker",
            "Packages docker-ce",
            "ChangeFailed",
            "install docker-ce 5:29.1.0: E: Version '5:29.1.0' for 'docker-ce' was not found\n"
            "E: Unable to correct problems, you have held broken packages.",
            "run `apt-cache madison docker-ce` on the host and set [docker] version to one of these; "
            "or remove [docker] version to get the newest one",
        ),
    )
    yield 0.0, TaskDone("runner-1", "docker", "failed", 4.2, 0, HEADLINES["docker"])
    yield 0.0, TaskDone("runner-1", "runner", "skipped", 0.0, 0, HEADLINES["runner"])
    text = "runner-2 (203.0.113.12 port 22): no answer within 10 s"
    yield (
        0.3,
        ErrorEvent(
            "runner-2",
            "docker",
            "",
            "Unreachable",
            text,
            "check that the host is up and its address is right: ssh runner-2",
        ),
    )
    yield 0.0, TaskDone("runner-2", "docker", "unreachable", 10.0, 0, HEADLINES["docker"])
    yield 0.0, TaskDone("runner-2", "runner", "skipped", 0.0, 0, HEADLINES["runner"])
    if interrupted:
        yield (
            0.2,
            Message("gitlab", "registry", "stopping after: reconfigure GitLab (Ctrl-C again abandons it)", "stopping"),
        )
        yield 0.4, Message("gitlab", "registry", "stopped after: reconfigure GitLab")
    counts = {
        "gitlab": HostSummary(1, 2, round_trips=6, bytes_sent=9_000, bytes_received=4_000, seconds=5.0),
        "runner-1": HostSummary(0, 0, 1, 1, round_trips=4, bytes_sent=8_000, bytes_received=3_500, seconds=4.5),
        "runner-2": HostSummary(0, 0, 0, 1, True, seconds=10.0),
    }
    yield 0.0, Summary(False, 2, 1, 1, 10.4, counts, interrupted)


def many(size: int = 60) -> Iterator[Timed]:
    """Sixty runners: most alike, one with another daemon.json, three unreachable, one broken."""
    hosts = ("gitlab", *(f"runner-{number:02}" for number in range(1, size)))
    yield 0.0, Start(("runners",), hosts, False)
    away = set(hosts[20:23])
    yield from interleave(*(iter([(2.0, Step(host, "", "connecting", "connecting"))]) for host in hosts))
    for number, host in enumerate(hosts):
        if host in away:
            text = f"{host} (10.0.0.{number}:22): connection refused"
            yield 0.1, ErrorEvent(host, "docker", "", "Unreachable", text, f"check that sshd is running: ssh {host}")
            yield 0.0, TaskDone(host, "docker", "unreachable", 1.0, 0, HEADLINES["docker"])
    odd = [*DOCKER[:2], (*DOCKER[2][:3], DAEMON.replace("10m", "50m"), ""), DOCKER[3]]
    workers = [host for host in hosts[1:] if host not in away]
    yield from interleave(*(play(host, "docker", odd if host == "runner-07" else DOCKER, pace=8.0) for host in workers))
    text = "/etc/gitlab-runner/config.toml: line 7: the key has no value"
    yield (
        0.0,
        ErrorEvent(
            "runner-33", "register", "RunnerConfig", "ProbeFailed", text, "fix the file, then rerun the command"
        ),
    )
    yield 0.0, TaskDone("runner-33", "register", "failed", 0.1, 0, HEADLINES["register"])
    counts = {"gitlab": HostSummary(1, seconds=0.4, round_trips=3)}
    for number, host in enumerate(hosts[1:]):
        one = HostSummary(1, 4, round_trips=7, bytes_sent=9_000, bytes_received=8_000, seconds=30 + number / 10)
        counts[host] = HostSummary(skipped=2, unreachable=True, seconds=1.0) if host in away else one
    counts["runner-33"] = HostSummary(1, 4, 1, 0, round_trips=7, seconds=31.0)
    yield 0.0, Summary(False, 4 * len(workers), 1, 3, 36.1, counts)


RUNS: dict[str, Callable[[], Iterator[Timed]]] = {
    "first": first,
    "check": lambda: first(check=True),
    "noop": noop,
    "failed": failed,
    "interrupted": lambda: failed(interrupted=True),
    "many": many,
}


def main() -> None:
    """Plays a run in real time."""
    from provision.report import listeners

    parser = argparse.ArgumentParser()
    parser.add_argument("run", choices=RUNS)
    parser.add_argument("--html", type=Path)
    parser.add_argument("--pace", type=float, default=1.0)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--diff", action="store_true")
    parser.add_argument("--stats", action="store_true")
    parser.add_argument("-v", action="count", default=0)
    args = parser.parse_args()
    chosen = listeners(
        json=args.json,
        diff=args.diff,
        verbose=args.v,
        stats=args.stats,
        report=args.html,
        stdout=sys.stdout,
        stderr=sys.stderr,
    )
    for delay, event in RUNS[args.run]():
        time.sleep(delay * args.pace)
        for listener in chosen:
            listener.on(event)
    for listener in chosen:
        listener.close()


if __name__ == "__main__":
    main()
