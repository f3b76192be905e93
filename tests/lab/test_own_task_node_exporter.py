"""The task that docs/writing-a-task.md shows, typed into an estate's `playbooks/`: its settings, its port, its service.

Two hosts of the GitLab kind. On one the task runs before the shipped `firewall`, on the other after it. A stand-in for
the exporter is served over HTTP, since the lab has no internet.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from provision_lab import LabHost
from provision_lab.harness import Harness
from tests.support.pages import block
from tests.support.runs import provision, twice, unchanged, without_s3
from tests.support.waiting import wait_for

FIRST, LAST = "first", "last"  # on this host the task runs before `firewall`, on that one after it
EXPORTER = """#!/usr/bin/python3
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer


class Metrics(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"node_exporter_build_info{version=\\"VERSION\\"} 1\\n")


HTTPServer(("", int(sys.argv[1].rpartition(":")[2])), Metrics).serve_forever()
"""


def archive(version: str) -> bytes:
    """A release: a tar.gz with the exporter in a folder, as the project packs it."""
    content = EXPORTER.replace("VERSION", version).encode()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        info = tarfile.TarInfo(f"node_exporter-{version}.linux-amd64/node_exporter")
        info.size, info.mode = len(content), 0o755
        tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


ARCHIVES = {version: archive(version) for version in ("1.9.1", "1.10.0")}


@pytest.fixture(scope="module")
def harness(harness_factory: Callable[..., Harness]) -> Iterator[Harness]:
    """Two hosts, the task and its template beside the inventory, and a server of releases."""
    harness = without_s3(harness_factory(LabHost(FIRST, gitlab=True), LabHost(LAST, gitlab=True)))
    for folder, name, before in (
        ("playbooks", "node_exporter.py", "playbooks/node_exporter.py"),
        ("templates", "node_exporter.service.j2", "templates/node_exporter.service.j2"),
    ):
        (harness.folder / folder).mkdir()
        (harness.folder / folder / name).write_text(block("writing-a-task.md", before))
    server = ThreadingHTTPServer((harness.lab.gateway, 0), Releases)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for host in (FIRST, LAST):
        harness.inventory["hosts"][host]["firewall"] = {"enable": True, "allow": ["80/tcp"]}
    harness.inventory["node_exporter"] = release("1.9.1", f"http://{harness.lab.gateway}:{server.server_port}")
    yield harness
    server.shutdown()


class Releases(BaseHTTPRequestHandler):
    """Serves /vVERSION/node_exporter-VERSION.linux-amd64.tar.gz."""

    def do_GET(self) -> None:
        version = self.path.split("/")[1].removeprefix("v")
        known = version in ARCHIVES and self.path.endswith(f"/node_exporter-{version}.linux-amd64.tar.gz")
        self.send_response(200 if known else 404)
        self.end_headers()
        self.wfile.write(ARCHIVES[version] if known else b"")

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on stderr."""


def release(version: str, releases: str) -> dict[str, Any]:
    """The settings for a release."""
    return {"version": version, "releases": releases, "sha256": hashlib.sha256(ARCHIVES[version]).hexdigest()}


def rules(harness: Harness, host: str) -> list[str]:
    """ufw's own list of rules."""
    return harness.lab.inside(host, "ufw show added").splitlines()[1:]


def metrics(harness: Harness, host: str, port: int = 9100) -> str:
    """What the exporter of a host answers to the other host, through the firewall."""
    address = harness.lab.machine(host).host.address
    other = LAST if host == FIRST else FIRST
    return harness.lab.inside(other, f"curl -sS --max-time 5 http://{address}:{port}/metrics || :")


def test_a_misspelt_key_is_refused(harness: Harness) -> None:
    """With file, line, key and the right spelling; no host is contacted."""
    outcome = provision(harness, "node_exporter", changes={"node_exporter": {"prot": 9200}})
    assert (outcome.code, outcome.events) == (2, ())
    lines = (harness.folder / "inventory.toml").read_text().splitlines()
    line = next(number for number, text in enumerate(lines, 1) if text.startswith("prot"))
    assert f"inventory.toml:{line}" in outcome.stderr
    assert "node_exporter.prot" in outcome.stderr
    assert "port" in outcome.stderr.replace("node_exporter.prot", "")


def test_a_wrong_type_is_refused(harness: Harness) -> None:
    """Likewise."""
    outcome = provision(harness, "node_exporter", changes={"node_exporter": {"port": "nine"}})
    assert (outcome.code, outcome.events) == (2, ())
    assert "node_exporter.port" in outcome.stderr


