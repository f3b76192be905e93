"""deploy_app.sh and remove_app.sh, run by each shell with a Docker whose containers are files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from provision.host.scripts import script
from provision.shell import Result
from provision.testing import LocalSession
from tests.support.local import Local, one_shell
from tests.support.programs import Docker

pytestmark = pytest.mark.slow

PASSWORD, TOKEN = "the-pull-password", "the-app-token"
Deploy = Callable[..., Result]


@pytest.fixture
def docker(tmp_path: Path) -> Docker:
    """A host without containers; nothing listens on its ports."""
    docker = Docker(tmp_path / "host")
    docker.add("ss")
    return docker


@pytest.fixture
def host(docker: Docker, local: Local) -> LocalSession:
    """The session."""
    return local({"/var/lib/provision": docker.folder / "home"}, {"PATH": docker.path})


@pytest.fixture
def deploy(host: LocalSession) -> Deploy:
    """Deploys the app `web` of `image:new`, checked by a command in the container unless the test gives another check."""

    def run(
        url: str = "", status: int = 200, contains: str = "", seconds: int = 1, check: str = "true 'a b'",
        ports: str = "", image: str = "image:new", pull: str = "yes",
    ) -> Result:  # fmt: skip
        command = script(
            "deploy_app", "web", image, pull, "r.example.com", "sammy", "new", ports, url, status, contains, seconds,
            check, "/var/lib/provision/pending", ["-p", "80:80"], image, ["serve", "it's"],
        )  # fmt: skip
        assert PASSWORD not in command.script
        return host.run(command.reading(f"{PASSWORD}\nMODE=prod\nAPI_TOKEN={TOKEN}\n"), deadline=30)

    return run


def pending(docker: Docker) -> str:
    """The list of pending handlers."""
    path = docker.folder / "home/pending"
    return path.read_text() if path.exists() else ""


def test_first_deployment(docker: Docker, deploy: Deploy) -> None:
    """The container runs with its options and variables, nothing is pending, and no argument holds a secret."""
    result = deploy()
    assert (result.code, result.errors) == (0, "")
    assert docker.found() == {"web": "running -p 80:80 image:new serve it's"}
    assert (docker.folder / "env").read_text() == f"MODE=prod\nAPI_TOKEN={TOKEN}\n"
    assert (docker.folder / "password").read_text() == PASSWORD
    assert "docker exec web true a b" in docker.calls()
    assert [call for call in docker.calls() if PASSWORD in call or TOKEN in call] == []
    assert pending(docker) == ""


@one_shell
def test_previous_container_is_replaced(docker: Docker, deploy: Deploy) -> None:
    """It is stopped before the new one starts, and removed after the check."""
    docker.run("web", "web")
    assert deploy().code == 0
    assert docker.found() == {"web": "running -p 80:80 image:new serve it's"}
    calls = docker.calls("docker")
    assert calls.index("docker stop web") < calls.index("docker start web")


@one_shell
def test_same_container_is_kept(docker: Docker, deploy: Deploy) -> None:
    """Fingerprint and digest are equal: nothing is created."""
    (docker.containers / "web").write_text("running|web|new|sha256:new|image:new\n")
    assert deploy().code == 0
    assert docker.found() == {"web": "running image:new"}
    assert pending(docker) == ""


@one_shell
def test_stopped_container_is_started(docker: Docker, deploy: Deploy) -> None:
    """It is the wanted one."""
    (docker.containers / "web").write_text("exited|web|new|sha256:new|image:new\n")
    assert deploy().code == 0
    assert docker.found() == {"web": "running image:new"}


def test_rolls_back_when_the_check_fails(docker: Docker, deploy: Deploy) -> None:
    """The previous container runs again; cause, log and outcome are printed; the deployment stays pending."""
    docker.run("web", "web")
    (docker.folder / "ill").touch()
    result = deploy()
    assert result.code == 1
    assert result.errors == (
        "web: not healthy within 1 s: true a b fails: not ready\nits last log lines:\nlog line\n"
        "rolled back: the previous container runs again\n"
    )
    assert docker.found() == {"web": "running image:old"}
    assert pending(docker) == "deploy-web\tdeploy web\n"


@one_shell
def test_rolls_back_when_the_container_ends(docker: Docker, deploy: Deploy) -> None:
    """Its exit code is printed."""
    docker.run("web", "web")
    result = deploy(image="image:broken")
    assert "web: it ended with code 1\n" in result.errors
    assert docker.found() == {"web": "running image:old"}


@one_shell
def test_removes_a_first_container_that_fails(docker: Docker, deploy: Deploy) -> None:
    """There was none before."""
    result = deploy(image="image:broken")
    assert result.errors.endswith("rolled back: there was no container before, and the new one is removed\n")
    assert docker.found() == {}


def test_recovers_from_a_killed_run(docker: Docker, deploy: Deploy) -> None:
    """The container under the other name served: it is restored before anything else, even if this run fails, too."""
    docker.run("web.provision-old", "web", state="exited")
    docker.run("web", "web", "half", state="created")
    docker.run("web.provision-new", "web", state="created")
    (docker.folder / "gone").touch()
    assert deploy().code == 1
    assert docker.found() == {"web": "running image:old"}


@one_shell
def test_refuses_a_container_of_others(docker: Docker, deploy: Deploy) -> None:
    """It is not touched."""
    docker.run("web")
    result = deploy()
    assert result.errors.startswith("web: another container has this name\n")
    assert docker.found() == {"web": "running image:old"}


@one_shell
def test_refused_login(docker: Docker, deploy: Deploy) -> None:
    """Docker's own message and a remedy; the previous container is not touched."""
    docker.run("web", "web")
    (docker.folder / "refused").touch()
    result = deploy()
    assert result.errors.startswith("login to r.example.com as sammy: Error: unauthorized\n")
    assert docker.found() == {"web": "running image:old"}


