"""examples/, each with its own inventory: built, pushed, run. It answers or prints what its source says, and its tests pass.

The Dockerfiles are built as they are. Their bases come from the lab's Docker Hub. The tests do not depend on each other: an app
that the next example does not name is removed.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from provision_lab import LabHost
from provision_lab.harness import Harness
from tests.support.images import CONTAINERD_STORE, NO_FILES, answer, blobs, pushed, tar_of
from tests.support.pages import DOCS
from tests.support.runs import Outcome, applied, unchanged, without_s3

HOST = "runner-1"
EXAMPLES = DOCS.parent / "examples"
REGISTRY = "gitlab.lab.test:5555"


@pytest.fixture(scope="module")
def harness(harness_factory: Callable[..., Harness]) -> Harness:
    """A registry, the user whose projects the examples are, and a host whose Docker pulls from the lab's Docker Hub.

    Docker stores images as Docker 29 does: what it has pulled is pushed as it came, and not compressed again.
    """
    harness = without_s3(harness_factory(LabHost("gitlab", prepared="server"), LabHost(HOST, prepared="runner")))
    harness.inventory["gitlab"]["users"] = {"sammy": {"name": "Sammy", "email": "sammy@example.com"}}
    harness.inventory["docker"]["daemon"] |= harness.lab.docker_hub | CONTAINERD_STORE
    applied(harness, "docker")
    return harness


def run(harness: Harness, folder: Path) -> Outcome:
    """The commands of examples/README.md with the inventory in this folder; again, they change nothing."""
    command = ("accounts", "image", "deploy", "-i", str(folder / "inventory.toml"))
    outcome = applied(harness, *command)
    unchanged(harness, *command)
    return outcome


def container(harness: Harness, image: str, *words: str, options: str = "") -> str:
    """What a container of the image prints, on standard error too."""
    name = f"{REGISTRY}/sammy/{image}"
    return harness.lab.inside(HOST, f"docker run --rm {options} {name} {' '.join(words)} 2>&1")


def test_hello_hapi(harness: Harness) -> None:
    """Node answers; `npm ci` installed what the lock file names; `npm test` passes in the image."""
    run(harness, EXAMPLES / "hello_hapi")
    assert answer(harness, HOST, "/hello/test", 3000) == "Hello, test!\n"
    assert "\n# fail 0\n" in (printed := container(harness, "hello_hapi:1.0", "npm test", options="-e CI=1")).replace(
        "ℹ", "#"
    )
    assert "pass 2\n" in printed
    logs = harness.lab.inside(
        HOST, "docker stop -t 8 hello_hapi >/dev/null && docker inspect -f '{{.State.ExitCode}}' hello_hapi"
    )
    assert logs == "0\n", "it ends when Docker asks it to"


def test_flask_app_changed_and_deployed_again(harness: Harness, tmp_path: Path) -> None:
    """Another text: only the layer of the program is built and pushed, and the container is replaced."""
    folder = shutil.copytree(
        EXAMPLES / "flask_app", tmp_path / "flask_app", ignore=shutil.ignore_patterns("__pycache__")
    )
    run(harness, folder)
    assert answer(harness, HOST, port=5001) == "hello world!"
    before = blobs(harness)
    app = folder / "app.py"
    app.write_text(app.read_text().replace("hello world!", "hello beautiful world!"))
    outcome = run(harness, folder)
    image = f"{REGISTRY}/sammy/flask_app:latest"
    assert outcome.changes() == [f"build and push {image}", f"replace flask_app: {image} names another image now"]
    assert answer(harness, HOST, port=5001) == "hello beautiful world!"
    new = {*blobs(harness)} - {*before, NO_FILES}
    assert len(new) == 3, "the layer, the image's configuration and its manifest"
    assert pushed(harness, "sammy/flask_app", "latest")["layers"][-1]["digest"] in new
    assert "OK\n" in container(harness, "flask_app", "python -m unittest")


def test_go_multistage(harness: Harness) -> None:
    """Compiled and tested by Go's own compiler; the image has the program and no compiler."""
    run(harness, EXAMPLES / "go_multistage")
    assert container(harness, "hello_go:1.0") == "Hello, world!\n"
    assert container(harness, "hello_go:1.0", "Ana", "Bob") == "Hello, Ana and Bob!\n"
    assert container(harness, "hello_go:1.0", "/usr/local", options="--entrypoint find").split() == [
        "/usr/local",
        "/usr/local/bin",
        "/usr/local/bin/hello",
    ]
    size = harness.lab.inside(HOST, f"docker image inspect -f '{{{{.Size}}}}' {REGISTRY}/sammy/hello_go:1.0")
    assert int(size) < 8_000_000


