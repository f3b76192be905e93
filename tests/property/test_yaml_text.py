"""Whatever text a template is given, YAML reads the same text back, also within a line of a list or a table."""

from __future__ import annotations

import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from provision.templating import yaml_text

# What YAML cannot hold at all, not even escaped as JSON does, is no text of a pipeline.
texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=60)
nasty = st.text("'\"\\$:#-?{}[]&*!|>%@`,~ \t\n\r.=0yne\u2028\x85\ufeff", max_size=12)


@given(st.one_of(texts, nasty))
@example("yes")
@example("a: b")
@example("a #b")
@example("a:")
@example("")
@example("~")
@example("1.0")
def test_it_is_read_back(text: str) -> None:
    """As a member of a list and as a value."""
    tree = yaml.safe_load(f"list:\n  - {yaml_text(text)}\ntable:\n  key: {yaml_text(text)}\n")
    assert tree == {"list": [text], "table": {"key": text}}
