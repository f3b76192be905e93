"""docs/security.md, docs/reliability.md and docs/seeds.md: every statement names the tests that show it, and they exist.

Keys of the inventory and commands that a row of docs/seeds.md names are compared with the schema and the command line.
"""

from __future__ import annotations

import ast
import re
import shlex
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from provision.cli.run import run
from provision.cli.verbs import find_verb
from provision.engine.catalogue import Catalogue
from provision.inventory.reference import schema
from tests.support.pages import DOCS

TESTS = DOCS.parent / "tests"
NAMED = re.compile(r"`(?P<file>(?:tests/)?(?:[\w/]+/)?test_\w+\.py)?(?P<names>(?:::\w+)*)`")


@cache
def files() -> list[Path]:
    """Every test file, below tests/."""
    return [path.relative_to(TESTS) for path in sorted(TESTS.rglob("test_*.py"))]


def places(file: str) -> list[Path]:
    """The test files that a page can mean by a name: the end of a path, or the whole path from `tests/` on."""
    wanted = Path(file.removeprefix("tests/")).parts
    whole = file.startswith("tests/")
    return [path for path in files() if (path.parts if whole else path.parts[-len(wanted) :]) == wanted]


@cache
def names_in(file: Path) -> frozenset[str]:
    """The tests of a file: `test_x`, `TestX`, `TestX::test_x`."""
    found = set()
    for one in ast.parse((TESTS / file).read_text("utf-8")).body:
        if isinstance(one, ast.FunctionDef):
            found.add(one.name)
        elif isinstance(one, ast.ClassDef):
            inner = [each.name for each in one.body if isinstance(each, ast.FunctionDef)]
            found |= {one.name, *inner, *(f"{one.name}::{name}" for name in inner)}
    return frozenset(name for name in found if name.rpartition("::")[2].lower().startswith("test"))


def problems(cell: str) -> list[str]:
    """What is wrong with the tests that a cell names; `::test_x` is in the file that was named before it."""
    wrong, file, count = [], None, 0
    for found in NAMED.finditer(cell):
        if found["file"]:
            where = places(found["file"])
            if len(where) != 1:
                wrong.append(f"{found['file']}: {len(where)} files have this name")
            file = where[0] if len(where) == 1 else None
        if found["names"]:
            count += 1
            if file is not None and found["names"].removeprefix("::") not in names_in(file):
                wrong.append(f"{file} has no test {found['names']}")
            if file is None:
                wrong.append(f"{found[0]}: no test file is named before it")
    return wrong + ([] if count else ["no test is named"])


