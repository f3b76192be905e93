"""docs/architecture.md: the files that it names exist, its list of rooms is complete, and the sizes that it promises hold."""

from __future__ import annotations

import re
from graphlib import TopologicalSorter

import grimp
import pytest

from tests.support.pages import DOCS

PACKAGE = DOCS.parent / "provision"
TEXT = (DOCS / "architecture.md").read_text("utf-8")
SIZES = {
    path.relative_to(PACKAGE).as_posix(): len(path.read_text("utf-8").splitlines()) for path in PACKAGE.rglob("*.py")
}


def rows(heading: str) -> list[str]:
    """The first cells of the table under a heading."""
    body = TEXT.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(r"^\| (`.*?) \|", body, re.MULTILINE)


def test_the_rooms_are_the_folders() -> None:
    """And the base modules are the files beside them."""
    named = re.findall(r"`([\w./]+)`", " ".join(rows("The rooms")))
    folders = {f"{path.parent.name}/" for path in PACKAGE.glob("*/__init__.py")}
    files = {path.name for path in PACKAGE.glob("*.py")} - {"__init__.py"}
    assert sorted(named) == sorted({*folders, *files, "lab/", "provision/"})


def test_every_file_of_the_page_exists() -> None:
    """Its path begins in provision/, or in the checkout."""
    named = set(re.findall(r"`([\w/]+\.(?:py|sh))`", TEXT))
    assert len(named) > 30
    assert {
        one
        for one in named - {"host/scripts/NAME.sh"}
        if not (PACKAGE / one).is_file() and not (DOCS.parent / one).is_file()
    } == set()


def test_one_setting_passes_few_files() -> None:
    """From the command line to the report, through none of them twice."""
    files = [one.strip("`") for one in rows("One setting, from file to report")]
    assert (files[0], files[-1]) == ("cli/run.py", "report/final.py")
    assert 15 <= len(files) <= 20
    assert len({*files}) == len(files)


def test_the_files_are_neither_many_nor_long() -> None:
    """The limits that the page names."""
    small = [name for name, lines in SIZES.items() if lines < 40 and not name.endswith("__init__.py")]
    found = [int(one) for one in re.findall(r"\d+", TEXT.partition("## Sizes\n")[2].partition("\n## ")[0])]
    files, few, short, long = found[:4]
    assert (files, few, short, long) == (160, 15, 40, 500)
    assert len(SIZES) <= files
    assert len(small) <= few, small
    assert {name: lines for name, lines in SIZES.items() if lines > long} == {}


@pytest.mark.parametrize("package", ["provision", "provision_lab"])
def test_no_module_imports_itself_through_others(package: str) -> None:
    """Not even a package its own module and back, which import-linter does not count."""
    graph = grimp.build_graph(package, cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    assert len(list(TopologicalSorter(imports).static_order())) == len(graph.modules)
