"""The shipped pipelines, with all options: GitLab's schema, its lint, and their content."""

from __future__ import annotations

import itertools
import json
import shutil
from importlib.resources import files
from typing import Any

import jsonschema
import pytest
import yaml

from provision.resources import PipelineFile
from provision_lab.standins.gitlab_ce.host.api.lint import check_configuration
from tests.support.estate import Estate

SCHEMA = files("check_jsonschema") / "builtin_schemas/vendor/gitlab-ci.json"
BUILDS = ("dind", "dind-without-tls", "socket", "buildah")
OPTIONS = {
    "registry": {"test": "npm test"},
    "dockerhub": {"image": "sammy/hello"},
}
AWKWARD = {
    "test": "sh -c 'echo \"a: b\" # c' && true:",
    "tags": ["docker", "x: y", "no"],
    "variables": {
        "A": "yes",
        "B": "a: b # c",
        "C": "",
        "D": "1",
        "E": 'quo"te',
        "F": "$CI_COMMIT_SHA",
        "G": "ümlaut\n",
    },
}


class Strict(yaml.SafeLoader):
    """A YAML loader that refuses duplicate keys."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        """A mapping without duplicate keys."""
        keys = [self.construct_object(key, deep) for key, _ in node.value]  # type: ignore[no-untyped-call]
        assert len(keys) == len(set(keys)), keys
        return super().construct_mapping(node, deep)


def rendered(estate: Estate, template: str, **options: Any) -> str:
    """The text that the task commits."""
    import tomlkit

    wanted = {"template": template, **OPTIONS[template], **options}
    text = tomlkit.dumps({"projects": {"root/hello": {"pipeline": wanted}}})
    (found,) = estate.resources("pipeline", text)
    assert isinstance(found, PipelineFile)
    return found.text


@pytest.fixture(scope="module")
def validator() -> Any:
    """GitLab's schema of .gitlab-ci.yml, as its pipeline editor uses it."""
    return jsonschema.Draft7Validator(json.loads(SCHEMA.read_text("utf-8")))


WAYS = list(itertools.product(OPTIONS, BUILDS, ({}, AWKWARD)))


@pytest.mark.parametrize(("template", "build", "more"), WAYS, ids=[f"{t}-{b}-{bool(m)}" for t, b, m in WAYS])
def test_it_is_valid(estate: Estate, validator: Any, template: str, build: str, more: dict[str, Any]) -> None:
    """It is valid for GitLab's schema and lint, and strict YAML with exactly the given values."""
    text = rendered(estate, template, build=build, **more)
    tree = yaml.load(text, Strict)
    assert [error.message for error in validator.iter_errors(tree)] == []
    for name, value in more.get("variables", {}).items():
        assert tree["variables"][name] == value
    if more:
        assert tree["default"]["tags"] == more["tags"]
    if shutil.which("ruby"):
        assert check_configuration(text) == ([], [])
    assert all(len(line) < 200 for line in text.splitlines())
    assert "{{" not in text


def test_the_schema_can_refuse(validator: Any) -> None:
    """The schema itself refuses an invalid pipeline."""
    assert list(validator.iter_errors({"build": {"scrpt": ["x"]}}))
    assert list(validator.iter_errors({"build": {"script": 5}}))


@pytest.mark.parametrize("template", OPTIONS)
@pytest.mark.parametrize("build", BUILDS[:3])
def test_how_docker_is_reached(estate: Estate, template: str, build: str) -> None:
    """With TLS, without TLS, with the socket: services and variables are right, and versions pinned."""
    tree = yaml.load(rendered(estate, template, build=build, docker="28.5.1"), Strict)
    job = {**tree["default"], **tree} if template == "registry" else tree["publish"]
    assert job["image"] == "docker:28.5.1-cli"
    assert job.get("services") == (None if build == "socket" else ["docker:28.5.1-dind"])
    found = {name: value for name, value in job.get("variables", {}).items() if name.startswith("DOCKER_")}
    assert (
        found
        == {
            "dind": {"DOCKER_TLS_CERTDIR": "/certs"},
            "dind-without-tls": {"DOCKER_HOST": "tcp://docker:2375", "DOCKER_TLS_CERTDIR": ""},
            "socket": {},
        }[build]
    )


@pytest.mark.parametrize("template", OPTIONS)
def test_buildah_needs_no_docker(estate: Estate, template: str) -> None:
    """The pinned image of Buildah, no service, no Docker command; the password on standard input."""
    text = rendered(estate, template, build="buildah", buildah="1.42.0")
    tree = yaml.load(text, Strict)
    job = {**tree["default"], **tree} if template == "registry" else tree["publish"]
    assert job["image"] == "quay.io/buildah/stable:v1.42.0"
    assert "services" not in job
    assert {name: job["variables"][name] for name in ("STORAGE_DRIVER", "BUILDAH_ISOLATION", "BUILDAH_FORMAT")} == {
        "STORAGE_DRIVER": "vfs",
        "BUILDAH_ISOLATION": "chroot",
        "BUILDAH_FORMAT": "docker",
    }
    scripts = [
        line
        for part in [tree["default"], *tree.values()]
        if isinstance(part, dict)
        for line in [*part.get("before_script", ()), *part.get("script", ())]
    ]
    assert [line for line in scripts if line.startswith("docker ") or "| docker" in line] == []
    assert sum("| buildah login" in line and "--password-stdin" in line for line in scripts) >= 1
    last = tree["release" if template == "registry" else "publish"]
    assert last["rules"] == [{"if": "$CI_COMMIT_BRANCH == $CI_DEFAULT_BRANCH"}]


@pytest.mark.parametrize("template", OPTIONS)
def test_modern_and_careful(estate: Estate, template: str) -> None:
    """It uses `rules` and `default`, no password in an argv, the registry as cache; only the default branch releases."""
    text = rendered(estate, template)
    tree = yaml.load(text, Strict)
    assert "only:" not in text
    assert "image" in tree["default"]
    logins = [line for line in text.splitlines() if "docker login" in line]
    assert logins
    assert all("--password-stdin" in line and " -p " not in line for line in logins)
    assert "--cache-from" in text
    last = tree["release" if template == "registry" else "publish"]
    assert last["rules"] == [{"if": "$CI_COMMIT_BRANCH == $CI_DEFAULT_BRANCH"}]


def test_what_the_inventory_says_is_in_it(estate: Estate) -> None:
    """Versions, coverage, image and test."""
    text = rendered(estate, "dockerhub", python="3.12", coverage=85, test="-m pytest", image="sammy/other")
    for words in ("python:3.12-slim", "--fail-under=85", "coverage run -m pytest", "$DOCKERHUB_REGISTRY/sammy/other"):
        assert words in text
    text = rendered(estate, "registry", image="sammy/hello/web", test="it's && fine")
    assert "IMAGE: $CI_REGISTRY/sammy/hello/web\n" in text
    (line,) = [one for one in yaml.load(text, Strict)["test"]["script"] if "docker run" in one]
    assert line == """docker run --rm --entrypoint sh "$TEST_IMAGE" -c 'it'"'"'s && fine'"""
