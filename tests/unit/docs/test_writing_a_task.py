"""docs/writing-a-task.md: its code is run as it is printed."""

from __future__ import annotations

import ast
import re
from typing import Any

import provision
from provision.resources import Resource
from tests.support.pages import DOCS, block

PAGE = "writing-a-task.md"


def test_the_task_fits_on_a_page() -> None:
    """At most 30 lines, the docstring of the file included; lines that the page's readers can read."""
    source = block(PAGE, "playbooks/node_exporter.py")
    assert len(source.splitlines()) <= 30
    assert max(map(len, source.splitlines())) <= 116
    ast.parse(source)


def test_a_resource_of_ones_own_and_its_test() -> None:
    """The example resource passes the example test."""
    names: dict[str, Any] = {name: getattr(provision, name) for name in provision.__all__}
    exec("from dataclasses import dataclass\nfrom collections.abc import Iterator\n", names)
    exec("from provision.testing import observe, planned\n", names)
    exec(block(PAGE, "A resource is a frozen dataclass"), names)
    exec(block(PAGE, "Test a resource with a table"), names)
    assert issubclass(names["Timezone"], Resource)
    names["test_timezone"]()


def test_every_resource_of_the_page_can_be_imported_from_provision() -> None:
    """And is called as the page shows it: the parameters exist, in this order."""
    rows = re.findall(r"^\| `(\w+)[.(]", (DOCS / PAGE).read_text("utf-8"), re.MULTILINE)
    assert len(rows) >= 18
    for name in rows:
        assert issubclass(getattr(provision, name), Resource), name
