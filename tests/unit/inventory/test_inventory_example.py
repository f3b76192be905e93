"""The example shows every key, and all of it is valid; so are the schema and the documentation."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from provision.engine.catalogue import Catalogue
from provision.engine.catalogue import load_inventory as load
from provision.inventory.problems import tables_in
from provision.inventory.reference import field_docs, schema
from provision.inventory.tables.base import Table, fields_of
from provision.inventory.tables.host import HostTable, Ssh
from provision.inventory.tables.runners import Runner

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[3]
EXAMPLE = ROOT / "inventories/example.toml"
OPTION = re.compile(r"^#(?=[\w\[])(?!or: )", re.MULTILINE)
ALTERNATIVE = re.compile(r"^#or: (.*)$", re.MULTILINE)


def tables(model: type[Table]) -> set[type[Table]]:
    """A table and all tables below it."""
    fields = model.model_fields.values()
    return {model}.union(*(tables(one) for field in fields for one in tables_in(field.annotation)))


TABLES = Catalogue.of().tables
ALL = sorted({HostTable}.union(*map(tables, TABLES)), key=lambda model: model.__name__)
FIELDS = [(model, key) for model in ALL for key in fields_of(model)]


def test_example_loads() -> None:
    """The active lines of the example are a valid inventory."""
    inventory = load([EXAMPLE])
    assert [host.name for host in inventory.hosts] == ["gitlab", "runner-01", "runner-02"]
    assert inventory.warnings == ()


def test_example_loads_uncommented(write: Callable[..., Path]) -> None:
    """With all options active it is valid, too."""
    inventory = load([write(OPTION.sub("", EXAMPLE.read_text("utf-8")))])
    settings = inventory.hosts[0].settings
    assert [runner.name for runner in settings.all(Runner)] == ["docker-builder", "project-builder"]
    assert settings[Ssh].proxy_jump == "ops@bastion.example.com:22"


def test_alternatives_are_toml() -> None:
    """The alternatives after `#or:` are valid TOML."""
    alternatives = ALTERNATIVE.findall(EXAMPLE.read_text("utf-8"))
    assert alternatives
    assert all(tomllib.loads(line) for line in alternatives)


@pytest.mark.parametrize(("model", "key"), FIELDS, ids=[f"{model.__name__}.{key}" for model, key in FIELDS])
def test_every_key_is_shown_and_described(model: type[Table], key: str) -> None:
    """Each field is in the example, and has a docstring."""
    shown = rf"(?m)(?:^#?(?:or: )?|\{{ |, |\.|\[){re.escape(key)}(?: =|\]|\.)"
    assert re.search(shown, EXAMPLE.read_text("utf-8")), f"{key} is missing in {EXAMPLE.name}"
    assert field_docs(model).get(key), f"{model.__name__}.{key} has no docstring"


def test_documentation_names_every_table_and_key() -> None:
    """docs/inventory.md names each key, except those of the S3 driver and of config.toml."""
    text = (ROOT / "docs/inventory.md").read_text("utf-8")
    own = [key for model, key in FIELDS if model.__name__ not in ("S3", "Runner")]
    assert [key for key in own if key not in text] == []


def test_schema_accepts_the_example() -> None:
    """The example is valid according to the schema."""
    validator = jsonschema.Draft202012Validator(schema(TABLES))
    validator.check_schema(schema(TABLES))
    for text in (EXAMPLE.read_text("utf-8"), OPTION.sub("", EXAMPLE.read_text("utf-8"))):
        assert [error.message for error in validator.iter_errors(tomllib.loads(text))] == []


WRONG = [
    "[dokcer]",
    "[hosts.a]\nadress = 'x'",
    "[hosts.a.ssh]\nport = 0",
    "[groups.a.docker]\nsource = 'x'",
    "[ssh]\nbecome_password = {env = 'A', file = 'b'}",
    "[ssh]\nbecome_password = 5",
    "[firewall]\nallow = ['80/tpc']",
    "[[runners]]\nname = 'a'",
]


@pytest.mark.parametrize("text", WRONG)
def test_schema_refuses(text: str) -> None:
    """The schema refuses what `load` refuses."""
    assert list(jsonschema.Draft202012Validator(schema(TABLES)).iter_errors(tomllib.loads(text)))


def test_schema_describes_itself() -> None:
    """Descriptions are the docstrings, and null occurs nowhere."""
    found = schema(TABLES)
    assert found["$defs"]["Docker"]["properties"]["source"]["description"].startswith(
        "docker.com: Docker's own packages"
    )
    assert found["$defs"]["Runner"]["required"] == ["name", "executor"]
    assert "required" not in found["$defs"]["Registry"], "a group may bring the rest"
    assert not _nulls(found)


def _nulls(node: Any) -> list[Any]:
    if isinstance(node, dict):
        here = [node] if node.get("type") == "null" or node.get("default", 0) is None else []
        return here + [one for value in node.values() for one in _nulls(value)]
    return [one for value in node for one in _nulls(value)] if isinstance(node, list) else []