def sections(text: str) -> dict[str, str]:
    """The text below each heading."""
    parts = re.split(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def statements(text: str) -> list[tuple[str, str]]:
    """The rows of all tables: the statement, and the cell with its tests."""
    rows = [re.split(r" \| ", line.strip("| ")) for line in text.splitlines() if line.startswith("| ")]
    return [(" ".join(cells[:-1]), cells[-1] if len(cells) > 1 else "") for cells in rows if cells[-1] != "test"]


def test_every_statement_about_security_has_its_test() -> None:
    """A row without a test, or with one that does not exist, is an error."""
    found = statements((DOCS / "security.md").read_text("utf-8"))
    assert len(found) > 80
    assert {row: wrong for row, cell in found if (wrong := problems(cell))} == {}


def test_statements_about_security_stand_in_tables() -> None:
    """Only what is not covered may be a list, because it has no test. Every table ends in a column of tests."""
    text = (DOCS / "security.md").read_text("utf-8")
    for heading, body in sections(text).items():
        if heading != "What is not covered":
            assert re.findall(r"^ *(?:[-*]|\d+\.) ", body, re.MULTILINE) == [], heading
        for before, line in re.findall(r"^(\|.*)\n(\|---.*)$", body, re.MULTILINE):
            assert before.endswith("| test |"), line
            assert before.count("|") == line.count("|")


UNTESTED = "no test: "
KEY = re.compile(r"(?P<path>[a-z]\w*(?:\.[\w-]+)+)(?: = (?P<value>.+))?")
FILES = (".toml", ".yml", ".rb", ".conf", ".mod", ".py")
CATALOGUE = Catalogue.of()


@cache
def inventory_schema() -> dict[str, Any]:
    """The schema of the inventory."""
    return schema(CATALOGUE.tables)


def alternatives(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A part of the schema, with what it refers to and the entries of an array."""
    yield node
    for one in [*node.get("anyOf", ()), *node.get("oneOf", ()), *([node["items"]] if "items" in node else [])]:
        yield from alternatives(one)
    if "$ref" in node:
        yield from alternatives(inventory_schema()["$defs"][node["$ref"].rpartition("/")[2]])


def below(node: dict[str, Any], key: str) -> dict[str, Any] | None:
    """The schema of a key, or None. A table of any names accepts every key."""
    for one in alternatives(node):
        if key in one.get("properties", {}):
            return dict(one["properties"][key])
        if one.get("type") == "object" and one.get("additionalProperties"):
            return {} if one["additionalProperties"] is True else dict(one["additionalProperties"])
    return None


def wrong_key(token: str) -> str:
    """What is wrong with `table.key` or `table.key = value`; "" where nothing is."""
    found = KEY.fullmatch(token)
    if not found or found["path"].endswith(FILES):
        return ""
    node: dict[str, Any] | None = inventory_schema()
    for key in found["path"].split("."):
        if node == {}:
            break
        node = below(node, key) if node is not None else None
    if node is None:
        return f"{found['path']}: no such key"
    if found["value"] is None:
        return ""
    value = tomllib.loads(f"x = {found['value']}")["x"]
    checked = jsonschema.Draft202012Validator({**node, "$defs": inventory_schema()["$defs"]})
    return "; ".join(f"{token}: {error.message}" for error in checked.iter_errors(value))


def wrong_command(token: str) -> str:
    """What is wrong with `provision …`; "" where nothing is."""
    words = shlex.split(token)[1:]
    command = find_verb(words[0]) or run
    names = [word for word in words if not word.startswith("-")] if command is run else []
    known = {option for one in command.params for option in one.opts}
    wrong = [name for name in names if name not in {**CATALOGUE.tasks, **CATALOGUE.playbooks}]
    wrong += [word for word in words if word.startswith("-") and word not in known]
    return f"{token}: unknown: {', '.join(wrong)}" if wrong else ""


def wrong_names(text: str) -> list[str]:
    """What is wrong with the keys and commands that a text names."""
    tokens = re.findall(r"`([^`]+)`", text)
    found = [wrong_command(one) if one.startswith("provision ") else wrong_key(one) for one in tokens]
    return [one for one in found if one]


def test_every_step_of_the_tutorials_by_hand() -> None:
    """Its row in docs/seeds.md names a test, or says why there is none; keys, values and commands of this tool are valid."""
    text = (DOCS / "seeds.md").read_text("utf-8")
    found = statements(text)
    assert len(found) > 180
    untested = {row for row, cell in found if re.fullmatch(f"{UNTESTED}.+", cell)}
    assert {row: wrong for row, cell in found if row not in untested and (wrong := problems(cell))} == {}
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    cells = [line.split(" | ")[-2] for line in rows]
    assert {cell: wrong for cell in cells if (wrong := wrong_names(cell))} == {}
    assert sum(bool(KEY.fullmatch(one)) for cell in cells for one in re.findall(r"`([^`]+)`", cell)) > 100


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("`registry.s3.bucket`, `docker.daemon = { dns = [\"192.0.2.53\"] }`, `config.toml`, `provision all --check -D`", ""),
        ("`registry.s3.buckt`", "registry.s3.buckt: no such key"),
        ("`runners.docker.privileged = \"yes\"`", "is not of type 'boolean'"),
        ("`projects.NAME.pipeline.build = \"kaniko\"`", "'kaniko' is not one of"),
        ("`images.login.user`", "images.login.user: no such key"),
        ("`provision al --chek`", "unknown: al, --chek"),
        ("`provision logs hello --follow`", ""),
        ("`provision logs hello --check`", "unknown: --check"),
    ],
)  # fmt: skip
def test_what_is_found_in_names(text: str, wrong: str) -> None:
    """The check itself."""
    found = wrong_names(text)
    assert wrong in " ".join(found)
    assert bool(found) == bool(wrong)


@pytest.mark.parametrize("page", ["reliability.md", "security.md", "seeds.md"])
def test_every_file_that_a_page_names_exists(page: str) -> None:
    """Once, so that a reader finds it."""
    text = (DOCS / page).read_text("utf-8")
    named = {found["file"] for found in NAMED.finditer(text) if found["file"]}
    assert len(named) > 20
    assert {name: len(places(name)) for name in named if len(places(name)) != 1} == {}


@pytest.mark.parametrize(
    ("row", "wrong"),
    [
        ("| x | `test_secret.py::test_equality`, `::test_revealing` |", []),
        ("| x | `test_session.py::TestRedirects`, `::TestRedirects::test_data_is_not_sent_again` |", []),
        ("| x | `test_secret.py::test_nothing_of_this_name` |", ["unit/test_secret.py has no test ::test_nothing_of_this_name"]),
        ("| x | `test_secret.py` |", ["no test is named"]),
        ("| x | |", ["no test is named"]),
        ("| x |", ["no test is named"]),
        ("| x | `test_proxy.py::test_a_service` |", ["test_proxy.py: 2 files have this name", "`test_proxy.py::test_a_service`: no test file is named before it"]),
        ("| x | `::test_equality` |", ["`::test_equality`: no test file is named before it"]),
    ],
)  # fmt: skip
def test_what_is_found(row: str, wrong: list[str]) -> None:
    """The check itself."""
    ((_, cell),) = statements(row)
    assert problems(cell) == wrong
