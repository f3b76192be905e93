"""[projects]: the notations of variables, which are secret, and mistakes with their places."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from provision.engine.catalogue import load_inventory as load
from provision.inventory import Inventory
from provision.inventory.secrets import SecretSource
from provision.inventory.tables.projects import Project

HEAD = '[projects."group/name"]\n'  # line 8
VARIABLES = '[projects."group/name".variables]\n'
PIPELINE = '[projects."group/name".pipeline]\ntemplate = "registry"\n'


def project(inventory: Inventory) -> Project:
    """The project."""
    return inventory.hosts[0].settings.named(Project)["group/name"]


def test_shapes_of_a_variable(estate: Callable[..., Inventory]) -> None:
    """A string, a secret, a table, an array of tables: each gives one variable for each scope."""
    text = """
PLAIN = "a"
SECRET = { env = "HOME" }
TABLE = { value = { file = "x" }, type = "file", protected = true }
SEVERAL = [{ value = "a", environment_scope = "production" }, { value = "b" }]
"""
    found = project(estate(VARIABLES + text)).variables
    assert [(key, len(one)) for key, one in found.items()] == [
        ("PLAIN", 1),
        ("SECRET", 1),
        ("TABLE", 1),
        ("SEVERAL", 2),
    ]
    assert found["PLAIN"][0].value == "a"
    assert isinstance(found["SECRET"][0].value, SecretSource)
    assert found["SECRET"][0].value.kind == "env"
    assert (found["TABLE"][0].type, found["TABLE"][0].protected) == ("file", True)
    assert [one.environment_scope for one in found["SEVERAL"]] == ["production", "*"]


@pytest.mark.parametrize("name", ["env", "file", "command", "prompt"])
def test_a_variable_may_be_called_like_a_source_of_secrets(estate: Callable[..., Inventory], name: str) -> None:
    """A table with one variable named env is a table of variables; likewise in the pipeline."""
    found = project(
        estate(f'{VARIABLES}{name} = "x"\n{PIPELINE}[projects."group/name".pipeline.variables]\n{name} = "y"\n')
    )
    assert found.variables[name][0].value == "x"
    assert found.pipeline is not None
    assert found.pipeline.variables == {name: "y"}


def test_what_is_masked_is_not_shown(estate: Callable[..., Inventory]) -> None:
    """Values under secret-looking names are not shown either."""
    text = 'A = { value = "masked-value", masked = true }\nB = { value = "hidden-value", hidden = true }\nMY_TOKEN = "token-value"\n'
    shown = estate(VARIABLES + text).as_text()
    assert [word for word in ("masked-value", "hidden-value", "token-value") if word in shown] == []


def test_its_local_file_is_beside_the_inventory(write_estate: Callable[..., Path]) -> None:
    """It is relative to the inventory, like all local paths."""
    path = write_estate(f'{PIPELINE}path = "out/ci.yml"\n')
    found = project(load([path])).pipeline
    assert found is not None
    assert found.path == path.parent / "out/ci.yml"


MISTAKES = [
    ('[projects."name"]\n', 8, "projects.name", "expected a project's path"),
    ('[projects."group/"]\n', 8, 'projects."group/"', "expected a project's path"),
    ('[projects."group/name.git"]\n', 8, 'projects."group/name.git"', "expected a project's path"),
    (HEAD + "share_runners = true\n", 9, "share_runners", 'did you mean "shared_runners"?'),
    (HEAD + 'registry = "public"\n', 9, "registry", "expected 'enabled', 'private' or 'disabled'"),
    (HEAD + 'runners = ["a", "a"]\n', 9, "runners[1]", "each once"),
    (HEAD + 'runners = [""]\n', 9, "runners[0]", "a runner's name or id"),
    (VARIABLES + '"a-b" = "x"\n', 9, "variables.a-b", "letters, digits and _"),
    (VARIABLES + "A = 5\n", 9, "variables.A", "expected a string, a secret, or a table"),
    (VARIABLES + "A = []\n", 9, "variables.A", "got an empty array"),
    (VARIABLES + 'A = { value = "short", masked = true }\n', 9, "variables.A[0].value", "at least 8 characters"),
    (VARIABLES + 'A = { value = "has a blank", masked = true }\n', 9, "variables.A[0].value", "only letters, digits"),
    (
        VARIABLES + 'A = { value = "has a blank", masked = true, raw = true }\n',
        9,
        "variables.A[0].value",
        "it contains a space",
    ),
    (VARIABLES + 'A = { value = "two\\nlines", hidden = true }\n', 9, "variables.A[0].value", "several lines"),
    (VARIABLES + "A = { value = 5 }\n", 9, "variables.A[0].value", "expected a string or a secret"),
    (VARIABLES + "A = { masked = true }\n", 9, "variables.A[0].value", "is missing"),
    (VARIABLES + 'A = { value = "x", mask = true }\n', 9, "variables.A[0].mask", 'did you mean "masked"?'),
    (
        VARIABLES + 'A = { value = "x", environment_scope = "a!" }\n',
        9,
        "environment_scope",
        "expected an environment's name",
    ),
    (VARIABLES + 'A = [{ value = "x" }, { value = "y" }]\n', 9, "variables.A[1]", "is used already"),
    (PIPELINE + 'build = "kaniko"\n', 10, "pipeline.build", "expected 'dind'"),
    (PIPELINE + 'docker = "latest"\n', 10, "pipeline.docker", "expected a version"),
    (PIPELINE + 'image = "Upper/Name"\n', 10, "pipeline.image", "expected user/name in lower case"),
    (PIPELINE + 'branch = "a b"\n', 10, "pipeline.branch", "expected a branch's name"),
    (PIPELINE + 'test = " "\n', 10, "pipeline.test", "not empty"),
    (PIPELINE + "coverage = 101\n", 10, "pipeline.coverage", "at most 100"),
    (PIPELINE + 'path = "x"\nmerge_request = true\n', 11, "pipeline.merge_request", "exclude each other"),
    (
        PIPELINE + 'merge_request = true\nbranch = "provision/pipeline"\n',
        11,
        "pipeline.branch",
        "the source of the merge request",
    ),
    (PIPELINE + 'variables = { A_TOKEN = "x" }\n', 10, "pipeline.variables.A_TOKEN", "a secret must not be"),
    (PIPELINE + "variables = { A = 1 }\n", 10, "pipeline.variables.A", "expected a string in quotes"),
    ('[projects."group/name".pipeline]\ntemplate = "../x"\n', 9, "pipeline.template", "expected a template's name"),
]


@pytest.mark.parametrize(
    ("more", "line", "key", "expected"), MISTAKES, ids=[f"{m[2]}-{i}" for i, m in enumerate(MISTAKES)]
)
def test_mistake_names_its_place(mistake: Callable[..., str], more: str, line: int, key: str, expected: str) -> None:
    """File, line, key and what is expected."""
    message = mistake(more, expected)
    assert message.startswith(f"{line}: ")
    assert key in message