@one_shell
def test_image_that_is_neither_pulled_nor_there(deploy: Deploy) -> None:
    """pull = false."""
    assert deploy(pull="no").errors.startswith("image:new: it is not on this host, and pull is false\n")


@pytest.mark.parametrize(
    ("ps", "ss", "ports", "problem"),
    [
        ("other|image:x|0.0.0.0:80->80/tcp, [::]:80->80/tcp\n", "", "|80|tcp", "the container other (image:x) uses it"),
        ("web|image:x|0.0.0.0:80->80/tcp\n", "", "|80|tcp", ""),
        ("other|image:x|127.0.0.1:80->80/tcp\n", "", "192.0.2.1|80|tcp", ""),
        ("", 'LISTEN 0 5 0.0.0.0:80 0.0.0.0:* users:(("nginx",pid=7,fd=3))\n', "|80|tcp", "nginx (process 7) uses it"),
        ("", 'LISTEN 0 5 0.0.0.0:80 0.0.0.0:* users:(("docker-proxy",pid=7,fd=3))\n', "|80|tcp", ""),
        ("", "UNCONN 0 0 [::]:80 *:*\n", "|80|udp", "another process uses it"),
    ],
    ids=["container", "itself", "other address", "program", "proxy", "udp"],
)
def test_port_in_use(docker: Docker, deploy: Deploy, ps: str, ss: str, ports: str, problem: str) -> None:
    """It is found before the previous container is stopped."""
    (docker.folder / "ps").write_text(ps)
    docker.add("ss", f"cat <<'END'\n{ss}END")
    errors = deploy(ports=ports).errors
    assert errors.startswith(f"port 80: {problem}\n") if problem else errors == ""


@one_shell
def test_check_by_url(docker: Docker, deploy: Deploy) -> None:
    """Status and text must be as wanted."""
    docker.add("curl", 'while [ $# -gt 1 ]; do [ "$1" != -o ] || printf hello > "$2"; shift; done; printf 200')
    assert deploy(url="http://localhost/", contains="hello").code == 0
    for wanted, problem in (
        ({"status": 204}, "answers 200 instead of 204"),
        ({"contains": "bye"}, "the answer of http://localhost/ does not contain bye"),
    ):
        (docker.containers / "web").unlink(missing_ok=True)
        assert problem in deploy(url="http://localhost/", **wanted).errors


def test_remove(docker: Docker, host: LocalSession) -> None:
    """Containers of the app go, and its pending deployment with them; those of others stay."""
    docker.run("web", "web")
    docker.run("web.provision-old", "other")
    (docker.folder / "home").mkdir()
    (docker.folder / "home/pending").write_text("deploy-web\tdeploy web\nreload\treload it\n")
    command = script("remove_app", "web", "/var/lib/provision/pending", ["web", "web.provision-old"])
    assert host.run(command, deadline=10).code == 0
    assert list(docker.found()) == ["web.provision-old"]
    assert pending(docker) == "reload\treload it\n"


def test_docker_that_refuses_ipv6_addresses(docker: Docker, deploy: Deploy) -> None:
    """It is named; the previous container still runs."""
    docker.run("web", "web")
    (docker.folder / "old").touch()
    errors = deploy(image="[2001:db8::1]:5555/a:1").errors
    assert errors.startswith("[2001:db8::1]:5555/a:1: Docker 20.10.24 refuses image names with an IPv6 address\n")
    assert docker.found() == {"web": "running image:old"}
