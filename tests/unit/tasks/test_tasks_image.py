"""The resources of `image`, by inventory; and mistakes that are reported before a host is contacted."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from provision.errors import UsageError
from provision.resources import BuiltImage
from tests.support.wanted import REGISTRY

Wants = Callable[..., Any]
IMAGE = '[[images]]\nname = "sammy/hello"\ncontext = "app"\n'
SHIPPED = ("python-web", "go", "static-nginx", "static-apache", "wsgi")
NAMED = IMAGE.replace("sammy/hello", "registry.example.com/hello")


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """A build context beside the inventory."""
    (tmp_path / "app").mkdir()
    (tmp_path / "app/Dockerfile").write_text("FROM scratch\n")
    return tmp_path / "app"


def test_in_the_own_registry(wants: Wants, app: Path) -> None:
    """It uses the own registry's login and is built on the first runner host."""
    (found,) = wants("image", REGISTRY + IMAGE + 'tags = ["1.0"]\nbuild_args = {A = "b"}\n')
    assert isinstance(found, BuiltImage)
    assert str(found.image) == "gitlab.example.com:5555/sammy/hello"
    assert (found.registry.url, found.registry.user) == ("https://gitlab.example.com:5555", "sammy")
    assert (found.tags, found.arguments, found.context.folder) == (("1.0",), {"A": "b"}, app)


@pytest.mark.usefixtures("app")
def test_on_docker_hub(wants: Wants) -> None:
    """It has its own login."""
    image = IMAGE.replace("sammy/hello", "docker.io/sammy/hello")
    (found,) = wants("image", image + 'login = {username = "sammy", password = "the-hub-password"}\n')
    assert (found.image.domain, found.registry.url) == ("docker.io", "https://registry-1.docker.io")


@pytest.mark.usefixtures("app")
def test_only_on_the_host(wants: Wants) -> None:
    """No registry is needed."""
    (found,) = wants("image", IMAGE + "push = false\n")
    assert (str(found.image), found.registry.url) == ("sammy/hello", "")


@pytest.mark.parametrize("name", SHIPPED)
def test_templates_that_ship(wants: Wants, app: Path, name: str) -> None:
    """Each is a Dockerfile whose first lines list the options."""
    (app / "Dockerfile").unlink()
    (found,) = wants("image", REGISTRY + IMAGE + f'template = "{name}"\n')
    text = found.context.rendered.decode()
    assert "\nFROM " in text
    assert "{" not in text.replace("server {", "").replace("location / {", "")


def dockerfile(wants: Wants, app: Path, name: str) -> list[str]:
    """The instructions of a shipped Dockerfile, each on one line."""
    (app / "Dockerfile").unlink(missing_ok=True)
    (found,) = wants("image", REGISTRY + IMAGE + f'template = "{name}"\n')
    return [line for line in found.context.rendered.decode().replace("\\\n", "").splitlines() if line[:1].isupper()]


@pytest.mark.parametrize("name", SHIPPED)
def test_every_stage_that_is_copied_from_exists(wants: Wants, app: Path, name: str) -> None:
    """Docker takes an unknown stage for an image of that name on Docker Hub."""
    lines = dockerfile(wants, app, name)
    stages = {line.rpartition(" AS ")[2] for line in lines if line.startswith("FROM ") and " AS " in line}
    assert {found[1] for line in lines if (found := re.match(r"COPY --from=(\S+)", line))} == stages
    assert len(stages) == (name == "go")


def test_a_go_program_brings_its_module(wants: Wants, app: Path) -> None:
    """Its go.mod and its libraries come before its sources, so that their layers are reused; no `go mod init`."""
    lines = dockerfile(wants, app, "go")
    first, second, last = (lines.index(one) for one in ("COPY go.mod go.su[m] ./", "RUN go mod download", "COPY . ."))
    assert first < second < last
    assert "go mod init" not in "\n".join(lines)
    assert lines[-1] == 'CMD ["/usr/local/bin/app"]'


@pytest.mark.parametrize("name", SHIPPED)
def test_packages_are_listed_and_installed_in_one_layer(wants: Wants, app: Path, name: str) -> None:
    """A layer with an old list would be reused. The stack for WSGI has all four programs."""
    lines = dockerfile(wants, app, name)
    installing = [line for line in lines if "apt-get" in line]
    assert all("apt-get update" in line and "rm -rf /var/lib/apt/lists" in line for line in installing)
    assert len(installing) == (name == "wsgi")
    if name == "wsgi":
        assert {"nginx", "supervisor", "python3-venv", "--no-install-recommends"} <= set(installing[0].split())
        assert any("pip install --no-cache-dir gunicorn" in line for line in lines)


def test_options_of_a_template(wants: Wants, app: Path) -> None:
    """They are part of the Dockerfile, and so of the digest."""
    (app / "Dockerfile").unlink()
    text = REGISTRY + IMAGE + 'template = "python-web"\n'
    (plain,) = wants("image", text)
    (found,) = wants("image", text + 'options = {python = "3.10.5", packages = ["flask"], app = "main.py"}\n')
    assert b"FROM python:3.10.5-slim" in found.context.rendered
    assert b"pip install --no-cache-dir flask\n" in found.context.rendered
    assert b'CMD ["python", "main.py"]' in found.context.rendered
    assert found.digest != plain.digest


MISTAKES = [
    (IMAGE, "names no registry, and the inventory has none"),
    (IMAGE.replace("sammy", "docker.io/sammy"), "no login to push to docker.io with"),
    (REGISTRY.partition("[registry.login]")[0] + IMAGE, "no login to push to gitlab.example.com:5555 with"),
    (NAMED + 'host = "runer-1"\n', "no host has the name 'runer-1'; did you mean \"runner-1\"?"),
    (NAMED.replace('"app"', '"missing"'), "missing does not exist"),
    (NAMED + 'dockerfile = "Dockerfile.prod"\n', "there is no Dockerfile.prod in"),
    (NAMED + 'template = "pyton-web"\n', "no template has the name 'pyton-web'; did you mean \"python-web\"?"),
    (NAMED + 'template = "go"\noptions = {pacage = "x"}\n', "no option 'pacage'; did you mean \"package\"?"),
]


@pytest.mark.parametrize(("text", "why"), MISTAKES)
@pytest.mark.usefixtures("app")
def test_mistakes(wants: Wants, text: str, why: str) -> None:
    """There is one message with a hint."""
    with pytest.raises(UsageError) as refusal:
        wants("image", text)
    assert why in refusal.value.text
    assert refusal.value.hint or "did you mean" in why


def test_without_runner_hosts_one_must_be_named(wants: Wants, app: Path) -> None:  # noqa: ARG001 - it is used there
    """A host with Docker is required."""
    base = '[hosts.web]\n[registry]\nexternal_url = "https://r.example.com"\n'
    with pytest.raises(UsageError, match="no host to build it on"):
        wants("image", NAMED, base=base)
    assert wants("image", NAMED + 'host = "web"\n', base=base)
