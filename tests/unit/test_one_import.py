"""`from provision import …`: the one import for tasks and playbooks of one's own."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import provision

ROOT = Path(__file__).resolve().parents[2]


def typed_names() -> set[str]:
    """The names that type checkers see."""
    tree = ast.parse(Path(provision.__file__).read_text("utf-8"))
    (block,) = [one for one in tree.body if isinstance(one, ast.If)]
    return {name.name for one in block.body if isinstance(one, ast.ImportFrom) for name in one.names}


def test_every_name_is_there() -> None:
    """Those that type checkers see, those that are listed, and those that are found are the same."""
    assert typed_names() == set(provision.__all__) - {"__version__"}
    assert set(dir(provision)) == set(provision.__all__)
    assert all(getattr(provision, name) is not None for name in provision.__all__)


def test_an_unknown_name() -> None:
    """An AttributeError, as of any module."""
    with pytest.raises(AttributeError, match="has no attribute 'Flie'"):
        provision.Flie  # noqa: B018


def test_the_import_itself_is_light() -> None:
    """Nothing is imported with it."""
    code = "import sys, provision; sys.exit(any(one.startswith(('pydantic', 'provision.')) for one in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("page", ["docs/writing-a-task.md", "README.md"])
def test_the_documentation_imports_what_there_is(page: str) -> None:
    """Every `from provision import …` in it works."""
    text = (ROOT / page).read_text("utf-8")
    names = {name.strip() for line in re.findall(r"from provision import ([^\n(]+)", text) for name in line.split(",")}
    assert names <= set(provision.__all__)
