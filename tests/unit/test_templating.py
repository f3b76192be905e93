"""Files that are rendered whole."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from provision.errors import UsageError
from provision.templating import render, shipped, use_templates_of


@pytest.fixture
def mine(tmp_path: Path) -> Iterator[Path]:
    """A user's folder of templates."""
    use_templates_of([tmp_path])
    yield tmp_path
    use_templates_of([])


def test_a_shipped_one() -> None:
    """As it is in the package."""
    assert "Pin: origin h\n" in render("apt.pref.j2", package="a", packages=["a"], host="h")


def test_the_users_own_wins(mine: Path) -> None:
    """Under the same name; others are still found."""
    (mine / "apt.pref.j2").write_text("mine for {{ host }}\n")
    assert render("apt.pref.j2", packages=[], host="h") == "mine for h\n"
    assert "Types: deb" in render("apt.sources.j2", uri="u", suite="s", component="c", architecture="a", key="k")


def test_the_first_folder_wins(tmp_path: Path) -> None:
    """In the order given."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.j2").write_text(name)
    use_templates_of([tmp_path / "one", tmp_path / "two"])
    assert render("x.j2") == "one"
    use_templates_of([])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{{ missing }}", "'missing' is undefined"),
        ("{% if x %}{{ missing }}{% endif %}", "'missing' is undefined"),
        ("{{ x.missing }}", "has no attribute 'missing'"),
        ("{% for %}", "TemplateSyntaxError"),
        ("{{ x", "TemplateSyntaxError"),
    ],
)
def test_the_error_names_the_template_and_the_fault(mine: Path, text: str, message: str) -> None:
    """A misspelt name is an error, not an empty text."""
    (mine / "x.j2").write_text(text)
    with pytest.raises(UsageError, match=r"templates/x\.j2: ") as caught:
        render("x.j2", x={"a": 1})
    assert message in caught.value.text
    assert "fix the template" in caught.value.hint


def test_one_that_is_not_there() -> None:
    """Named."""
    with pytest.raises(UsageError, match=r"templates/nowhere\.j2: TemplateNotFound"):
        render("nowhere.j2")


def test_any_name_is_free_for_values(mine: Path) -> None:
    """`name` too."""
    (mine / "x.j2").write_text("hello {{ name }}{% if self_ %}!{% endif %}.\n")
    assert render("x.j2", name="bob", self_=True) == "hello bob!.\n"
    (mine / "y.j2").write_text("hello {{ name }}\n")
    assert render("y.j2", name="bob") == "hello bob\n"


def test_text_is_taken_as_it_is_and_html_is_escaped(mine: Path) -> None:
    """By the template's name."""
    for name in ("x.j2", "x.html.j2"):
        (mine / name).write_text("{{ text }}\n")
    assert render("x.j2", text="<a & 'b'>") == "<a & 'b'>\n"
    assert render("x.html.j2", text="<a>") == "&lt;a&gt;\n"


def test_whitespace_of_blocks_goes_and_last_lines_stay(mine: Path) -> None:
    """As one writes configuration files."""
    (mine / "x.j2").write_text("a\n  {% for one in many %}\n{{ one }}\n  {% endfor %}\n\n")
    assert render("x.j2", many=[1, 2]) == "a\n1\n2\n\n"


def test_where_things_are() -> None:
    """In a checkout beside the package."""
    for folder, file in (("templates", "apt.pref.j2"), ("playbooks", "all.py"), ("inventories", "example.toml")):
        assert (shipped(folder) / file).is_file()