def test_list_and_schema_know_it(harness: Harness) -> None:
    """Its headline is listed; its keys are in the schema, with their documentation."""
    listed = harness.run("list").stdout
    assert "Install the Prometheus node exporter and keep it running" in listed
    schema = harness.run("schema")
    assert schema.returncode == 0, schema.stderr
    assert "The port that it listens on." in schema.stdout
    assert "node_exporter" in json.loads(schema.stdout)["properties"]


def test_check_mode_changes_nothing(harness: Harness) -> None:
    """Every change is predicted, with the unit file's diff; afterwards the host is as it was."""
    outcome = provision(harness, "node_exporter", "--check", "--diff", "--limit", FIRST)
    assert outcome.code == 0, outcome.errors
    assert "create user node_exporter" in outcome.changes()
    assert any("ExecStart=/usr/local/bin/node_exporter" in one["diff"] for one in outcome.of("change"))
    assert "node_exporter" not in harness.lab.inside(FIRST, "getent passwd")


@pytest.mark.parametrize(
    ("host", "order"), [(FIRST, ("node_exporter", "firewall")), (LAST, ("firewall", "node_exporter"))]
)
def test_in_either_order(harness: Harness, host: str, order: tuple[str, str]) -> None:
    """Each task twice, then both in one run: the second run changes nothing, and no task removes the other's rule."""
    changes = [
        change for name in order for change in twice(harness, name, "--limit", host).changes(task="node_exporter")
    ]
    unchanged(harness, *order, "--limit", host)
    url = f"{harness.inventory['node_exporter']['releases']}/v1.9.1/node_exporter-1.9.1.linux-amd64.tar.gz"
    assert changes == [
        "create user node_exporter",
        f"fetch /usr/local/bin/node_exporter from {url}",
        "create /etc/systemd/system/node_exporter.service",
        "enable node_exporter.service at boot",
        "start node_exporter.service",
        *(["allow 22/tcp"] if host == FIRST else []),
        "allow 9100/tcp",
    ]
    assert "ufw allow 9100/tcp comment 'node_exporter'" in rules(harness, host)
    assert "ufw allow 5555/tcp comment 'provision: registry'" in rules(harness, host)
    assert "ufw allow 22/tcp comment 'provision: ssh'" in rules(harness, host)


@pytest.mark.parametrize("host", [FIRST, LAST])
def test_the_service_answers(harness: Harness, host: str) -> None:
    """As its own user, started at boot, reachable through the firewall."""
    service = harness.host(host).service("node_exporter")
    assert (service.is_running, service.is_enabled) == (True, True)
    assert harness.lab.inside(host, "ps -o user= -C node_exporter").strip() == "node_exporter"
    assert 'version="1.9.1"' in metrics(harness, host)


def test_another_port(harness: Harness) -> None:
    """The task's own old rule is removed, the unit is restarted, and the registry's rule stays."""
    outcome = twice(harness, "node_exporter", "--limit", FIRST, changes={"node_exporter": {"port": 9200}})
    assert "remove the rule for 9100/tcp" in outcome.changes()
    assert [rule for rule in rules(harness, FIRST) if "9100" in rule] == []
    assert "ufw allow 5555/tcp comment 'provision: registry'" in rules(harness, FIRST)
    wait_for(lambda: "node_exporter_build_info" in metrics(harness, FIRST, 9200), "an answer on port 9200")
    twice(harness, "node_exporter", "--limit", FIRST)
    wait_for(lambda: "node_exporter_build_info" in metrics(harness, FIRST), "an answer on port 9100")


def test_another_release(harness: Harness) -> None:
    """The program is replaced and the service restarted with it; the unit file is unchanged."""
    new = release("1.10.0", harness.inventory["node_exporter"]["releases"])
    outcome = twice(harness, "node_exporter", "--limit", LAST, changes={"node_exporter": new})
    url = f"{new['releases']}/v1.10.0/node_exporter-1.10.0.linux-amd64.tar.gz"
    assert outcome.changes() == [f"replace /usr/local/bin/node_exporter by {url}", "restart node_exporter"]
    wait_for(lambda: 'version="1.10.0"' in metrics(harness, LAST), "the new release's answer")


def test_another_checksum(harness: Harness) -> None:
    """What the server has is not what the inventory expects: the old program stays and runs."""
    wrong = {"node_exporter": {"version": "1.10.0", "sha256": "0" * 64}}
    outcome = provision(harness, "node_exporter", "--limit", FIRST, changes=wrong)
    assert outcome.code == 1
    assert "expected 0000" in outcome.errors
    assert 'version="1.9.1"' in metrics(harness, FIRST)
