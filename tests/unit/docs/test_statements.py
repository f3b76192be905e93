"""docs/security.md and docs/reliability.md: every statement names the tests that show it, and they exist."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

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


@pytest.mark.parametrize("page", ["reliability.md", "security.md"])
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