def test_apache(harness: Harness) -> None:
    """The page, what the image's configuration says, and a log that outlives the container."""
    run(harness, EXAMPLES / "apache")
    page = (EXAMPLES / "apache/index.html").read_text()
    assert answer(harness, HOST, "/?before", 8080) == page
    config = json.loads(harness.lab.inside(HOST, "docker inspect -f '{{json .Config}}' apache"))
    assert config["Labels"]["org.opencontainers.image.title"] == "Apache on Debian"
    assert config["Entrypoint"] == ["apache2"]
    assert config["Cmd"] == ["-D", "FOREGROUND"]
    assert (config["ExposedPorts"], config["Volumes"]) == ({"80/tcp": {}}, {"/var/log/apache2": {}})
    assert container(harness, "apache_server:1.0", "-t") == "Syntax OK\n", "arguments replace CMD, not ENTRYPOINT"
    harness.lab.inside(HOST, "docker rm -f apache")
    assert run(harness, EXAMPLES / "apache").changes() == [f"deploy apache: {REGISTRY}/sammy/apache_server:1.0"]
    assert answer(harness, HOST, "/?after", 8080) == page
    log = harness.lab.inside(HOST, "docker exec apache cat /var/log/apache2/access.log")
    assert log.index("GET /?before") < log.index("GET /?after")


def test_wsgi(harness: Harness) -> None:
    """nginx passes requests to gunicorn, with the client's address; supervisor starts a killed program again."""
    run(harness, EXAMPLES / "wsgi")
    seen = answer(harness, HOST, "/some/path", 8000)
    assert seen.startswith("/some/path for ")
    assert not seen.endswith("nobody\n")
    assert "OK\n" in container(harness, "wsgi_stack:1.0", "python3 -m unittest")
    # The workers too: those of a killed nginx go on to answer, and keep the port.
    workers = 'for one in /proc/[0-9]*; do [ "$(cat $one/comm)" != nginx ] || kill -9 ${one#/proc/}; done; true'
    harness.lab.inside(HOST, f"docker exec wsgi_stack sh -c 'kill -9 $(cat /run/nginx.pid); {workers}'")
    assert "/again for" in harness.lab.inside(
        HOST, "curl -s --retry 20 --retry-all-errors --retry-delay 1 localhost:8000/again"
    )


def test_classifier(harness: Harness) -> None:
    """The program answers, and the commands of the pipeline for Docker Hub succeed in the image of its jobs."""
    folder = EXAMPLES / "classifier"
    run(harness, folder)
    found = answer(harness, HOST, "/category?description=a+wooden+hammer", 8081)
    assert json.loads(found) == {"category": "tools"}
    commands = "pip install -q -r requirements.txt coverage; pip check; coverage run -m unittest; coverage report --fail-under=100"
    (harness.lab.machine(HOST).root / "root/source.tar").write_bytes(
        tar_of({path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()})
    )
    job = f"docker run --rm -i -w /builds python:3.13-slim sh -ec 'tar -x; {commands}' < /root/source.tar 2>&1"
    printed = harness.lab.inside(HOST, job)
    assert "\nOK\n" in printed
    assert printed.rstrip().endswith("100%")
